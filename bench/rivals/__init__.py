"""The same application for each library: one module a library, and `common`, which they all share."""
