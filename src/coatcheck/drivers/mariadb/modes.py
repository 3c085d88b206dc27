"""What a connection of our own is set to, by statement, and what the server says of it afterwards. No I/O.

The client libraries believe what the server said when it greeted them; `init_connect`, a role and a proxy change it
after that. So nothing is left as it is found, and the server is asked once whether it is as it has to be.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Final, cast

from coatcheck.drivers.mariadb.dialect import Unsuited
from coatcheck.drivers.sql.statement import Reply, Row, Statement, Wants

__all__ = ["GRAIN", "limited", "made_ours", "patience_for"]

GRAIN: Final = 1.0
"""Seconds between two looks of the server's at who waits for a lock too long: MySQL has no finer ones."""

_SET: Final = {
    "autocommit": "1",
    "completion_type": "0",  # otherwise each COMMIT begins another transaction, or ends the connection
    "sql_mode": "'STRICT_ALL_TABLES'",
    "unique_checks": "1",  # without them the server may file two sessions under one digest
    "sql_safe_updates": "0",
    "sql_auto_is_null": "0",
    # What would cut an answer short, or refuse a query that looks large
    "sql_select_limit": "18446744073709551615",
    "sql_big_selects": "1",
    "character_set_client": "utf8mb4",
    "character_set_connection": "utf8mb4",
    "character_set_results": "utf8mb4",
    "time_zone": "'+00:00'",
}

# Under REPEATABLE READ the gaps between rows are locked too, and sessions that have nothing to do with each other run
# into deadlocks.
_LEVEL: Final = Statement("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")

_NEEDED: Final = {
    "autocommit": "ON",
    "completion_type": "NO_CHAIN",
    "sql_mode": "STRICT_ALL_TABLES",
    "sql_select_limit": "18446744073709551615",
    "transaction_isolation": "READ-COMMITTED",
    "tx_isolation": "READ-COMMITTED",  # how MariaDB before 11.1 calls the same
    "unique_checks": "ON",
}
_PACKET: Final = "max_allowed_packet"
_ASKED: Final = Statement(
    f"SHOW SESSION VARIABLES WHERE Variable_name IN ({', '.join(map(repr, (*_NEEDED, _PACKET)))})",
    (),
    Wants.ROWS,
)


def _locks(patience: int) -> str:
    return f"innodb_lock_wait_timeout = {patience}, lock_wait_timeout = {patience}"


def made_ours(patience: int) -> Generator[Sequence[Statement], list[Reply], int]:
    """Make a new connection ours; return the server's max_allowed_packet, which does not change while it is open.

    Args:
        patience: The seconds for which the server may wait for a lock.

    Raises:
        Unsuited: The server keeps to something else.
    """
    given = ", ".join(f"{name} = {value}" for name, value in _SET.items())
    replies = yield Statement(f"SET {given}, {_locks(patience)}"), _LEVEL, _ASKED
    rows = cast("list[Row]", replies[-1])
    found = {str(name).lower(): str(value) for name, value in rows}
    for name, value in found.items():
        if _NEEDED.get(name, value) != value:
            raise Unsuited(name, value, _NEEDED[name])
    return int(found[_PACKET])


def patience_for(most: int, deadline: float) -> int:
    """Return the seconds, at most *most*, that the server may wait for a lock if it is to say so before *deadline*."""
    return max(1, min(most, int(deadline - time.monotonic() - GRAIN)))


def limited(patience: int) -> Statement:
    """Return the statement that lets the server wait for a lock for that many seconds from now on."""
    return Statement(f"SET {_locks(patience)}")
