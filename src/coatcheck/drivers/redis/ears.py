"""What sentinels tell unasked: connections that listen to them, and cost an operation one look at their sockets.

An old primary may answer for seconds after another has taken its place, and what it acknowledges then is lost. The
sentinels tell of each step of a failover as they take it. No thread listens: before each operation, the driver
looks whether anything has arrived. Nothing here waits, so that it is the same for both drivers.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from hiredis import HiredisError, Reader

from coatcheck.drivers import _lifetimes
from coatcheck.drivers.redis.requests import ABORTED, LEAVING, PROMOTED, SUBSCRIBED, SWITCHED, Address, Message, command

__all__ = ["Ears", "Peer"]

_SUBSCRIBE: Final = command(b"SUBSCRIBE", LEAVING, PROMOTED, SWITCHED, ABORTED)
_CHUNK: Final = 1 << 16
_AGAIN: Final = 1.0
"""Seconds until a connection that was lost is opened anew."""


class Peer(NamedTuple):
    """Where a sentinel is, as `socket.getaddrinfo` says it: the arguments of a socket, and what it connects to."""

    family: int
    kind: int
    protocol: int
    name: str
    place: Any


class _Ear:
    """A connection to one sentinel, from its opening to its end."""

    def __init__(self, host: str, peer: Peer, context: ssl.SSLContext | None) -> None:
        self.host: Final = host
        self.peer: Final = peer
        self._context: Final = context
        self._reader: Final = Reader()
        self._is_open = self._is_safe = self._has_asked = False
        self.socket = socket.socket(peer.family, peer.kind, peer.protocol)
        self.descriptor: Final = self.socket.fileno()  # TLS around it has the same one
        try:
            self.socket.settimeout(0)
            _lifetimes.keep_alive(self.socket)
            with suppress(BlockingIOError):
                self.socket.connect(peer.place)
        except BaseException:
            self.socket.close()
            raise

    @property
    def awaits(self) -> int:
        """What has to happen on the socket before there is anything to do."""
        return select.POLLIN if self._is_safe else select.POLLIN | select.POLLOUT

    def heard(self) -> list[Message]:
        """Go on as far as that is possible at once; return what was told.

        Raises:
            OSError: It is over.
        """
        try:
            self._open()
            if not self._has_asked:
                self.socket.send(_SUBSCRIBE)
                self._has_asked = True
            while True:
                data = self.socket.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError
                self._reader.feed(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return self._told()

    def _open(self) -> None:
        if not self._is_open:
            problem = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                raise OSError(problem, "a sentinel cannot be reached")
            if self._context is not None:
                wrapped = self._context.wrap_socket(
                    self.socket, server_hostname=self.host, do_handshake_on_connect=False
                )
                self.socket = wrapped
            self._is_open = True
        if not self._is_safe:
            if isinstance(self.socket, ssl.SSLSocket):
                self.socket.do_handshake()
            self._is_safe = True

    def _told(self) -> list[Message]:
        told: list[Message] = []
        while (reply := self._reader.gets()) is not False:
            match reply:
                case [b"message", bytes(kind), bytes(text)]:
                    told.append(Message(kind, text))
                case [b"subscribe", _, 1]:  # the first of the channels, and all come together
                    told.append(Message(SUBSCRIBED, b""))
        return told


class Ears:
    """The connections that listen to sentinels, of one process or event loop.

    Args:
        is_encrypted: Whether the sentinels speak TLS.
        ca: The file of the authority that signed their certificates; None for those that the system trusts.
    """

    def __init__(self, *, is_encrypted: bool, ca: str | None) -> None:
        self._is_encrypted: Final = is_encrypted
        self._ca: Final = ca
        self._context: ssl.SSLContext | None = None
        self._lock: Final = threading.Lock()
        self._ears: dict[Address, _Ear] = {}
        self._lost: dict[Address, tuple[float, _Ear]] = {}
        self._poller = select.poll()

    def listens_to(self, address: Address) -> bool:
        """Return whether a sentinel is listened to, or will be before long."""
        return address in self._ears

    def listen(self, address: Address, peers: Sequence[Any]) -> None:
        """Begin to listen to a sentinel, whose peers are as `socket.getaddrinfo` gives them."""
        with self._lock, suppress(OSError):
            if self._is_encrypted and self._context is None:
                self._context = ssl.create_default_context(cafile=self._ca)
            if address not in self._ears and peers:
                self._add(address, _Ear(address.host, Peer(*peers[0]), self._context))

    def heard(self) -> Sequence[Message]:
        """Return what was told since the last time."""
        with self._lock:
            if self._lost:
                self._open_anew()
            ready = self._poller.poll(0)
            if not ready:
                return ()
            told: list[Message] = []
            descriptors = {descriptor for descriptor, _ in ready}
            for address, ear in list(self._ears.items()):
                if ear.descriptor not in descriptors:
                    continue
                try:
                    told += ear.heard()
                except (OSError, ValueError, HiredisError):
                    self._lose(address)
                else:
                    self._poller.register(ear.descriptor, ear.awaits)
            return told

    def _add(self, address: Address, ear: _Ear) -> None:
        self._ears[address] = ear
        self._lost.pop(address, None)
        self._poller.register(ear.descriptor, ear.awaits)

    def _lose(self, address: Address) -> None:
        ear = self._ears.pop(address)
        self._poller.unregister(ear.descriptor)
        ear.socket.close()
        self._lost[address] = time.monotonic() + _AGAIN, ear

    def _open_anew(self) -> None:
        now = time.monotonic()
        for address, (when, ear) in list(self._lost.items()):
            if now >= when:
                self._lost[address] = now + _AGAIN, ear
                with suppress(OSError):
                    self._add(address, _Ear(ear.host, ear.peer, self._context))

    def close(self) -> None:
        """Close all connections. Listening again opens new ones."""
        with self._lock:
            for ear in self._ears.values():
                self._poller.unregister(ear.descriptor)
                ear.socket.close()
            self._ears.clear()
            self._lost.clear()

    def __del__(self) -> None:
        for ear in self._ears.values():  # of a loop that ended without saying so, or of a parent process
            ear.socket.close()
