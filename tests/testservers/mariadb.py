"""MariaDB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from testservers.base import Server, ServerError, find_program

__all__ = ["MariaDBServer"]

_PACKAGE: Final = "mariadb-server"


class MariaDBServer(Server):
    """MariaDB with a user, who has a password, and a database `coatcheck`.

    What it acknowledged outlives `kill` in any case; only a crash of the whole machine needs *durable*.

    Args:
        folder: Its files. What an earlier server left there is kept.
        port: Where it listens; a free port by itself.
        durable: Write to the disk at each commit.
        extra: More arguments of the program.
    """

    programs: ClassVar[dict[str, str]] = {"mariadbd": _PACKAGE, "mariadb-install-db": _PACKAGE, "mariadb": _PACKAGE}
    patience: ClassVar[float] = 60.0

    def __init__(
        self, folder: Path, *, port: int | None = None, durable: bool = False, extra: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, port=port)
        self.user: Final = "coatcheck"
        self.password: Final = "secret"
        self.database: Final = "coatcheck"
        self._durable: Final = durable
        self._extra: Final = tuple(extra)
        self._ready = False

    @property
    def url(self) -> str:
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        """Give the URL of a database."""
        return f"mariadb://{self.user}:{self.password}@{self.address}/{database}"

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return self.folder / "data"

    @property
    def temporary(self) -> Path:
        """The folder of its temporary tables: a server that starts removes those of all others that it finds there."""
        return self.folder / "tmp"

    @property
    def _socket(self) -> Path:
        return self.folder / "mariadb.sock"

    def prepare(self) -> None:
        self._ready = False
        self.temporary.mkdir(exist_ok=True)
        self._give(self.temporary)
        if not (self.data / "mysql").exists():
            options = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
            small = ("--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0")
            self.run_tool(
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={self.data}",
                f"--tmpdir={self.temporary}",
                *options,
                *small,
            )

    def command_line(self) -> list[str]:
        settings = [
            f"--datadir={self.data}",
            f"--tmpdir={self.temporary}",
            f"--socket={self._socket}",
            f"--pid-file={self.folder / 'pid'}",
            f"--port={self.port}",
            f"--bind-address={self.host}",
            "--skip-name-resolve",
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=32M",
            "--max-connections=200",
        ]
        if not self._durable:
            # 2: each commit reaches the operating system, so it outlives the process
            settings += ["--innodb-flush-log-at-trx-commit=2", "--skip-innodb-doublewrite"]
        return [find_program("mariadbd") or "mariadbd", "--no-defaults", *settings, *self._extra]

    def answers(self) -> bool:
        if not self._ready:
            self.create_database(self.database)
            self._ready = True
        tcp = ("--protocol=tcp", "-h", self.host, "-P", str(self.port))
        login = ("-u", self.user, f"-p{self.password}")
        return self.run_tool("mariadb", "--no-defaults", *tcp, *login, "-N", "-e", "SELECT 1").strip() == "1"

    def sql(self, statement: str, *, database: str = "mysql") -> str:
        """Run statements as root; give the rows, one a line, columns parted by tabs."""
        if not self._socket.exists():
            raise ServerError("it is not listening yet")
        return self.run_tool(
            "mariadb", "--no-defaults", f"--socket={self._socket}", "-u", "root", "-N", "-B", "-e", statement, database
        )

    def create_database(self, name: str) -> str:
        """Make a database that the user may do everything in; give its URL."""
        who = f"'{self.user}'@'{self.host}'"
        self.sql(
            f"CREATE USER IF NOT EXISTS {who} IDENTIFIED BY '{self.password}';"
            f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4;"
            f"GRANT ALL ON `{name}`.* TO {who}"
        )
        return self.url_of(name)
