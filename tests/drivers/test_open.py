"""Drivers by URL."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.drivers.sqlite import SQLiteDriver
from coatcheck.errors import ConfigurationError
from coatcheck.testing.helpers import START, loaded, started


def test_memory() -> None:
    for url in ("memory:", "memory://"):
        assert isinstance(open_driver(url), MemoryDriver)
    one, two = open_driver("memory:"), open_driver("memory:")
    record = started(one)
    assert not isinstance(two.load(record.digest, START), type(record))
    for url in ("memory:x", "memory:?timeout=1"):
        with pytest.raises(ConfigurationError, match="takes no path"):
            open_driver(url)


def test_sqlite_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, path in (
        ("sqlite:///relative.db", tmp_path / "relative.db"),
        (f"sqlite:///{tmp_path}/absolute.db", tmp_path / "absolute.db"),
        (f"sqlite:///{tmp_path}/with%20space%3F.db", tmp_path / "with space?.db"),
    ):
        driver = open_driver(url)
        assert isinstance(driver, SQLiteDriver)
        assert driver.path == str(path)
        record = started(driver)
        assert loaded(open_driver(url), record.digest, START) == record
        assert path.exists()


def test_sqlite_options(tmp_path: Path) -> None:
    driver = open_driver(f"sqlite:///{tmp_path}/s.db?timeout=2&prefix=x_&synchronous=full&network_filesystem=allow")
    assert isinstance(driver, SQLiteDriver)
    driver.setup()
    with driver._connections.held() as connection:
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (2000,)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM x_coatcheck_session").fetchone() == (0,)
    driver.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///s.db?timeuot=2", "unknown option 'timeuot' .* network_filesystem, prefix, synchronous, timeout"),
        ("sqlite:///s.db?timeout=soon", "timeout must be a number"),
        ("sqlite:///s.db?timeout=", "timeout must be a number"),
        ("sqlite:///s.db?timeout=1&timeout=2", "given twice"),
        ("sqlite:///s.db?synchronous=off", "normal, full"),
        ("sqlite:///s.db?prefix=a-b", "prefix"),
        ("sqlite:///s.db?network_filesystem=yes", "one of allow, refuse"),
        ("sqlite:s.db", "sqlite:///relative.db"),
        ("sqlite://s.db", "sqlite:///relative.db"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "memory:"),
        ("sqlite://", "sqlite:///relative.db"),
        ("mongo://host/db", "unknown scheme 'mongo'.* memory:, .*sqlite:"),
        ("sessions.db", "no scheme.* memory:, .*sqlite:"),
        ("", "no scheme"),
    ],
)
def test_urls_that_cannot_work(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        open_driver(url)


PLACES = {
    "sqlite": "sqlite:///s.db",
    "filesystem": "filesystem:///sessions",
    "redis": "redis://host",
    "memcached": "memcached://host",
    "postgresql": "postgresql://u@host/d",
    "mariadb": "mariadb://u@host/d",
}


@pytest.mark.parametrize("way", [open_driver, open_async_driver], ids=["sync", "async"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("timeuot=2", r"unknown option 'timeuot' for \w+( \w+)?: there are .*prefix.*timeout"),
        ("timeout=1&timeout=2", "the option 'timeout' is given twice"),
        ("timeout=soon", r"timeout must be a number of seconds, at least [\d.]+, not 'soon'"),
        ("timeout=-1", r"timeout must be a number of seconds, at least [\d.]+, not '-1'"),
        ("timeout=nan", r"timeout must be a number of seconds, at least [\d.]+, not 'nan'"),
        ("timeout=", r"timeout must be a number of seconds, at least [\d.]+, not ''"),
    ],
)
def test_a_wrong_option_is_told_alike_by_every_engine(
    way: Callable[[str], object], place: str, options: str, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        way(f"{place}?{options}")


def test_an_at_sign_in_the_path_of_a_file_is_no_login(tmp_path: Path) -> None:
    driver = open_driver(f"sqlite:///{tmp_path}/a@b.db")
    assert isinstance(driver, SQLiteDriver)
    assert driver.path == f"{tmp_path}/a@b.db"


def test_no_password_is_repeated() -> None:
    for url in (
        "redis://u:12/s3cret@host/0",
        "redis://u:12?s3cret=x@host",
        "postgresql://u:12?x=s3cret@host",
        "mariadb://u:1/s3cret@host/db",
        "redis://u:s3cret@host:99999",
        "redis://u:s3cret#@host",
        "memcached://u:s3cret@host:x",
    ):
        with pytest.raises(ConfigurationError) as caught:
            open_driver(url)
        assert "s3cret" not in str(caught.value)
    for url in ("nosql://ann:s3cret@host/db", "sqlite://ann:s3cret@host/db", "ann:s3cret@host", "//ann:s3cret@host/"):
        with pytest.raises(ConfigurationError) as caught:
            open_driver(url)
        assert "s3cret" not in str(caught.value)


def offer(monkeypatch: pytest.MonkeyPatch, **offered: str) -> None:
    entries = [metadata.EntryPoint(name, value, "coatcheck.drivers") for name, value in offered.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries)  # noqa: ARG005


class StrangersDriver(MemoryDriver):
    """A driver of another distribution."""

    url = ""

    @classmethod
    def from_url(cls, url: str) -> StrangersDriver:
        driver = cls()
        driver.url = url
        return driver


def test_a_strangers_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coatcheck.drivers.memory.StrangersDriver", StrangersDriver, raising=False)
    offer(monkeypatch, strange="coatcheck.drivers.memory:StrangersDriver")
    driver = open_driver("strange://host/x?y=1")
    assert isinstance(driver, StrangersDriver)
    assert driver.url == "strange://host/x?y=1"
    assert isinstance(open_driver("sqlite:///s.db"), SQLiteDriver)  # there without an entry point


@pytest.mark.parametrize("value", ["coatcheck.drivers:open_driver", "coatcheck.drivers.base:Driver", "json:loads"])
def test_an_entry_point_that_is_no_driver(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    offer(monkeypatch, strange=value)
    with pytest.raises(ConfigurationError, match="no Driver with from_url"):
        open_driver("strange://host")


def test_a_scheme_may_be_in_capitals() -> None:
    assert isinstance(open_driver("SQLite:///s.db"), SQLiteDriver)


def test_the_built_in_drivers_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, memory="json:loads")
    assert isinstance(open_driver("memory:"), MemoryDriver)
