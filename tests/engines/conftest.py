"""Every engine under test, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from testservers.engines import Engine, params

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
