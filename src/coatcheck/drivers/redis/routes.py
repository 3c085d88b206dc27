"""Which server is asked what: one server, or the primary of a slot in a Cluster. `sentinel` has the third way.

Without I/O, so that it serves both drivers. A command that was sent and brought no reply is never sent again if it
writes. One that a server refused or passed on to another was not carried out, so it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

from redis.exceptions import (
    AskError,
    MovedError,
    NoScriptError,
    RedisError,
    TryAgainError,
)

from coatcheck.drivers._breaker import Breaker
from coatcheck.drivers._steps import Steps
from coatcheck.drivers.redis.requests import (
    Address,
    Ask,
    Effect,
    Forget,
    Pause,
    Primaries,
    RoundTrip,
    command,
    given,
    is_script_refusal,
    loading,
    writes,
)
from coatcheck.drivers.redis.trouble import NAME, Lost, NotSent, refused, steps_back, was_begun
from coatcheck.errors import DriverUnavailable

__all__ = ["PAUSE", "ClusterRoutes", "Routes"]

T = TypeVar("T")

_TRIES: Final = 8  # of one request, each after a refusal or a redirection
PAUSE: Final = 0.05
"""Seconds until somebody is asked again, while a slot or the primary is on the move."""
_ASKING: Final = command(b"ASKING")
_SLOT_COUNT: Final = 16384
_SLOTS: Final = command(b"CLUSTER", b"SLOTS")


class _Failed(NamedTuple):
    """A command that a server answered with an error."""

    number: int
    address: Address
    error: RedisError


class Routes:
    """The way to one server.

    Args:
        seeds: The addresses in the URL.
        replicas: How many replicas must have a write before it counts as done.
        patience: How long to wait for them, in seconds.
    """

    can_move: ClassVar[bool] = False
    """Whether another server may come to do the work of one that is lost."""

    def __init__(self, seeds: Sequence[Address], *, replicas: int = 0, patience: float = 0.0) -> None:
        self._seeds: Final = tuple(seeds)
        self._replicas: Final = replicas
        self._wait: Final = command(b"WAIT", replicas, max(1, int(patience * 1000)))
        self._why = ""  # nobody knew the primary the last time
        self._doubtful: Final[set[Address]] = set()  # those who failed the last time: they are asked last
        self._lookout: Final = Breaker(NAME, "the primary")
        self._fixed: Final = None if self.can_move or replicas else self._seeds[0]

    def carry(self, request: Ask | list[Ask] | Primaries) -> Steps[Any]:
        """Return the reply to a request; yields exchanges with servers.

        Raises:
            NotSent: It was certainly not carried out.
            Lost: Nobody knows whether it was.
        """
        if type(request) is Ask and self._fixed is not None:  # the usual case, and the shortest way
            try:
                (reply,) = yield RoundTrip(self._fixed, (request.packed,))
            except Lost as error:
                (reply,) = yield from self._after_loss(error, self._fixed, [request], (request.packed,))
            if not isinstance(reply, RedisError):
                return reply
            return (yield from self._all([request], [_Failed(0, self._fixed, reply)]))[0]
        if isinstance(request, Primaries):
            return (yield from self._primaries())
        if isinstance(request, Ask):
            return (yield from self._all([request], []))[0]
        return (yield from self._all(request, []))

    def _all(self, asks: Sequence[Ask], failed: list[_Failed]) -> Steps[list[Any]]:
        """Return the replies to several commands; some may have been sent already and brought an error."""
        replies: list[Any] = [None] * len(asks)
        todo = [] if failed else list(range(len(asks)))
        for left in range(_TRIES, 0, -1):
            failed, todo = (failed, []) if failed else (yield from self._sent(asks, todo, replies, is_last=left == 1))
            for number, address, error in failed:
                mended = yield from self._mended(asks[number], address, error, is_first=left == _TRIES)
                if mended is None and left > 1:
                    todo.append(number)
                else:
                    wrote = writes(each for each, reply in zip(asks, replies, strict=True) if reply is not None)
                    reply = error if mended is None else mended
                    replies[number] = given(reply, asks[number], address, wrote=wrote)
            failed = []
            if not todo:
                break
        return replies

    def _sent(
        self, asks: Sequence[Ask], todo: list[int], replies: list[Any], *, is_last: bool
    ) -> Steps[tuple[list[_Failed], list[int]]]:
        """Send commands to those whom they are for. Gives those that failed, and those for whom somebody else is."""
        groups: dict[Address, list[int]] = {}
        for number in todo:
            address = asks[number].address or (yield from self._home(asks[number].slot))
            groups.setdefault(address, []).append(number)
        failed: list[_Failed] = []
        again: list[int] = []
        for address, numbers in groups.items():
            try:
                found = yield from self._exchanged(address, [asks[number] for number in numbers])
            except (NotSent, Lost) as error:
                if not all(asks[number].may_fail for number in numbers):
                    wrote = writes(each for each, reply in zip(asks, replies, strict=True) if reply is not None)
                    yield from self._found_elsewhere(error, address, wrote=wrote, is_last=is_last)
                    again += numbers
                    continue
                found = [error] * len(numbers)
            for number, reply in zip(numbers, found, strict=True):
                if isinstance(reply, RedisError):
                    failed.append(_Failed(number, address, reply))
                else:
                    replies[number] = reply
        return failed, again

    def _found_elsewhere(self, error: NotSent | Lost, address: Address, *, wrote: bool, is_last: bool) -> Steps[None]:
        """Come back if another server has taken the place of one that failed; else raise the error."""
        if isinstance(error, Lost):
            raise error
        if wrote:
            raise Lost(f"a part was written, and then: {error}") from error.__cause__
        self._forget(address)
        if is_last or error.is_timeout or not (yield from self._is_elsewhere(address)):
            raise error

    def _exchanged(self, address: Address, asks: Sequence[Ask]) -> Steps[list[Any]]:
        """Send commands to one server together."""
        packed = [each.packed for each in asks]
        if self._replicas and writes(asks):
            packed.append(self._wait)
        try:
            replies: list[Any] = yield RoundTrip(address, packed)
        except Lost as error:
            replies = yield from self._after_loss(error, address, asks, packed)
        if len(replies) > len(asks):
            yield from self._check_copies(address, replies.pop(), replies)
        return replies

    def _after_loss(
        self, error: Lost, address: Address, asks: Sequence[Ask], packed: Sequence[bytes]
    ) -> Steps[list[Any]]:
        """Send reads once more whose connection broke; what may have written is never sent again."""
        self._forget(address)
        if writes(asks):
            raise error
        if not error.is_reset or any(each.effect is not Effect.READS for each in asks):
            raise NotSent(str(error), is_reset=error.is_reset, is_timeout=error.is_timeout) from error.__cause__
        replies: list[Any] = yield RoundTrip(address, packed)
        return replies

    def _check_copies(self, address: Address, copies: Any, replies: list[Any]) -> Steps[None]:
        """Raise `Lost` where too few replicas have a write: they may follow another primary by now."""
        if all(isinstance(reply, RedisError) or is_script_refusal(reply) for reply in replies):
            return
        if not isinstance(copies, int) or copies < self._replicas:
            what = (
                f"{copies} of {self._replicas} replicas" if isinstance(copies, int) else f"WAIT failed ({copies}): none"
            )
            self._forget(address)
            yield Forget(address)
            raise Lost(f"it is written, and {what} said in time that they have it")

    def _mended(self, request: Ask, address: Address, error: RedisError, *, is_first: bool) -> Steps[Any]:
        """Do what a refusal asks for: give the reply in the end, or None to begin again."""
        if isinstance(error, NoScriptError) and request.script is not None:
            told, reply = yield from self._exchanged(address, [loading(request.script), request])
            return told if isinstance(told, RedisError) else reply
        has_stepped_back = steps_back(error) and not was_begun(error)
        if not self.can_move:  # its connections are closed; a new one may lead to the server that took its place
            return None if has_stepped_back and is_first else error
        if request.address is not None:
            return error
        if isinstance(error, MovedError):
            self._moved(error.slot_id, Address(error.host or address.host, error.port))
            return None
        if isinstance(error, AskError):
            return (yield from self._asked_elsewhere(request, Address(error.host or address.host, error.port)))
        if isinstance(error, TryAgainError):
            yield Pause(PAUSE)
            return None
        if has_stepped_back:
            with suppress(NotSent):  # then what this server said is the better answer
                if (yield from self._is_elsewhere(address)):
                    return None
        return error

    def _asked_elsewhere(self, request: Ask, address: Address) -> Steps[Any]:
        """Ask the server to which a slot is moving, this once."""
        asking = Ask(_ASKING, 0, Effect.READS)
        reply = (yield from self._exchanged(address, [asking, request]))[-1]
        if isinstance(reply, NoScriptError) and request.script is not None:
            reply = (yield from self._exchanged(address, [loading(request.script), asking, request]))[-1]
        return reply

    def _first_told(
        self, addresses: Iterable[Address], told_by: Callable[[Address], Steps[T | None]]
    ) -> Steps[T | None]:
        """Return what the first one says who says anything; None if there is nobody to ask, or nobody knows.

        Waits out one limit of time and not several: anyone who did not answer is not asked by the next who comes here.

        Raises:
            NotSent: Nobody said anything.
        """
        try:
            self._lookout.check("connect")
        except DriverUnavailable as error:
            raise NotSent(f"a moment ago, and no server is tried again yet: {self._why}") from error
        problem: NotSent | None = None
        has_answered = False
        for address in sorted(addresses, key=self._doubtful.__contains__):
            try:
                told = yield from told_by(address)
            except (NotSent, Lost) as error:
                self._doubtful.add(address)
                problem = NotSent(f"no server reports a primary: {error}")
                problem.__cause__ = error.__cause__ or error
                if error.is_timeout:
                    break
            else:
                has_answered = True
                self._lookout.worked()
                self._doubtful.discard(address)
                if told is not None:
                    return told
        if not has_answered:
            self._why = str(problem)
            self._lookout.failed()
            if problem is not None:
                raise problem
        return None

    # -- what is different where servers can take each other's place

    def _home(self, slot: int) -> Steps[Address]:
        """Return the address of the primary of a slot."""
        del slot
        yield from ()
        return self._seeds[0]

    def _primaries(self) -> Steps[list[Address]]:
        return [(yield from self._home(0))]

    def _forget(self, address: Address) -> None:
        """Note that a server may not be there any more."""

    def _is_elsewhere(self, address: Address) -> Steps[bool]:
        """Look whether another server has taken the place of one."""
        del address
        yield from ()
        return False

    def _moved(self, slot: int, address: Address) -> None:
        """Note that a slot is on another server."""


class ClusterRoutes(Routes):
    """The way to the primary of each slot.

    Args:
        seeds: Some servers of the cluster.
        replicas: As for `Routes`.
        patience: As for `Routes`.
    """

    can_move: ClassVar[bool] = True

    def __init__(self, seeds: Sequence[Address], *, replicas: int = 0, patience: float = 0.0) -> None:
        super().__init__(seeds, replicas=replicas, patience=patience)
        self._slots: list[Address | None] = [None] * _SLOT_COUNT
        self._is_stale = True

    def _home(self, slot: int) -> Steps[Address]:
        if self._is_stale:
            yield from self._refresh()
        address = self._slots[slot]
        if address is None:
            self._is_stale = True
            raise NotSent(f"no server of the cluster has the slot {slot}")
        return address

    def _primaries(self) -> Steps[list[Address]]:
        yield from self._refresh()
        return sorted({address for address in self._slots if address is not None})

    def _refresh(self, but: Address | None = None) -> Steps[None]:
        """Learn who has which slot, from anybody who answers."""
        known = dict.fromkeys((*filter(None, self._slots), *self._seeds))
        slots = yield from self._first_told([each for each in known if each != but], self._told_by)
        if slots is None:
            raise NotSent("no other server of the cluster is known")
        self._slots = slots
        self._is_stale = False

    def _told_by(self, address: Address) -> Steps[list[Address | None]]:
        (told,) = yield RoundTrip(address, [_SLOTS])
        if not isinstance(told, list) or not told:
            raise NotSent(refused(told, str(address)) if told else f"{address} is not part of a cluster")
        slots: list[Address | None] = [None] * _SLOT_COUNT
        for first, last, primary, *_ in told:
            owner = Address(primary[0].decode() if primary[0] else address.host, primary[1])
            slots[first : last + 1] = [owner] * (last + 1 - first)
        return slots

    def _forget(self, address: Address) -> None:
        self._doubtful.add(address)
        self._is_stale = True  # it may mean a failover

    def _is_elsewhere(self, address: Address) -> Steps[bool]:
        before = self._slots
        yield from self._refresh(but=address)
        pairs = zip(before, self._slots, strict=True)
        return any(owner == address and now_there != address for owner, now_there in pairs)

    def _moved(self, slot: int, address: Address) -> None:
        self._slots[slot] = address
        self._is_stale = True  # where one slot has moved, others may have
