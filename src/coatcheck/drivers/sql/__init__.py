"""What the drivers on SQL servers share: PostgreSQL, and MariaDB and MySQL.

`work` and `writing` have the operations as generators, and tell the order of locks; `dialect` has the SQL and what
differs between the servers; `statement` is what an operation asks, and how its requests become a transaction; `shell`
carries operations out on connections of our own, sync and async, and `lent` on one of the application's; `pool` keeps
the connections.

SQLite does not use this room. All its writers wait for one lock, so that it needs no order of locks, no guards and no
second look; and its operations are plain calls on a connection in the same process, where stepping a generator for
each statement would cost as much as the statement.
"""
