"""What the drivers on SQL servers ask of a client library, and its connections as those of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, Protocol, TypeVar

from coatcheck.drivers._pool import Link
from coatcheck.drivers.sql.statement import Reply, Statement

__all__ = ["AsyncClient", "Client", "SQLLink"]

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)


class _Manners(Protocol[C_contra]):
    """What is asked about a connection, without I/O."""

    def is_clean(self, connection: C_contra, /) -> bool:
        """Return whether it is open, in no transaction, and not in the middle of anything."""

    def is_alive(self, connection: C_contra, /) -> bool:
        """See `Link.is_quiet`."""

    def close(self, connection: C_contra, /) -> None:
        """See `Link.close`."""

    def patience(self, connection: C_contra, /, *, is_inside: bool) -> float:
        """Return the seconds after which the server gives up waiting for a lock: until then silence may mean that.

        Args:
            connection: A connection, in whatever state.
            is_inside: True inside a transaction, False for a statement that stands alone.
        """


class Client(_Manners[C], Protocol[C]):
    """A synchronous client library."""

    def connect(self, deadline: float, /) -> C:
        """Open a connection in autocommit mode, until the moment *deadline* of the monotonic clock."""

    def run(self, connection: C, statements: Sequence[Statement], deadline: float, /) -> list[Reply]:
        """Have statements done one after the other, in as few round trips as can be; see `Together`.

        The server is told to give up waiting for a lock before *deadline*. After an error the connection is clean, or
        not clean by `is_clean`.
        """


class AsyncClient(_Manners[C], Protocol[C]):
    """An asynchronous client library. Its caller bounds the time; cancelling leaves a connection that is not clean."""

    async def connect(self, deadline: float, /) -> C:
        """Open a connection in autocommit mode."""

    async def run(self, connection: C, statements: Sequence[Statement], deadline: float, /) -> list[Reply]:
        """Have statements done; see `Client.run`."""


class SQLLink(Link, Generic[C]):
    """A connection to a SQL server.

    Attributes:
        connection: The client library's connection.
    """

    __slots__ = ("_client", "connection")

    def __init__(self, client: _Manners[C], connection: C) -> None:
        super().__init__()
        self._client: Final = client
        self.connection: Final = connection

    def is_clean(self) -> bool:
        """See `Link.is_clean`."""
        return self._client.is_clean(self.connection)

    def is_quiet(self) -> bool:
        """See `Link.is_quiet`."""
        return self._client.is_alive(self.connection)

    def close(self) -> None:
        """See `Link.close`."""
        self._client.close(self.connection)
