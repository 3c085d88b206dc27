"""The three stores: their servers, how they are filled in bulk, and how large they are.

Filling takes a short cut, reading and writing afterwards does not: the driver itself does that.
"""

# ruff: noqa: S608 (the names of our own tables)

from __future__ import annotations

import os
import sqlite3
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from coatcheck.drivers import open_driver
from million.population import Population

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # its servers are the bench's too

from testservers import PostgreSQLServer, RedisServer, Server
from testservers.processes import _tree

_SLICE: Final = 10_000  # sessions written at a time
_TICK: Final = os.sysconf("SC_CLK_TCK")


class Size(NamedTuple):
    """How large a store is, in bytes.

    Attributes:
        data: What holds the sessions.
        parts: Of that, by name; or what else is worth knowing.
    """

    data: int
    parts: dict[str, int]


class Store(ABC):
    """An engine with room for many populations.

    Attributes:
        name: The name in tables.
        where: Where its sessions are: memory or disk.
        filling: How it is filled.
        port: The port of its server, or None.
        collects: Whether the server itself removes what expired.
    """

    name: ClassVar[str]
    where: ClassVar[str]
    filling: ClassVar[str]
    port: int | None = None
    collects: ClassVar[bool] = False

    @abstractmethod
    def url(self, prefix: str, port: int | None = None) -> str:
        """Give the URL of a storage, by way of another port if one is given."""

    @abstractmethod
    def fill(self, population: Population) -> None:
        """Store all of a population in an empty storage that is set up."""

    @abstractmethod
    def size(self, prefix: str) -> Size:
        """Give the size of a storage; Redis: of all that the server holds."""

    def log_position(self) -> int | None:
        """Give how many bytes of a log of changes were written so far, or None where there is none to be asked."""
        return None

    def busy(self) -> float | None:
        """Give the seconds of processor time that the server has used, or None where there is no server."""
        return None

    def close(self) -> None:
        """End what was started."""
        return  # nothing, where nothing runs


def _slices(records: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(records)
    while some := list(islice(rest, _SLICE)):
        yield some


def _tree_seconds(server: Server) -> float:
    """Give the processor time of a server's processes: those that ended are in their parent's."""
    assert server.pid is not None
    total = 0
    for pid in _tree(server.pid):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))  # user and system time, its own and that of children which ended
    return total / _TICK


class SQLiteStore(Store):
    """SQLite: a file for each storage."""

    name = "SQLite"
    where = "disk"
    filling = "the driver's own creation, 10,000 in a transaction that does not wait for the disk"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, prefix: str, port: int | None = None) -> str:
        assert port is None
        return f"sqlite:///{self._path(prefix)}?timeout=20"

    def _path(self, prefix: str) -> Path:
        return self._folder / f"{prefix}.db"

    def fill(self, population: Population) -> None:
        from coatcheck.drivers.sqlite.schema import SQLiteStatements  # noqa: PLC0415 (a short cut of this store alone)
        from coatcheck.drivers.sqlite.work import SQLiteWork  # noqa: PLC0415

        work = SQLiteWork(SQLiteStatements(""))
        connection = sqlite3.connect(self._path(population.prefix), isolation_level=None)
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-400000")
        for records in _slices(population.records()):
            connection.execute("BEGIN IMMEDIATE")
            for record in records:
                work.create(connection.execute, record, population.made)
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def size(self, prefix: str) -> Size:
        connection = sqlite3.connect(self._path(prefix), isolation_level=None)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return Size(self._path(prefix).stat().st_size, {})


