"""The Python Web Modules interface of 2005 on Python 3."""

__version__ = "0.1.0"
