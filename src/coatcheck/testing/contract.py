"""All rooms of the conformance kit in one class."""

from __future__ import annotations

import pytest

from coatcheck.drivers.base import Driver
from coatcheck.testing.contract_devices import DeviceRules, NoteRules
from coatcheck.testing.contract_ends import EndRules
from coatcheck.testing.contract_life import LifeRules
from coatcheck.testing.contract_races import RaceRules
from coatcheck.testing.contract_rotation import RotationRules
from coatcheck.testing.contract_sequences import SequenceRules
from coatcheck.testing.contract_values import ValueRules

__all__ = ["DriverContract"]


class DriverContract(LifeRules, ValueRules, EndRules, DeviceRules, NoteRules, RotationRules, RaceRules, SequenceRules):
    """The contract of a driver as a pytest class. A subclass has a fixture `driver`, which gives one on empty storage.

    Attributes:
        concurrent: False for a driver that threads cannot share, such as one on a borrowed connection; what the threads
            of a race would do is then done by one after the other.
        sequences: How many sequences of operations are tried against the model. They are the same ones each time.
    """

    @pytest.fixture
    def driver(self) -> Driver:
        """Return the driver under test, on empty storage."""
        raise NotImplementedError("a subclass of DriverContract needs a fixture `driver`")
