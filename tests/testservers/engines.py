"""The table of all engines under test, each as a driver and as an asynchronous driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.testing import Blocking

__all__ = ["PATIENCE", "ROWS", "Engine", "Row", "params", "with_options"]

PATIENCE: Final = 60
"""The `timeout` of every driver in a test that is not about limits of time, in seconds: the machine may be busy."""


def with_options(url: str, **options: object) -> str:
    """Return *url* with *options*, which replace those of the same names."""
    place, _, query = url.partition("?")
    merged = {**dict(parse_qsl(query)), **options}
    more = "&".join(f"{name}={value}" for name, value in merged.items())
    return f"{place}?{more}" if more else place


@dataclass(frozen=True)
class Row:
    """One engine in one of its forms.

    Attributes:
        name: What it is called in reports.
        server: The fixture that gives the server, or None.
        url: Builds the URL, from the server, a namespace of letters and digits, and an empty folder.
        asynchronous: Whether the asynchronous driver is meant, behind a synchronous face.
    """

    name: str
    server: str | None
    url: Callable[[Any, str, Path], str]
    asynchronous: bool = False


def _rows() -> list[Row]:
    def shared(server: Any, namespace: str, _: Path) -> str:
        return with_options(server.url, prefix=namespace, timeout=PATIENCE)

    def unix(server: Any, namespace: str, _: Path) -> str:
        return with_options(server.unix_url, prefix=namespace, timeout=PATIENCE)

    def tls(server: Any, namespace: str, _: Path) -> str:
        return with_options(server.url, prefix=namespace, ca=server.certificate, timeout=PATIENCE)

    rows = [
        Row("memory", None, lambda *_: "memory:"),
        Row("sqlite", None, lambda _, __, folder: f"sqlite:///{folder}/sessions.db?timeout={PATIENCE}"),
        Row("filesystem", None, lambda _, __, folder: f"filesystem:///{folder}/sessions?timeout={PATIENCE}"),
        Row("redis", "redis_server", shared),
        Row("redis-unix", "redis_server", unix),
        Row("redis-tls", "redis_tls_server", tls),
        Row("redis-sentinel", "redis_sentinel", shared),
        Row("redis-cluster", "redis_cluster", shared),
        Row("postgresql", "postgresql_server", shared),
        Row("pgbouncer", "pgbouncer", shared),
        Row("mariadb", "mariadb_server", shared),
        Row("memcached", "memcached_server", shared),
    ]
    return [form for row in rows for form in (row, Row(f"{row.name}-async", row.server, row.url, asynchronous=True))]


ROWS: Final = {row.name: row for row in _rows()}


def params(*names: str) -> list[Any]:
    """Give the rows of some engines, sync and async, as values of the fixture `engine`; without names: all."""
    chosen = [row for row in ROWS.values() if not names or row.name.removesuffix("-async") in names]
    return [pytest.param(row, id=row.name, marks=[pytest.mark.server] if row.server else []) for row in chosen]


@dataclass
class Engine:
    """An engine that is there, with empty storage of its own.

    Attributes:
        name: As in the table.
        url: The URL of its storage.
        server: The server, or None.
        asynchronous: Whether its drivers are asynchronous ones behind a synchronous face.
    """

    name: str
    url: str
    server: Any
    asynchronous: bool
    _opened: list[Driver] = field(default_factory=list)

    @classmethod
    def of(cls, row: Row, server: Any, namespace: str, folder: Path) -> Engine:
        """Give the engine of a row, on an empty namespace and folder."""
        return cls(row.name, row.url(server, namespace, folder), server, row.asynchronous)

    def open(self, url: str | None = None, **options: object) -> Driver:
        """Give a driver on the storage, or on another *url* of the same engine; it is closed with the engine."""
        where = with_options(url or self.url, **options)
        driver = Blocking(open_async_driver(where)) if self.asynchronous else open_driver(where)
        self._opened.append(driver)
        return driver

    def close(self) -> None:
        """Empty the storage and close all drivers."""
        try:
            if self._opened:
                self.open().tear_down()  # by a driver that has no part in what the test did to the others
        finally:
            opened, self._opened = self._opened, []
            for driver in opened:
                driver.close()
