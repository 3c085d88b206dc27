"""The conformance kit against every engine, sync and async, on the real servers."""

from __future__ import annotations

import pytest
from testservers.engines import Engine

from coatcheck.drivers.base import Capability, Driver
from coatcheck.testing import DriverContract


class TestEngines(DriverContract):
    sequences = 10

    @pytest.fixture(autouse=True)
    def _engine(self, engine: Engine) -> None:
        self.engine = engine

    def reopen(self, driver: Driver) -> Driver:
        return driver if Capability.SCOPE_PROCESS in driver.capabilities else self.engine.open()

    @pytest.fixture
    def driver(self, engine: Engine) -> Driver:
        driver = engine.open()
        driver.setup()
        return driver
