"""PostgreSQL, and PgBouncer in front of it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from testservers.base import Server, find_program

__all__ = ["PgBouncer", "PostgreSQLServer"]

_USER: Final = "coatcheck"
_PASSWORD: Final = "secret"
_PACKAGE: Final = "postgresql"


class PostgreSQLServer(Server):
    """PostgreSQL that lets everybody in over loopback, with a user and a database `coatcheck`.

    What it acknowledged outlives `kill` in any case; only a crash of the whole machine needs *durable*.

    Args:
        folder: Its files. What an earlier server left there is kept.
        port: Where it listens; a free port by itself.
        durable: Write to the disk at each commit.
        extra: More settings, as ``name=value``.
    """

    programs: ClassVar[dict[str, str]] = {"initdb": _PACKAGE, "postgres": _PACKAGE, "psql": _PACKAGE}
    end_signal = signal.SIGINT  # does not wait until the clients have gone

    def __init__(
        self, folder: Path, *, port: int | None = None, durable: bool = False, extra: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, port=port)
        self.user: Final = _USER
        self.password: Final = _PASSWORD
        self.database: Final = "coatcheck"
        self._durable: Final = durable
        self._extra: Final = tuple(extra)

    @property
    def url(self) -> str:
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        """Give the URL of a database."""
        return f"postgresql://{self.user}:{self.password}@{self.address}/{database}"

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return self.folder / "data"

    def prepare(self) -> None:
        if not (self.data / "PG_VERSION").exists():
            options = ("-A", "trust", "-U", self.user, "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions")
            self.run_tool("initdb", "-D", str(self.data), *options)

    def command_line(self) -> list[str]:
        settings = [
            f"listen_addresses={self.host}",
            f"unix_socket_directories={self.folder}",
            "dynamic_shared_memory_type=mmap",  # in the folder, so nothing is left in /dev/shm by a kill
            "shared_buffers=32MB",
            "max_connections=200",
            "logging_collector=off",
        ]
        if not self._durable:
            settings += ["fsync=off", "full_page_writes=off", "max_wal_size=512MB"]
        program = find_program("postgres") or "postgres"
        given = [part for setting in (*settings, *self._extra) for part in ("-c", setting)]
        return [program, "-D", str(self.data), "-p", str(self.port), *given]

    def answers(self) -> bool:
        self.sql("SELECT 1", database="postgres")
        if self.database not in self.sql("SELECT datname FROM pg_database", database="postgres").split():
            self.create_database(self.database)
        return True

    def sql(self, statement: str, *, database: str = "coatcheck") -> str:
        """Run a statement as the superuser; give the rows, one a line, columns parted by `|`."""
        where = ("-h", str(self.folder), "-p", str(self.port), "-U", self.user, "-d", database)
        return self.run_tool("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", *where, "-c", statement)

    def create_database(self, name: str) -> str:
        """Make a database; give its URL."""
        self.sql(f'CREATE DATABASE "{name}"', database="postgres")
        return self.url_of(name)


class PgBouncer(Server):
    """PgBouncer in transaction mode, in front of a PostgreSQL server that must be running.

    Args:
        folder: Its files.
        server: What is behind it: each of its databases is to be had here too.
        port: Where it listens; a free port by itself.
        extra: More settings, as ``name = value``.
    """

    programs: ClassVar[dict[str, str]] = {**PostgreSQLServer.programs, "pgbouncer": "pgbouncer"}
    end_signal = signal.SIGTERM

    def __init__(
        self, folder: Path, server: PostgreSQLServer, *, port: int | None = None, extra: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, port=port)
        self.server: Final = server
        self._extra: Final = tuple(extra)

    @property
    def url(self) -> str:
        return self.url_of(self.server.database)

    def url_of(self, database: str) -> str:
        """Give the URL of a database."""
        return f"postgresql://{self.server.user}:{self.server.password}@{self.address}/{database}"

    def prepare(self) -> None:
        users = self.write("users.txt", f'"{self.server.user}" "{self.server.password}"\n')
        settings = [
            f"listen_addr = {self.host}",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = trust",
            f"auth_file = {users}",
            f"admin_users = {self.server.user}",
            "pool_mode = transaction",
            "default_pool_size = 20",
            "max_client_conn = 200",
            "server_login_retry = 1",
            *self._extra,
        ]
        databases = f"[databases]\n* = host={self.server.host} port={self.server.port}\n"
        self.write("pgbouncer.ini", databases + "\n".join(["[pgbouncer]", *settings, ""]))

    def command_line(self) -> list[str]:
        return [find_program("pgbouncer") or "pgbouncer", str(self.folder / "pgbouncer.ini")]

    def answers(self) -> bool:
        with socket.create_connection((self.host, self.port), 2):
            pass
        where = ("-h", self.host, "-p", str(self.port), "-U", self.server.user, "-d", self.server.database)
        return self.run_tool("psql", "-X", "-A", "-t", *where, "-c", "SELECT 1").strip() == "1"