class RedisStore(Store):
    """Redis: one server without persistence, and a prefix for each storage."""

    name = "Redis"
    where = "memory"
    filling = "the driver's own script, 1,000 commands sent before the first answer is read"
    collects = True

    def __init__(self, folder: Path) -> None:
        self.server: Final = RedisServer(folder / "redis").start()
        self.port = self.server.port
        self._empty = self._used()

    def url(self, prefix: str, port: int | None = None) -> str:
        return f"redis://{self.server.host}:{port or self.server.port}/0?prefix={prefix}"

    def fill(self, population: Population) -> None:
        import redis  # noqa: PLC0415 (each store needs its own library only)

        from coatcheck.drivers.redis.keys import Keys  # noqa: PLC0415 (a short cut of this store alone)
        from coatcheck.drivers.redis.scripts import Scripts  # noqa: PLC0415
        from coatcheck.drivers.redis.work import RedisOperations  # noqa: PLC0415

        keys = Keys(population.prefix, is_spread=False)
        work = RedisOperations(keys, Scripts(indexed=True))
        with redis.Redis(unix_socket_path=str(self.server.socket)) as client:
            connection = client.connection_pool.get_connection()
            first = True
            for records in _slices(population.records()):
                requests = [next(work.create(record, population.made)) for record in records]
                if first:
                    script = requests[0].script
                    connection.send_command("SCRIPT", "LOAD", script.text)
                    connection.read_response()
                    first = False
                for start in range(0, len(requests), 1000):
                    some = requests[start : start + 1000]
                    connection.send_packed_command([b"".join(request.packed for request in some)])
                    for _ in some:
                        assert connection.read_response() == 1
            client.connection_pool.release(connection)

    def _used(self) -> int:
        return int(self.server.info("memory")["used_memory"])

    def size(self, prefix: str) -> Size:
        del prefix
        memory = self.server.info("memory")
        return Size(self._used() - self._empty, {"resident": int(memory["used_memory_rss"])})

    def keys(self) -> int:
        """Give how many keys there are."""
        return int(self.server.command("DBSIZE"))

    def expire(self, population: Population, moment: float) -> int:
        """Let the keys of the sessions that expire end at *moment* on the server's clock; give how many they are."""
        import redis  # noqa: PLC0415

        base = f"{population.prefix}:".encode()
        told = 0
        with redis.Redis(unix_socket_path=str(self.server.socket)) as client:
            tell = client.register_script(
                "local n = 0; for _, k in ipairs(KEYS) do n = n + redis.call('PEXPIREAT', k, ARGV[1]) end; return n"
            )
            for numbers in _slices(number for number in range(population.size) if population.expires(number)):
                digests = [population.digest(number) for number in numbers]
                for start in range(0, len(digests), 500):
                    some = digests[start : start + 500]
                    keys = [key for one in some for key in (base + b"d:" + one, base + b"s:" + one[:16].hex().encode())]
                    told += tell(keys=keys, args=[round(moment * 1000)])
        return told

    def busy(self) -> float:
        return _tree_seconds(self.server)

    def close(self) -> None:
        self.server.stop()


class PostgreSQLStore(Store):
    """PostgreSQL: one database, and a prefix for each storage."""

    name = "PostgreSQL"
    where = "disk"
    filling = "COPY into the driver's tables, then VACUUM ANALYZE"

    def __init__(self, folder: Path) -> None:
        extra = ("shared_buffers=512MB", "max_wal_size=4GB", "full_page_writes=on", "checkpoint_timeout=30min")
        self.server: Final = PostgreSQLServer(folder / "postgresql", extra=extra).start()
        self.port = self.server.port

    def url(self, prefix: str, port: int | None = None) -> str:
        url = self.server.url
        if port is not None:
            url = url.replace(f":{self.server.port}", f":{port}")
        return f"{url}?prefix={prefix}"

    def fill(self, population: Population) -> None:
        import psycopg  # noqa: PLC0415 (each store needs its own library only)

        from coatcheck.drivers._rules import new_version  # noqa: PLC0415 (a short cut of this store alone)

        session, value = (f'"{population.prefix}coatcheck_{table}"' for table in ("session", "value"))
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            number = 0
            for records in _slices(population.records()):
                first = number
                with connection.cursor().copy(
                    f"COPY {session} (id, sid, digest, created, seen, deadline, idle, absolute, username, auth_time,"
                    " rotated, prior_until, grace) FROM STDIN"
                ) as copy:
                    for record in records:
                        number += 1
                        copy.write_row(
                            (
                                number, record.sid, record.digest, record.created, record.seen, record.deadline,
                                record.idle, record.absolute, record.user, record.auth_time, record.rotated, 0.0, 0.0,
                            )
                        )  # fmt: skip
                with connection.cursor().copy(
                    f"COPY {value} (session, app, name, version, data, number) FROM STDIN"
                ) as copy:
                    for ident, record in enumerate(records, first + 1):
                        version = new_version()
                        for (app, key), (data, _) in record.values.items():
                            pair = (data, None) if isinstance(data, bytes) else (None, data)
                            copy.write_row((ident, app, key, version, *pair))
            connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{session}', 'id'), (SELECT max(id) FROM {session}))"
            )
            for table in (session, value):
                connection.execute(f"VACUUM ANALYZE {table}")

    def size(self, prefix: str) -> Size:
        def total(function: str) -> int:
            return int(self.server.sql(f"SELECT sum({function}(oid)) FROM pg_class WHERE relkind = 'r' AND {mine}"))

        mine = f"relname LIKE '{prefix}coatcheck%'"
        return Size(total("pg_total_relation_size"), {"indexes": total("pg_indexes_size")})

    def log_position(self) -> int:
        return int(self.server.sql("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"))

    def busy(self) -> float:
        return _tree_seconds(self.server)

    def close(self) -> None:
        self.server.stop()


STORES: Final[dict[str, Callable[[Path], Store]]] = {
    "sqlite": SQLiteStore,
    "postgresql": PostgreSQLStore,
    "redis": RedisStore,
}


def set_up(store: Store, population: Population) -> None:
    """Make an empty storage for a population."""
    driver = open_driver(store.url(population.prefix))
    driver.setup()
    driver.close()
