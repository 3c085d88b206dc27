"""The conformance kit: every rule of the contract as a test that a driver must pass. Also helpers for applications.

    from coatcheck.testing import DriverContract

    class TestMyDriver(DriverContract):
        @pytest.fixture
        def driver(self, tmp_path):
            driver = MyDriver(tmp_path)
            yield driver
            driver.close()

        def reopen(self, driver):  # optional: another handle on the same storage
            return MyDriver(driver.folder)

Each test is named after its rule in `coatcheck.drivers.base`. Its only argument is `driver`, on empty storage.
`DriverContract` needs pytest and Hypothesis (``pip install 'coatcheck[testing]'``). The other names do not need them.

For the tests of programs that use sessions: `Clock`, a clock that tests move; `signed_in`, a client that is logged in;
`FaultyDriver` and `AsyncFaultyDriver`, storage that fails; `Interleaving`, a second request at a chosen step;
`explore`, requests in every order of their driver calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coatcheck.errors import MissingExtra
from coatcheck.testing.applications import SessionCookie, signed_in
from coatcheck.testing.blocking import Blocking
from coatcheck.testing.explorer import Explored, explore
from coatcheck.testing.faulty import AsyncFaultyDriver, FaultyDriver
from coatcheck.testing.helpers import Clock, digest, make_record, sid, successor
from coatcheck.testing.interleaving import Interleaving

if TYPE_CHECKING:
    from coatcheck.testing.contract import DriverContract

__all__ = [
    "AsyncFaultyDriver",
    "Blocking",
    "Clock",
    "DriverContract",
    "Explored",
    "FaultyDriver",
    "Interleaving",
    "SessionCookie",
    "digest",
    "explore",
    "make_record",
    "sid",
    "signed_in",
    "successor",
]

_KIT = (
    "contract_devices",
    "contract_ends",
    "contract_life",
    "contract_races",
    "contract_rotation",
    "contract_values",
    "model",
    "sequences",
)


def __getattr__(name: str) -> Any:
    """Load the kit on first use, so that the helpers work without pytest."""
    if name != "DriverContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import pytest  # noqa: PLC0415 (see above)
    except ImportError as error:
        raise MissingExtra("coatcheck.testing.DriverContract", "testing") from error
    pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _KIT))  # failing assertions show their values
    from coatcheck.testing.contract import DriverContract  # noqa: PLC0415 (as above)

    globals()[name] = DriverContract
    return DriverContract
