"""What all tests may use: real servers, and the table of what each driver passes."""

pytest_plugins = ["testservers.fixtures", "testservers.conformance"]
