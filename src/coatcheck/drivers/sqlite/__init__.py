"""Sessions in an SQLite file: the embedded default, for the processes of one host.

`driver` has the two drivers (on connections of our own, and on one that the application lends), `work` the operations,
`fast` those that take one statement, `schema` the tables and the SQL text, `rows` the way from rows to records,
`connection`, `files` and `opened` the opening of the database, `connect` the connections of threads, `asynchronous` the
way there from an event loop.
"""

from typing import TYPE_CHECKING

from coatcheck.drivers.sqlite.driver import SQLiteDriver
from coatcheck.drivers.sqlite.opened import create_file, log_files

if TYPE_CHECKING:
    from coatcheck.drivers.sqlite.asynchronous import AsyncSQLiteDriver

__all__ = ["AsyncSQLiteDriver", "SQLiteDriver", "create_file", "log_files"]


def __getattr__(name: str) -> object:
    """Load asyncio for those who need it."""
    if name == "AsyncSQLiteDriver":
        from coatcheck.drivers.sqlite.asynchronous import AsyncSQLiteDriver  # noqa: PLC0415 (see above)

        return AsyncSQLiteDriver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
