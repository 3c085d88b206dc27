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
pytest and Hypothesis, which come with ``pip install 'coatcheck[testing]'``.

For the tests of programs that use sessions: `Clock`, a clock that tests move; `signed_in`, a client that is logged in;
`FaultyDriver`, storage that fails; `Interleaving`, another request at a chosen step of the first.
"""

import pytest

_ROOMS = (
    "helpers",
    "contract_ends",
    "contract_life",
    "contract_races",
    "contract_rotation",
    "contract_values",
    "model",
    "sequences",
)
pytest.register_assert_rewrite(*(f"coatcheck.testing.{room}" for room in _ROOMS))

# after their assertions learned to explain themselves:
from coatcheck.testing.applications import SessionCookie, signed_in  # noqa: E402
from coatcheck.testing.blocking import Blocking  # noqa: E402
from coatcheck.testing.contract import DriverContract  # noqa: E402
from coatcheck.testing.faulty import FaultyDriver  # noqa: E402
from coatcheck.testing.helpers import Clock, digest, make_record, sid, successor  # noqa: E402
from coatcheck.testing.interleaving import Interleaving  # noqa: E402

__all__ = [
    "Blocking",
    "Clock",
    "DriverContract",
    "FaultyDriver",
    "Interleaving",
    "SessionCookie",
    "digest",
    "make_record",
    "sid",
    "signed_in",
    "successor",
]
