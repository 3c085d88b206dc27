"""The contract of a driver. Every numbered rule is a test of the conformance kit, `coatcheck.testing`.

 1. `load` answers with a `Record`, or with `Missing` and a reason: unknown, expired, rotated, revoked, unreadable.
    Every reason means "no session". An error means that the engine failed, and never "no session". With rotated comes
    the `heir`: what the digest opened before, if that is alive. With rotated and revoked comes `ended`, the moment at
    which the digest stopped working, as it was passed; a later `revoke` of a dead digest moves it.
 2. `create` never overwrites: `Conflict()` on a digest or sid that exists, `Gone` on a digest with a tombstone.
 3. `commit` is atomic, touches only what the `Delta` names and answers `Committed`, `Conflict` or `Gone`. Requests that
    change different keys all keep their changes: between threads, tasks and processes, and, where the engine's scope is
    `SHARED`, between machines.
 4. No write brings back a session that was destroyed, revoked, rotated away or expired, and the caller is told: `Gone`.
 5. Every stored value has a positive version that no later write of that key, in that session, ever repeats, not even
    after a drop. A put or drop whose base version no longer holds is refused with `Conflict` naming it, and nothing of
    the Delta is written. Increments are atomic; `NotACounter` and `CounterOverflow` are raised and nothing is written.
 6. `rotate` keeps sid, values and user, in time that does not grow with the values. With `grace` 0 every older digest
    is dead at once, the one it was asked for included. With a grace, the old digest works until the first commit under
    the new one, and for `grace` seconds after it; a second rotation of an old digest is then `Conflict()`, unless its
    successor was issued at least `grace` ago and never used: then the new digest replaces it. While an old digest
    works, a rotation of the new one with a grace is `Conflict()` too: the old one would lose its grace. The record of
    an old digest is `stale`, its `digest` is the one asked for, and its `rotated` is when the successor was issued.
 7. `revoke` ends the session of a digest: current, in grace, or rotated away within `TOMBSTONE`, so that a logout that
    races a rotation still ends the session. `revoke_user` ends all sessions of a user but the one with the sid
    `keep`; a log-in with an `auth_time` up to the moment of the revocation, arriving within `USER_FENCE`,
    is answered `Gone(REVOKED)`, in `create`, `commit` and `rotate` (the session `keep` included: it need not log in).
    Moments are the callers': log-ins and revocations of several hosts are in order as far as their clocks agree.
    A revocation that lies over `CLOCK_SKEW` ahead of `now` was dated by a wrong clock: it refuses nobody, and the next
    one takes its place.
    `end` ends the sessions with some sids as `revoke` does; given a user, only those that are this user's now. It
    refuses no log-in. `sessions_of` lists the live sessions of a user, `missing` which of some sids are not alive. The
    index by user is written with the session, or ahead of it and healed when it is read; never by events that can be
    lost. An engine without `USER_INDEX` raises `UnsupportedCapability` for `revoke_user` and `sessions_of`.
 8. Expiry is judged by `Record.expires <= now`, from the stored limits and the `now` that is passed; never by the
    engine's clock. An expired record is `Missing(EXPIRED)` (`UNKNOWN` once swept), whether or not anybody swept.
 9. `sweep` removes at most `limit` expired sessions and what else is past its time, and never blocks readers. Where
    the engine has `COLLECTS_GARBAGE`, it does so by itself some time after they ended, and `sweep` answers 0.
10. Values are bytes or counters, a note is bytes. No driver parses, pickles or logs them. The note stays with the
    session through every change and rotation that does not name it, and `sessions_of` lists it without reading values.
11. Every call has a bounded timeout. Failure is `DriverUnavailable` with its cause chained; `outcome_unknown=True`
    where a write may have left the process. Such a write is never sent again; a read may be retried once.
12. `open` does no I/O. Connections belong to one process: after a fork the child opens its own. Those of an
    `AsyncDriver` belong to one event loop of one process too: another loop opens its own. Cancelling a task leaves no
    connection behind that is in the middle of something, and nothing that was acknowledged is undone.

A destroyed, revoked or rotated digest leaves a tombstone for `TOMBSTONE` seconds, during which `load` says why.

Where `rotation_bits` is not 0, a session's sid and all its digests begin with the same so many bits: the engine finds
them on the same machine by these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from enum import StrEnum
from typing import ClassVar, Self

from coatcheck.errors import UnsupportedCapability
from coatcheck.record import Answer, Delta, Missing, Record, SessionInfo

__all__ = ["AsyncDriver", "Capability", "Driver"]


class Capability(StrEnum):
    """What an engine can give. The list is closed: a driver declares some of these and nothing else."""

    SCOPE_PROCESS = "scope: one process"
    SCOPE_HOST = "scope: the processes of one host"
    SCOPE_SHARED = "scope: many hosts"
    DURABLE = "acknowledged writes survive a crash of the process"
    SURVIVES_SERVER_CRASH = "acknowledged writes survive a crash of the server"
    SURVIVES_FAILOVER = "acknowledged writes and revocations survive a failover"
    COUNTERS = "atomic counters"
    USER_INDEX = "sessions by user"
    ATOMIC_REVOKE = "revoking a user is one atomic step"
    SIZE_FOLLOWS_CHANGE = "a commit's size follows the change"
    BORROWED_CONNECTION = "joins the application's transaction"
    COLLECTS_GARBAGE = "the engine removes what expired by itself"


class Driver(ABC):
    """A storage engine, seen from a synchronous program. Safe to share between threads.

    ``with driver:`` closes it at the end.

    Attributes:
        name: The short name, as in the scheme of a URL.
        capabilities: What the engine gives.
        rotation_bits: How many leading bits of a digest a rotation has to keep.
        at_risk: Why the server may lose sessions that it acknowledged, as it is set up; found out when it is first
            reached, and None where nothing is known against it.
    """

    name: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    rotation_bits: ClassVar[int] = 0
    at_risk: str | None = None

    @abstractmethod
    def load(self, digest: bytes, now: float) -> Record | Missing:
        """Return the live session under *digest*, with its values as of one moment."""

    @abstractmethod
    def create(self, record: Record, now: float) -> Answer:
        """Store a new session. The versions in `record.values` are ignored; the answer tells the version given."""

    @abstractmethod
    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        """Apply *delta* to the live session under *digest*: all of it or nothing."""

    @abstractmethod
    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        """File the live session under *new* instead of *old* and apply *delta*, in one atomic step."""

    @abstractmethod
    def revoke(self, digest: bytes, now: float) -> bool:
        """End the session under *digest*; True where there was a live one."""

    @abstractmethod
    def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        """End all sessions of *user* but the one with the sid *keep*; return the number of live ones ended."""

    @abstractmethod
    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        """End the sessions with these sids; return the number of live ones ended.

        Args:
            sids: The sids. Those that name no session are left out.
            now: The present moment.
            user: The user whose sessions they have to be: any other session stays as it is. None for any session, of a
                user or of nobody.
        """

    @abstractmethod
    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        """List the live sessions of *user*, oldest first."""

    @abstractmethod
    def missing(self, sids: Iterable[str], now: float) -> set[str]:
        """Return those of *sids* that name no live session."""

    @abstractmethod
    def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        """Remove at most *limit* sessions that expired from *since* to *now*; return the number removed."""

    @abstractmethod
    def setup(self) -> None:
        """Create what is missing (tables, folders), and bring what an older coatcheck made up to date.

        Never drops data. Programs with an older coatcheck may go on using it meanwhile and afterwards.

        Raises:
            ConfigurationError: What is stored there is from a later coatcheck that this one cannot work with.
        """

    @abstractmethod
    def is_set_up(self) -> bool:
        """Return whether everything is there that `setup` creates, and up to date."""

    @abstractmethod
    def tear_down(self) -> None:
        """Remove all sessions and everything that `setup` creates, and nothing else."""

    @abstractmethod
    def close(self) -> None:
        """Close connections and handles. Closing twice is no error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def takes(self, digest: bytes, sid: str | None) -> bool:  # noqa: ARG002 (the engines of several servers need them)
        """Return whether a session can be stored now under a new digest, as far as is known without asking.

        An engine that spreads sessions over servers says no while the one that would have this one is known to be down;
        another token is drawn then. *sid* is the session's, or None where it is not known.
        """
        return True

    def advice(self) -> list[str]:
        """Look at the settings of the server; return a sentence for each that should be changed, and how."""
        return []

    def borrow(self, connection: object) -> Driver:  # noqa: ARG002 (the engines that can do it need it)
        """Return a driver that works on *connection*, inside the transaction that the application has open there.

        It is a DB-API connection, SQLAlchemy's `Connection` or `Session`, or Django's connection, which takes a write
        only inside `atomic()`. It belongs to the application: this driver neither commits nor rolls back nor closes it.
        A refused write undoes only itself (a savepoint). Where no transaction is open, a write opens one and leaves it
        open.

        Raises:
            UnsupportedCapability: The engine has no `BORROWED_CONNECTION`.
        """
        raise UnsupportedCapability(self.name, Capability.BORROWED_CONNECTION, "use a SQL driver")


