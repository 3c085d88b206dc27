"""The conformance kit: every rule of the contract of a driver, as tests that any driver has to pass.

    from coatcheck.testing import DriverContract

    class TestMyDriver(DriverContract):
        @pytest.fixture
        def driver(self, tmp_path):
            driver = MyDriver(tmp_path)
            yield driver
            driver.close()

        def reopen(self, driver):  # optional: another handle on the same storage
            return MyDriver(driver.folder)

Each test is named after its rule in `coatcheck.drivers.base` and takes nothing but `driver`, on empty storage. It needs
pytest, which comes with ``pip install 'coatcheck[testing]'``.
"""

import pytest

_ROOMS = ("helpers", "contract_ends", "contract_life", "contract_races", "contract_rotation", "contract_values")
pytest.register_assert_rewrite(*(f"coatcheck.testing.{room}" for room in _ROOMS))

from coatcheck.testing.contract import DriverContract  # noqa: E402 (after its assertions learned to explain themselves)
from coatcheck.testing.helpers import Clock, digest, make_record, sid, successor  # noqa: E402

__all__ = ["Clock", "DriverContract", "digest", "make_record", "sid", "successor"]
