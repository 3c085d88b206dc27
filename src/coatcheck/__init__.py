"""Server-side sessions that two requests cannot corrupt and that logout really ends."""

__version__ = "0.1.0"
