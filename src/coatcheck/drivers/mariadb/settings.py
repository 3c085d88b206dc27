"""Where the server is and how to reach it."""

from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from coatcheck.drivers._urls import choice, parsed, seconds, text, whole
from coatcheck.errors import ConfigurationError

__all__ = ["MariaDBSettings"]

FORM: Final = "mariadb://user:password@host:3306/database, or mariadb://user:password@/database?socket=/path"

_TLS: Final = ("off", "unverified", "verified")
_PORT: Final = 3306
_TIMEOUT: Final = 5.0
_MAX_CONNECTIONS: Final = 10
_OPTIONS: Final = {
    "ca": text(),
    "max_connections": whole(_MAX_CONNECTIONS, least=1),
    "prefix": text(),
    "socket": text(),
    "timeout": seconds(_TIMEOUT),
    "tls": choice(*_TLS),
}

# FOUND_ROWS: an UPDATE counts the rows that it found. Without it one that changes nothing looks as if the row was gone.
_FOUND_ROWS: Final = 2
_MULTI_STATEMENTS: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MariaDBSettings:
    """Where the server is and how to reach it.

    Attributes:
        user: The user.
        password: The password. Shown nowhere.
        database: The database with the session tables.
        host: The server's name or address; unused with *socket*.
        port: Its port.
        socket: The path of its Unix socket, or "".
        prefix: What the names of the tables start with: ASCII letters, digits and underscores.
        timeout: Seconds that an operation may take in all.
        max_connections: How many connections a process uses at the same time, at most; with asyncio an event loop.
        tls: "off", "unverified" (encrypted, and any server is accepted) or "verified".
        ca: The file with the certificates that "verified" trusts; "" for those of the system.

    Raises:
        ConfigurationError: One of them is missing, or does not fit the others.
    """

    user: str
    password: str = field(default="", repr=False)
    database: str
    host: str = "localhost"
    port: int = _PORT
    socket: str = ""
    prefix: str = ""
    timeout: float = _TIMEOUT
    max_connections: int = _MAX_CONNECTIONS
    tls: str = "off"
    ca: str = ""

    def __post_init__(self) -> None:
        if not self.database or not self.user:
            raise ConfigurationError(f"the MariaDB driver needs a user and a database: its URL is {FORM}")
        if self.tls not in _TLS:
            raise ConfigurationError(f"tls must be one of {', '.join(_TLS)}, not {self.tls!r}")
        if self.ca and self.tls != "verified":
            raise ConfigurationError("ca= has a meaning with tls=verified only")
        if self.socket and self.tls != "off":
            raise ConfigurationError("tls= and socket= exclude each other: a Unix socket needs no encryption")

    @classmethod
    def from_url(cls, url: str) -> MariaDBSettings:
        """Take a URL apart.

        Raises:
            ConfigurationError: It has another form, or an option that is unknown or out of range.
        """
        place = parsed(url, "MariaDB", FORM, _OPTIONS)
        if len(place.hosts) > 1 or (place.options["socket"] and place.hosts) or "/" in place.path:
            raise ConfigurationError(f"a URL for MariaDB names one server and one database: it is {FORM}")
        host, port = place.hosts[0] if place.hosts else ("localhost", None)
        return cls(
            user=place.username or "",
            password=place.password or "",
            database=place.path,
            host=host,
            port=port or _PORT,
            **place.options,
        )

    @property
    def place(self) -> str:
        """What names the server and the database, without a password."""
        return f"{self.socket or f'{self.host}:{self.port}'}/{self.database}"

    def context(self) -> ssl.SSLContext | None:
        """Return what TLS needs, or None without it.

        Raises:
            ConfigurationError: The file with the certificates cannot be read.
        """
        if self.tls == "off":
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise ConfigurationError(f"ca={self.ca!r} cannot be read as certificates: {error}") from error
        if self.tls == "unverified":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @property
    def common(self) -> Mapping[str, Any]:
        """What PyMySQL and aiomysql are both told."""
        where = {"unix_socket": self.socket} if self.socket else {"host": self.host, "port": self.port}
        return {
            **where,
            "user": self.user,
            "charset": "utf8mb4",
            "autocommit": None,  # which the server is told by statement, and not asked to believe
            "client_flag": _FOUND_ROWS | _MULTI_STATEMENTS,
            "program_name": "coatcheck",
        }

    @property
    def patience(self) -> int:
        """The seconds for which the server may wait for a lock: MySQL looks at its clock once a second."""
        return max(1, math.ceil(self.timeout) - 2)
