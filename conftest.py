"""The servers for all tests; see tests/testservers/fixtures.py."""

pytest_plugins = ["testservers.fixtures"]
