"""All rules at once: any operations in any order, against a plain model of the contract."""

from __future__ import annotations

from typing import ClassVar

from coatcheck.drivers.base import Driver
from coatcheck.testing.helpers import Rules

__all__ = ["SequenceRules"]


class SequenceRules(Rules):
    """What holds whatever came before.

    Attributes:
        sequences: How many sequences of operations are tried. They are the same ones each time.
    """

    sequences: ClassVar[int] = 60

    def test_any_operations_in_any_order(self, driver: Driver) -> None:
        """After every step of some clients, storage gives what a plain model of the contract has."""
        from coatcheck.testing.sequences import check  # noqa: PLC0415 (Hypothesis is slow to import, and only for this)

        other = self.reopen(driver)
        try:
            check(driver, other, examples=self.sequences)
        finally:
            if other is not driver:
                other.close()
