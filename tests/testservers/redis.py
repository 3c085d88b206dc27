"""One Redis server."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

from testservers.base import PATIENCE, Server, ServerError, find_program

__all__ = ["PROGRAMS", "RedisServer", "fields"]

PROGRAMS: Final = {"redis-server": "redis-server"}


class RedisServer(Server):
    """One Redis server. It keeps nothing over a restart, unless *appendonly*.

    Args:
        folder: Its files.
        port: Where it listens; a free port by itself.
        tls: Listen with TLS only; `certificate` is the authority that its clients have to trust.
        appendonly: Keep a file of all writes, so that what it acknowledged outlives `kill`.
        extra: More arguments of the program, such as ``("--maxmemory", "10mb")``.

    Attributes:
        socket: The Unix socket on which it listens too.
        certificate: The certificate of the authority that signed the server's.
    """

    programs: ClassVar[dict[str, str]] = PROGRAMS

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        tls: bool = False,
        appendonly: bool = False,
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, port=port)
        self.socket: Final = folder / "redis.sock"
        self.certificate: Final = folder / "ca.pem"
        self._tls: Final = tls
        self._appendonly: Final = appendonly
        self._extra: Final = tuple(extra)

    @property
    def url(self) -> str:
        return f"{'rediss' if self._tls else 'redis'}://{self.address}/0"

    @property
    def unix_url(self) -> str:
        """The URL over the Unix socket, without options."""
        return f"redis+unix://{self.socket}"

    def prepare(self) -> None:
        if self._tls and not self.certificate.exists():
            self._make_certificates()

    def command_line(self) -> list[str]:
        port = ["--port", str(self.port)]
        if self._tls:
            port = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            files = {"cert": self.folder / "server.pem", "key": self.folder / "server.key", "ca-cert": self.certificate}
            port += [part for name, path in files.items() for part in (f"--tls-{name}-file", str(path))]
        return [
            find_program("redis-server") or "redis-server",
            *port,
            *("--bind", self.host, "--dir", str(self.folder), "--save", "", "--protected-mode", "no"),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "777"),
            *("--appendonly", "yes" if self._appendonly else "no"),
            *self._extra,
        ]

    def answers(self) -> bool:
        with socket.create_connection((self.host, self.port), 2):
            pass
        return bool(self.command("PING") == b"PONG")

    def command(self, *words: str | bytes | int) -> Any:
        """Ask it over the Unix socket: text and bulk replies are bytes.

        Raises:
            ServerError: It answered with an error.
        """
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.socket))
            connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
            with connection.makefile("rb") as stream:
                return _reply(stream)

    def info(self, section: str) -> dict[str, str]:
        """Give a section of INFO."""
        return fields(self.command("INFO", section))

    def _make_certificates(self) -> None:
        """Make an authority and a certificate for loopback signed by it, strict enough for Python 3.13."""
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        self.run_tool(
            *("openssl", "req", "-x509", *key, "-keyout", "ca.key", "-out", "new.pem", "-days", "30"),
            *("-subj", "/CN=Coatcheck tests", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        self.run_tool("openssl", "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
        extensions = self.write(
            "extensions",
            "basicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n"
            "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n",
        )
        self.run_tool(
            *("openssl", "x509", "-req", "-in", "server.csr", "-CA", "new.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "30", "-out", "server.pem", "-extfile", str(extensions)),
        )
        (self.folder / "new.pem").rename(self.certificate)


def fields(text: bytes) -> dict[str, str]:
    """Return the fields of a reply of lines such as ``name:value``."""
    lines = (line.partition(":") for line in text.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


def _reply(stream: BinaryIO) -> Any:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ServerError("the connection ended in the middle of a reply")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise ServerError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return None if rest == b"-1" else [_reply(stream) for _ in range(int(rest))]
    return rest
