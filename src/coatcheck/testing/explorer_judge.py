"""The judge of a schedule: it looks for an order of the steps in which the model comes to the same.

Two steps of different requests may be in either order if they overlapped in the schedule.
"""

from __future__ import annotations

from dataclasses import replace

from coatcheck.testing.explorer_model import Disagreement, SessionModel
from coatcheck.testing.explorer_run import Schedule, Step, Visit
from coatcheck.testing.explorer_visits import USER

__all__ = ["explain"]


def explain(schedule: Schedule) -> str | None:
    """Look for an order of the steps in which the model comes to what the schedule came to.

    Returns:
        None where there is one, or why there is none.
    """
    found = _End(schedule)
    plans = [_planned(visit) for visit in schedule.visits]
    return found.search(SessionModel(schedule), plans, [0] * len(plans))


def _planned(visit: Visit) -> list[Step]:
    """Return the steps of a request as the model takes them: the parts of a save, too, have others in between."""
    steps: list[Step] = []
    for step in visit.steps:
        if step.what == "save" and visit.kind.logs_in:
            steps.append(replace(step, what="hold"))
        if step.what == "save" and visit.kind.ends:
            if len(visit.steps) == 1:
                steps.append(replace(step, what="peek"))
            steps.append(replace(step, what="end"))
        steps.append(step)
    return steps


class _End:
    """What a schedule has left behind, and the search for an order that leads there."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._views = schedule.views()
        self._devices = schedule.devices()
        self._stored = schedule.stored()
        self._reached = -1
        self._why = ""

    def search(self, model: SessionModel, plans: list[list[Step]], done: list[int]) -> str | None:
        """Take each step that may be the next one, until all are done; return None, or what was wrong with the best."""
        waiting = [plan[at] for plan, at in zip(plans, done, strict=True) if at < len(plan)]
        if not waiting:
            return self._note(sum(done), self._check(model))
        waiting = [step for step in waiting if all(step.first <= other.last for other in waiting)]
        for step in sorted(waiting, key=lambda each: each.last):
            branch = model if len(waiting) == 1 else model.copy()
            try:
                branch.take(step)
            except Disagreement as error:
                self._note(sum(done), str(error))
                continue
            number = next(at for at, plan in enumerate(plans) if plan and plan[0].visit is step.visit)
            if self.search(branch, plans, [*done[:number], done[number] + 1, *done[number + 1 :]]) is None:
                return None
        return self._why

    def _note(self, reached: int, why: str | None) -> str | None:
        if why is not None and reached > self._reached:
            self._reached, self._why = reached, why
        return why

    def _check(self, model: SessionModel) -> str | None:
        """Compare what is left in the end."""
        schedule = self._schedule
        for token, view in self._views.items():
            right = model.view(token, schedule.now)
            if view != right:
                return f"in the end {schedule.named(token)} opens {view!r}, and should open {right!r}"
        if self._devices != (right_number := model.live(schedule.now, USER)):
            return f"in the end {USER} has {self._devices} sessions, and should have {right_number}"
        if self._stored != (right_number := model.made(schedule.now)):
            return f"in the end {self._stored} new sessions are alive, and there should be {right_number}"
        return self._check_jar(model)

    def _check_jar(self, model: SessionModel) -> str | None:
        """Check that no answer's cookie has taken the place of one that the browser needs."""
        schedule = self._schedule
        given = [visit for visit in schedule.finished if visit.reply is not None]
        if not given or not schedule.beginning.stores:  # the later answer wins, as with any two first visits
            return None
        last, held = given[-1], model.holder(schedule.jar, schedule.now)
        if model.has_logged_out(last):  # the browser asked for that, too
            return None
        logins = [visit for visit in given if visit.kind.logs_in]
        if logins and (right := model.holder(logins[-1].reply, schedule.now)) is not None:
            # Nothing says that requests with different tokens come from one browser.
            if held is right or last.brought != logins[-1].brought:
                return None
            return f"the browser lost the cookie of the log-in of {logins[-1].name}"
        tokens = {schedule.first_jar, *(visit.reply for visit in given)} - {None, "deletion"}
        if held is None and any(model.holder(token, schedule.now) for token in tokens):
            return "the browser holds a cookie that opens nothing, and its session is alive"
        return None
