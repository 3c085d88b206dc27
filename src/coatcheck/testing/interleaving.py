"""Deterministic races without threads: another request runs at a chosen step of the first one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from coatcheck.drivers.base import Driver
from coatcheck.testing.wrapped import OPERATIONS, WrappedDriver

__all__ = ["Interleaving"]

T = TypeVar("T")

_Moment = Literal["before", "after"]


class Interleaving(WrappedDriver):
    """Passes operations on to another driver, and runs actions before or after some of them.

        driver = Interleaving(MemoryDriver())
        driver.before("commit", lambda: manager.revoke_user("ada"))      # the next commit comes too late
        driver.after("load", another_request, call=2)                    # after the second load from now on

    An action may use the same driver: its operations are passed on directly, are not counted and trigger no action.
    Each action runs once. Use it in one thread.

    Args:
        driver: The driver that does the work.

    Attributes:
        calls: The operations called so far, in order, without those of the actions.
    """

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.calls: list[str] = []
        self._waiting: list[_Action] = []
        self._busy: list[Literal[True]] = []  # a list, so that a borrowed driver shares it

    @property
    def pending(self) -> int:
        """The number of actions that have not run yet. It should be 0 at the end of a test."""
        return len(self._waiting)

    def before(self, operation: str | None, action: Callable[[], object], *, call: int = 1) -> None:
        """Run *action* just before an operation.

        Args:
            operation: Its name, such as ``"commit"``; None for any.
            action: The function to call.
            call: Before which of its calls, counted from now; 1 is the next one.
        """
        self._waiting.append(_Action("before", operation, action, call))

    def after(self, operation: str | None, action: Callable[[], object], *, call: int = 1) -> None:
        """Run *action* just after an operation, before its answer is returned. The arguments are those of `before`."""
        self._waiting.append(_Action("after", operation, action, call))

    def pass_on(self, operation: str, call: Callable[[], T]) -> T:
        if self._busy:
            return call()
        self.calls.append(operation)
        due = [action for action in self._waiting if action.is_due(operation)]
        self._do(due, "before")
        answer = call()
        self._do(due, "after")
        return answer

    def _do(self, due: list[_Action], moment: _Moment) -> None:
        for action in due:
            if action.moment == moment:
                self._waiting.remove(action)
                self._busy.append(True)
                try:
                    action.run()
                finally:
                    self._busy.pop()


class _Action:
    """An action at a step.

    Raises:
        ValueError: There is no such step.
    """

    def __init__(self, moment: _Moment, operation: str | None, run: Callable[[], object], call: int) -> None:
        if operation is not None and operation not in OPERATIONS:
            raise ValueError(f"{operation!r} is not an operation of a driver: {', '.join(sorted(OPERATIONS))}")
        if call < 1:
            raise ValueError("calls are counted from 1, which is the next")
        self.moment: _Moment = moment
        self.run = run
        self._operation = operation
        self._left = call

    def is_due(self, operation: str) -> bool:
        """Count a call, and return whether the action is due."""
        if self._operation not in (None, operation):
            return False
        self._left -= 1
        return self._left == 0
