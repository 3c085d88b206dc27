"""The way to the primary that Sentinel names, and away from one that another is about to follow.

A failover that somebody asks for leaves the old primary running: it takes writes for some ten seconds more, which are
lost. So from the moment at which a sentinel tells that it is about to make another server the primary, the old one is
not used; what comes meanwhile waits until the new one is there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar, Final

from redis.exceptions import RedisError

from coatcheck.drivers._steps import Steps
from coatcheck.drivers.redis.lines import ROLE, is_primary
from coatcheck.drivers.redis.requests import (
    ABORTED,
    LEAVING,
    PROMOTED,
    SUBSCRIBED,
    SWITCHED,
    Address,
    Forget,
    Listen,
    Message,
    News,
    Pause,
    RoundTrip,
    command,
)
from coatcheck.drivers.redis.routes import PAUSE, Routes
from coatcheck.drivers.redis.trouble import NotSent

__all__ = ["SentinelRoutes"]

_NEWS: Final = News()
_LONGEST_SHUN: Final = 10.0
"""Seconds for which a primary that is being replaced is not used, whatever the sentinels name: one that gave it up may
not have told."""
_ASK_AGAIN: Final = 0.1  # seconds between two questions while the primary is being replaced


class SentinelRoutes(Routes):
    """The way to the primary of a service.

    Args:
        seeds: The sentinels.
        service: The service.
        replicas: As for `Routes`.
        patience: As for `Routes`; and how long to wait for a new primary, in seconds.
    """

    can_move: ClassVar[bool] = True

    def __init__(self, seeds: Sequence[Address], service: str, *, replicas: int = 0, patience: float = 0.0) -> None:
        super().__init__(seeds, replicas=replicas, patience=patience)
        self._question: Final = command(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service)
        self._service: Final = service
        self._patience: Final = patience
        self._primary: Address | None = None
        self._is_unsure = False  # something may have happened before a sentinel was listened to
        self._shunned: Address | None = None
        self._shunned_until = 0.0
        self._next_question = 0.0

    def _home(self, slot: int) -> Steps[Address]:  # noqa: ARG002 (all slots are there)
        news = yield _NEWS
        if news:
            yield from self._take(news)
        primary = self._primary
        if primary is None:
            return (yield from self._awaited())
        if self._is_unsure:
            self._is_unsure = False
            with suppress(NotSent):  # then it is used as long as it answers
                return (yield from self._found()) or primary
        return primary

    # -- what the sentinels tell

    def _take(self, news: Sequence[Message]) -> Steps[None]:
        """Take what the sentinels told."""
        for kind, text in news:
            words = text.decode().split(" ")
            if kind == SUBSCRIBED:
                self._is_unsure = True
            elif kind == SWITCHED and len(words) > 4 and words[0] == self._service:  # noqa: PLR2004 (old and new place)
                old, new = _address(words[1:3]), _address(words[3:5])
                if self._shunned == new:
                    self._shunned = None
                if self._primary != new:
                    yield from self._shun(old)
                yield Forget(new)
            elif "@" in words and words[-3] == self._service:  # a replica, and whose it is
                if kind == LEAVING:
                    yield from self._shun(_address(words[-2:]))
                elif kind == PROMOTED:
                    self._next_question = 0.0
            elif kind == ABORTED and self._service in words:
                self._shunned = None

    def _shun(self, old: Address) -> Steps[None]:
        """Do not use a primary any more whose place another takes."""
        self._shunned, self._shunned_until = old, time.monotonic() + _LONGEST_SHUN
        self._next_question = 0.0
        self._forget(old)
        self._lookout.worked()
        yield Forget(old)

    # -- who is the primary

    def _awaited(self) -> Steps[Address]:
        """Ask for the primary, and wait for it where one is being replaced."""
        until = time.monotonic() + self._patience
        while True:
            now = time.monotonic()
            if self._shunned is None or now >= self._next_question:
                self._next_question = now + _ASK_AGAIN
                yield from self._found()
            primary = self._primary  # another thread may have found it
            if primary is not None:
                return primary
            if now >= until:
                raise NotSent(f"{self._shunned} is being replaced as the primary of {self._service!r}")
            yield Pause(PAUSE)
            yield from self._take((yield _NEWS))

    def _found(self) -> Steps[Address | None]:
        """Ask the sentinels, and the server itself: one that came back may not know its new part yet.

        None while all of them name one that is being replaced.
        """
        for sentinel in self._seeds:
            yield Listen(sentinel)
        found = yield from self._first_told(self._seeds, self._told_by)
        if found is not None and not self._is_shunned(found):
            self._primary = found
        return found

    def _is_shunned(self, address: Address) -> bool:
        return address == self._shunned and time.monotonic() < self._shunned_until

    def _told_by(self, sentinel: Address) -> Steps[Address | None]:
        (told,) = yield RoundTrip(sentinel, [self._question])
        if not isinstance(told, list):
            text = "it knows no such service" if told is None else str(told)
            raise NotSent(f"the sentinel {sentinel} says of the service {self._service!r}: {text}")
        address = Address(told[0].decode(), int(told[1]))
        if self._is_shunned(address):
            return None
        (role,) = yield RoundTrip(address, [ROLE])
        if isinstance(role, RedisError) or not is_primary(role):
            raise NotSent(f"{address}, which the sentinel {sentinel} names, is no primary")
        return address

    def _forget(self, address: Address) -> None:
        if address == self._primary:
            self._primary = None

    def _is_elsewhere(self, address: Address) -> Steps[bool]:
        self._forget(address)
        return (yield from self._home(0)) != address


def _address(words: Sequence[str]) -> Address:
    """Return the address that a sentinel spells as a host and a port."""
    host, port = words
    return Address(host, int(port))
