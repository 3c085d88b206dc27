"""MariaDB, or MySQL in its place."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar, Final

from testservers.base import Server, ServerError, find_program

__all__ = ["MariaDBServer"]

_PACKAGE: Final = "mariadb-server"


@cache
def _is_mysql(program: str) -> bool:
    """Tell whether the program under the name of MariaDB's is MySQL's, as `make test-newest` has it."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return "MariaDB" not in done.stdout


class MariaDBServer(Server):
    """MariaDB with a user, who has a password, and a database `coatcheck`.

    What it acknowledged outlives `kill` in any case; only a crash of the whole machine needs *durable*. It is MySQL
    where the program `mariadbd` on the PATH is MySQL's.

    Args:
        folder: Its files. What an earlier server left there is kept.
        port: Where it listens; a free port by itself.
        durable: Write to the disk at each commit.
        extra: More arguments of the program.
    """

    programs: ClassVar[dict[str, str]] = {"mariadbd": _PACKAGE, "mariadb": _PACKAGE}

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
        scheme = "mysql" if self.is_mysql else "mariadb"
        return f"{scheme}://{self.user}:{self.password}@{self.address}/{database}"

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return self.folder / "data"

    @property
    def temporary(self) -> Path:
        """The folder of its temporary tables: a server that starts removes those of all others that it finds there."""
        return self.folder / "tmp"

    @property
    def is_mysql(self) -> bool:
        """Whether it is MySQL."""
        return _is_mysql(self._program)

    @property
    def _program(self) -> str:
        return find_program("mariadbd") or "mariadbd"

    @property
    def _socket(self) -> Path:
        return self.folder / "mariadb.sock"

    @property
    def _places(self) -> tuple[str, ...]:
        base = Path(self._program).resolve().parent.parent  # the messages, scripts and character sets are under it
        return (f"--basedir={base}", f"--datadir={self.data}", f"--tmpdir={self.temporary}")

    def prepare(self) -> None:
        self._ready = False
        self.temporary.mkdir(exist_ok=True)
        self._give(self.temporary)
        if (self.data / "mysql").exists():
            return
        if self.is_mysql:
            self.run_tool(self._program, "--no-defaults", "--initialize-insecure", *self._places, *self._sizes)
        else:
            options = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
            places = (*self._places, "--innodb-flush-log-at-trx-commit=0")
            self.run_tool("mariadb-install-db", "--no-defaults", *places, *options, *self._sizes)

    @property
    def _sizes(self) -> tuple[str, ...]:
        return ("--innodb-redo-log-capacity=32M",) if self.is_mysql else ("--innodb-log-file-size=16M",)

    def command_line(self) -> list[str]:
        settings = [
            *self._places,
            *self._sizes,
            f"--socket={self._socket}",
            f"--pid-file={self.folder / 'pid'}",
            f"--port={self.port}",
            f"--bind-address={self.host}",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=32M",
            "--max-connections=200",
        ]
        # MySQL cannot do without TLS; newer ones of either make themselves a certificate
        of_kind = ("--mysqlx=OFF", "--secure-file-priv=NULL", "--sync-binlog=0") if self.is_mysql else ("--skip-ssl",)
        settings += of_kind
        if not self._durable:
            # 2: each commit reaches the operating system, so it outlives the process
            settings += ["--innodb-flush-log-at-trx-commit=2", "--skip-innodb-doublewrite"]
        return [self._program, "--no-defaults", *settings, *self._extra]

    def answers(self) -> bool:
        if not self._ready:
            self.create_database(self.database)
            self._ready = True
        tcp = ("--protocol=tcp", "-h", self.host, "-P", str(self.port))
        login = ("-u", self.user, f"-p{self.password}")
        return self._client(*tcp, *login, "-N", "-e", "SELECT 1").strip() == "1"

    def sql(self, statement: str, *, database: str = "mysql") -> str:
        """Run statements as root; give the rows, one a line, columns parted by tabs."""
        if not self._socket.exists():
            raise ServerError("it is not listening yet")
        return self._client(f"--socket={self._socket}", "-u", "root", "-N", "-B", "-e", statement, database)

    def _client(self, *arguments: str) -> str:
        plain = () if self.is_mysql else ("--skip-ssl",)  # newer clients of MariaDB ask for TLS by themselves
        return self.run_tool("mariadb", "--no-defaults", *plain, *arguments)

    def status(self, name: str) -> int:
        """Give a number that the server counts."""
        return int(self.sql(f"SHOW GLOBAL STATUS LIKE '{name}'").split()[1])

    def lock_waits(self) -> int:
        """Give how many transactions wait for a row at this moment.

        Not from `innodb_trx`, which shows the same for as long as somebody looks more often than ten times a second.
        """
        return self.status("Innodb_row_lock_current_waits")

    def deadlocks(self) -> int:
        """Give how many deadlocks there were."""
        if not self.is_mysql:
            return self.status("Innodb_deadlocks")
        return int(self.sql("SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'"))

    def create_user(self, who: str, password: str, database: str) -> None:
        """Make a user, or make one anew, who may do everything in a database."""
        made = f"CREATE USER {who} IDENTIFIED BY '{password}'; GRANT ALL ON {database}.* TO {who}"
        self.sql(f"DROP USER IF EXISTS {who}; {made}")

    def create_database(self, name: str) -> str:
        """Make a database that the user may do everything in; give its URL."""
        who = f"'{self.user}'@'{self.host}'"
        self.sql(
            f"CREATE USER IF NOT EXISTS {who} IDENTIFIED BY '{self.password}';"
            f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4;"
            f"GRANT ALL ON `{name}`.* TO {who}"
        )
        return self.url_of(name)
