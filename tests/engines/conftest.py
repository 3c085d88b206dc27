"""Every engine under test, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testservers import RedisServer
from testservers.engines import PATIENCE, Engine, params, with_options

from coatcheck.drivers import open_driver
from coatcheck.drivers.base import Driver


@pytest.fixture(params=params())
def engine(request: pytest.FixtureRequest, namespace: str, tmp_path: Path) -> Iterator[Engine]:
    """An engine with empty storage that is not set up."""
    row = request.param
    server = request.getfixturevalue(row.server) if row.server else None
    engine = Engine.of(row, server, namespace, tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def driver(engine: Engine) -> Driver:
    """A driver on empty storage that is set up."""
    driver = engine.open()
    driver.setup()
    return driver


@pytest.fixture
def redis_driver(redis_server: RedisServer, open_at: Callable[..., Driver]) -> Iterator[Driver]:
    """A driver on one Redis server."""
    driver = open_at(redis_server.url)
    driver.setup()
    yield driver
    driver.tear_down()


@pytest.fixture
def open_at(namespace: str) -> Iterator[Callable[..., Driver]]:
    """Opens drivers by URL and options, all of them in one namespace, and closes them in the end."""
    opened: list[Driver] = []

    def open_one(url: str, **options: object) -> Driver:
        driver = open_driver(with_options(url, **{"prefix": namespace, "timeout": PATIENCE, **options}))
        opened.append(driver)
        return driver

    yield open_one
    for driver in opened:
        driver.close()
