"""A database connection for each request: ``environ['web.database.connection']`` and ``['web.database.cursor']``."""

# ruff: noqa: N803 -- the names are camelCase, as all names of the 2005 reference

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

from web.database import Adapter, Connection, ParameterError
from web.database._adapters import adapter_for
from web.wsgi.base import BaseMiddleware, ClosingBody

__all__ = ["Database"]


class Database(BaseMiddleware):
    """Middleware that lends each request a connection out of a pool, and a cursor of it.

    The request has the connection until its response has ended, so the application may read from it while its body is
    sent. What the application did not commit is rolled back then, and the connection and its cursors can be used no
    more; a hook on the connection is dropped before that. The database is not opened before the first request.

    Args:
        application: The WSGI application.
        adapter: The adapter, see `web.database.connect`; this one and all that follow.
        database: The file or the name of the database. The path of a file is relative to the folder that is current
            now, not at the request.
        user: The user of a server's database.
        password: The password of that user.
        host: The server's host name or address.
        port: The server's port.
        socket: The server's Unix socket, instead of host and port.
        autoCreate: Whether to create the file if it is missing.
        poolSize: The most connections that are kept open while no request uses them. More are opened if more
            requests are answered at the same time, and closed after them. Each process has a pool of its own, also
            after a fork.
        type: An older spelling of *adapter*.
        **params: Passed to the adapter's own ``connect``.

    Raises:
        UnknownAdapter: There is no adapter of that name.
        MissingPackage: The adapter needs a package that is not installed.
        ParameterError: A parameter does not fit the adapter, the database cannot be shared by connections, or *adapter*
            is missing.
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- the signature is the contract's
        self,
        application: WSGIApplication,
        adapter: str | None = None,
        database: str = "",
        user: str = "",
        password: str = "",
        host: str = "",
        port: int | None = None,
        socket: str = "",
        autoCreate: object = False,  # noqa: FBT002 -- as above
        *,
        poolSize: int = 5,
        type: str | None = None,  # noqa: A002 -- the parameter's name in the 2005 reference
        **params: Any,
    ) -> None:
        super().__init__(application)
        if adapter and type and adapter != type:
            raise ParameterError(
                f"Database(adapter={adapter!r}, type={type!r}): both mean the same, so pass only one of them"
            )
        adapter = adapter or type
        if not adapter:
            raise ParameterError("Database() names no adapter: add for example adapter='sqlite'")
        if poolSize < 0:
            raise ParameterError(f"Database(poolSize={poolSize!r}): pass a number of connections, 0 or more")
        chosen = adapter_for(
            adapter,
            database,
            user=user,
            password=password,
            host=host,
            port=port,
            socket=socket,
            create=bool(autoCreate),
            params=params,
        )
        if not chosen.shareable:
            raise ParameterError(
                f"Database(database={database!r}): each connection has a database in memory of its own, so no request "
                "would see what another wrote: name a file"
            )
        self._pool = _RequestPool(chosen, poolSize)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Pass one request on, with a connection.

        Raises:
            ConnectionFailed: The database cannot be opened; the message names it and the remedy.
        """
        connection = self._pool.acquire()
        try:
            environ["web.database.connection"] = connection
            environ["web.database.cursor"] = connection.cursor()
            body = super().__call__(environ, start_response)
        except BaseException:
            self._pool.release(connection)
            raise
        return ClosingBody(body, lambda: self._pool.release(connection))

    def close(self) -> None:
        """Close the connections that no request uses. Later requests open new ones."""
        self._pool.close()


class _IdleConnections:
    """The connections of one process that no request uses, with the moment each came back."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.connections: list[tuple[Any, float]] = []

    def close(self) -> None:
        # A connection that came through a fork belongs to the parent: closing it here would end it there.
        if self.pid == os.getpid():
            with self.lock:
                connections, self.connections = self.connections, []
            for base, _ in connections:
                _discard(base)


# What a fork inherited: kept, because to forget a connection is to close it.
_left_by_parent: list[_IdleConnections] = []


class _RequestPool:
    def __init__(self, adapter: Adapter, size: int) -> None:
        self._adapter = adapter
        self._size = size
        self._idle = _IdleConnections()
        self._finalizer = weakref.finalize(self, self._idle.close)

    def acquire(self) -> Connection:
        idle = self._own()
        while True:
            with idle.lock:
                # The one that came back last: the others grow old, and a server may end them.
                found = idle.connections.pop() if idle.connections else None
            if found is None:
                return Connection(self._adapter.connect(), self._adapter)
            base, since = found
            if self._usable(base, time.monotonic() - since):
                return Connection(base, self._adapter)
            _discard(base)

    def release(self, connection: Connection) -> None:
        """Take a connection back, undo what was not committed, and keep it if it still works."""
        if connection.closed:
            return  # the application closed it
        base = connection.detach()
        try:
            base.rollback()
            self._adapter.reset(base)
        except Exception:  # noqa: BLE001 -- a connection that cannot do that is broken, whatever it reports
            _discard(base)
            return
        idle = self._own()
        with idle.lock:
            keep = len(idle.connections) < self._size
            if keep:
                idle.connections.append((base, time.monotonic()))
        if not keep:
            _discard(base)

    def close(self) -> None:
        self._own().close()

    def _usable(self, base: Any, idle: float) -> bool:
        try:
            return self._adapter.usable(base, idle)
        except Exception:  # noqa: BLE001 -- as above
            return False

    def _own(self) -> _IdleConnections:
        """Return this process's idle connections; after a fork, begin with none."""
        idle = self._idle
        if idle.pid != os.getpid():
            # Two threads may both get here: one list is lost then, and nothing is in it yet.
            _left_by_parent.append(idle)
            self._finalizer.detach()
            idle = self._idle = _IdleConnections()
            self._finalizer = weakref.finalize(self, idle.close)
        return idle


def _discard(base: Any) -> None:
    with contextlib.suppress(Exception):
        base.close()