class AsyncDriver(ABC):
    """A storage engine, seen from an asynchronous program. Safe to share between the tasks of any number of loops.

    ``async with driver:`` closes it at the end.

    Every method is the one of `Driver` with the same name, and the same rules hold.

    Attributes:
        name: The short name, as in the scheme of a URL.
        capabilities: What the engine gives.
        rotation_bits: How many leading bits of a digest a rotation has to keep.
        at_risk: As in `Driver`.
    """

    name: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    rotation_bits: ClassVar[int] = 0
    at_risk: str | None = None

    @abstractmethod
    async def load(self, digest: bytes, now: float) -> Record | Missing:
        """See `Driver.load`."""

    @abstractmethod
    async def create(self, record: Record, now: float) -> Answer:
        """See `Driver.create`."""

    @abstractmethod
    async def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        """See `Driver.commit`."""

    @abstractmethod
    async def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        """See `Driver.rotate`."""

    @abstractmethod
    async def revoke(self, digest: bytes, now: float) -> bool:
        """See `Driver.revoke`."""

    @abstractmethod
    async def revoke_user(self, user: str, now: float, *, keep: str | None = None) -> int:
        """See `Driver.revoke_user`."""

    @abstractmethod
    async def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        """See `Driver.end`."""

    @abstractmethod
    async def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        """See `Driver.sessions_of`."""

    @abstractmethod
    async def missing(self, sids: Iterable[str], now: float) -> set[str]:
        """See `Driver.missing`."""

    @abstractmethod
    async def sweep(self, now: float, limit: int, *, since: float = 0.0) -> int:
        """See `Driver.sweep`."""

    @abstractmethod
    async def setup(self) -> None:
        """See `Driver.setup`."""

    @abstractmethod
    async def is_set_up(self) -> bool:
        """See `Driver.is_set_up`."""

    @abstractmethod
    async def tear_down(self) -> None:
        """See `Driver.tear_down`."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections of the running loop. Closing twice is no error."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def takes(self, digest: bytes, sid: str | None) -> bool:  # noqa: ARG002 (the engines of several servers need them)
        """See `Driver.takes`; nothing is waited for."""
        return True

    async def advice(self) -> list[str]:
        """See `Driver.advice`."""
        return []

    def borrow(self, connection: object) -> AsyncDriver:  # noqa: ARG002 (the engines that can do it need it)
        """Return a driver on a connection of the application's; see `Driver.borrow`.

        Raises:
            UnsupportedCapability: The engine has no `BORROWED_CONNECTION`.
        """
        raise UnsupportedCapability(self.name, Capability.BORROWED_CONNECTION, "use a SQL driver")
