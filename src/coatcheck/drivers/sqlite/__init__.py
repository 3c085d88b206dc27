"""Sessions in an SQLite file: the embedded default, for the processes of one host.

`driver` has the two drivers (on connections of our own, and on one that the application lends), `work` the operations,
`fast` those that take one statement, `schema` the tables and the SQL text, `rows` the way from rows to records,
`connect` and `files` the opening of the database.
"""

from coatcheck.drivers.sqlite.driver import SQLiteDriver

__all__ = ["SQLiteDriver"]
