"""Drivers of other packages: what one lacks of the contract is named when it is opened."""

from __future__ import annotations

from importlib import metadata
from typing import Any, ClassVar

import pytest

from coatcheck import AsyncSessionManager, SessionManager
from coatcheck.drivers import built_in_drivers, open_driver
from coatcheck.drivers._strangers import check_class
from coatcheck.drivers.base import AsyncDriver, Capability, Driver
from coatcheck.drivers.memory import AsyncMemoryDriver, MemoryDriver
from coatcheck.errors import ConfigurationError
from coatcheck.testing import AsyncFaultyDriver, Blocking, FaultyDriver, Interleaving


class Strange(MemoryDriver):
    """A driver with a class method for URLs, which the mutants below spoil."""

    @classmethod
    def from_url(cls, url: str) -> Any:
        del url
        return cls()


class BeforeEnd(Driver):
    """One for the contract without `end`, as ten other methods."""

    name: ClassVar[str] = "before"
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    @classmethod
    def from_url(cls, url: str) -> Any:
        del url
        return cls()  # type: ignore[abstract]

    def load(self, digest: bytes, now: float) -> Any:
        raise NotImplementedError

    def create(self, record: Any, now: float) -> Any:
        raise NotImplementedError

    def revoke(self, digest: bytes, now: float) -> Any:
        raise NotImplementedError


class WithoutKeep(Strange):
    def revoke_user(self, user: str, now: float) -> int:  # type: ignore[override]
        raise NotImplementedError


class WithoutGrace(Strange):
    def rotate(self, old: bytes, new: bytes, delta: Any, now: float) -> Any:  # type: ignore[override]
        raise NotImplementedError


class WantsMore(Strange):
    def load(self, digest: bytes, now: float, why: str) -> Any:  # type: ignore[override]
        raise NotImplementedError


class IsAsynchronous(Strange):
    async def load(self, digest: bytes, now: float) -> Any:  # type: ignore[override]
        raise NotImplementedError


class HasNoName(Strange):
    name: ClassVar[Any] = None


class PromisesWords(Strange):
    capabilities: ClassVar[Any] = frozenset({"durable"})


class AsyncWithoutUser(AsyncMemoryDriver):
    async def end(self, sids: Any, now: float) -> int:  # type: ignore[override]
        raise NotImplementedError


STRANGERS: dict[type, str] = {
    BeforeEnd: r"BeforeEnd has no commit\(digest, delta, now\) .*and has no end\(sids, now, \*, user=None\)",
    WithoutKeep: r"has revoke_user\(user, now\) for revoke_user\(user, now, \*, keep=None\)",
    WithoutGrace: r"has rotate\(old, new, delta, now\) for rotate\(old, new, delta, grace, now\)",
    WantsMore: r"has load\(digest, now, why\) for load\(digest, now\)",
    IsAsynchronous: r"has an asynchronous load\(\)",
    HasNoName: "has no name, a str",
    PromisesWords: "has no capabilities, a frozenset of Capability",
}


@pytest.mark.parametrize("kind", STRANGERS, ids=lambda kind: kind.__name__)
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setattr("coatcheck.drivers.memory.Stranger", kind, raising=False)
    entry = metadata.EntryPoint("strange", "coatcheck.drivers.memory:Stranger", "coatcheck.drivers")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry])  # noqa: ARG005
    with pytest.raises(ConfigurationError, match=STRANGERS[kind]) as caught:
        open_driver("strange://host/s3cret")
    assert "update its package" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    if kind is not BeforeEnd:  # of which Python itself makes no object
        with pytest.raises(ConfigurationError, match=STRANGERS[kind]):
            SessionManager(kind())


def test_an_asynchronous_one() -> None:
    with pytest.raises(ConfigurationError, match=r"has end\(sids, now\) for end\(sids, now, \*, user=None\)"):
        AsyncSessionManager(AsyncWithoutUser())


def test_right_ones_pass() -> None:
    for kind in built_in_drivers():
        check_class(kind)
    for driver in (
        FaultyDriver(MemoryDriver()),
        Interleaving(MemoryDriver()),
        Strange(),
    ):
        SessionManager(driver)
    wrapped: AsyncDriver = AsyncFaultyDriver(AsyncMemoryDriver())
    AsyncSessionManager(wrapped)
    blocking = Blocking(AsyncMemoryDriver())
    SessionManager(blocking)
    blocking.close()


def test_more_arguments_are_no_fault() -> None:
    class Generous(Strange):
        def load(self, digest: bytes, now: float, *rest: Any, why: str = "") -> Any:
            del rest, why
            return super().load(digest, now)

    SessionManager(Generous())
