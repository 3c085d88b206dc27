"""What becomes of a save on a connection that the application lends, where the application may roll back. No I/O.

Nobody tells the session how that transaction ended. So its next save on a lent connection looks whether the one before
is still there. What was undone is pending again, and is saved anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from coatcheck.errors import CoatcheckError, SessionUnavailable
from coatcheck.record import ABSENT, Missing, Reason, Record, is_spared
from coatcheck.state import LentSave, State
from coatcheck.steps import Call, Steps

if TYPE_CHECKING:
    from coatcheck.record import Delta, ValueKey
    from coatcheck.snapshot import Settled

__all__ = ["look", "saving"]


class _Verdict(Enum):
    STANDS = "it is there"
    UNDONE = "it is not there, or doing it again makes no difference"
    UNKNOWN = "others have written what it wrote, before or after it"


@contextmanager
def saving(state: State) -> Iterator[None]:
    """Remember how the session was before a save on a lent connection, for `look`."""
    mark, changes = state.mark(), state.changes
    journal: list[Settled] = []
    changes.journal = journal
    try:
        yield
    finally:
        changes.journal = None
        # Otherwise nothing was written whose presence says anything of the transaction; activity leaves no version.
        is_told = any(replace(settled.delta, touch=None) for settled in journal)
        if is_told or mark["ended"] or state.token is not mark["token"]:
            state.lent = (*state.lent, LentSave(mark, journal, state.token))


def look(state: State, now: float) -> Steps:
    """Look whether the saves on lent connections are still there, and make pending what is not.

    Raises:
        SessionUnavailable: That cannot be told, since other requests wrote the same values.
        DriverUnavailable: Storage failed.
    """
    while state.lent:
        last = state.lent[-1]
        verdict = yield from _verdict(last, now)
        if verdict is _Verdict.STANDS:
            return
        if verdict is _Verdict.UNKNOWN:
            raise SessionUnavailable(was_saved=True) from CoatcheckError(
                "it is not known whether the application committed the transaction in which this session was saved, for"
                " other requests changed the same values since: open the session again, and repeat the change"
            )
        state.lent = state.lent[:-1]
        last.mark["changes"].journal = last.journal
        state.restore(last.mark)


def _verdict(last: LentSave, now: float) -> Steps:
    if last.mark["ended"]:
        answer: Record | Missing = yield Call("load", (last.mark["ended"][0].digest, now))
        return _Verdict.UNDONE if isinstance(answer, Record) else _Verdict.STANDS
    if last.token is None:
        return _Verdict.STANDS  # the session ended
    answer = yield Call("load", (last.token.digest, now))
    is_new = last.token is not last.mark["token"]  # of a session that was made or renewed
    if isinstance(answer, Missing):
        return _Verdict.UNDONE if is_new and answer.reason is Reason.UNKNOWN else _Verdict.STANDS
    if is_new:
        return _Verdict.STANDS
    versions = {name: value.version for name, value in answer.values.items()}
    verdicts = {_of_change(settled, answer, versions) for settled in last.journal}
    return next((one for one in (_Verdict.STANDS, _Verdict.UNKNOWN) if one in verdicts), _Verdict.UNDONE)


def _of_change(settled: Settled, record: Record, versions: dict[ValueKey, int]) -> _Verdict:
    """Judge by the versions of its values whether a change is there: no version ever comes back."""
    delta = settled.delta
    written = (*delta.puts, *delta.increments)
    if any(versions.get(name) == settled.version for name in written):
        return _Verdict.STANDS
    if any(versions.get(name, ABSENT) == base for name, base in _known(settled).items()):
        return _Verdict.UNDONE
    if not written:
        return _of_removal(settled, record, versions)
    # What was written without a look may be written again, as by a request that comes now; what adds to it may not.
    adds = delta.increments or any(put.base is not None for put in delta.puts.values())
    return _Verdict.UNKNOWN if adds else _Verdict.UNDONE


def _known(settled: Settled) -> dict[ValueKey, int]:
    """Return the versions that were there before, of what was written or removed."""
    delta, before = settled.delta, settled.values or {}
    found = {name: put.base for name, put in delta.puts.items()}
    if settled.values is not None:
        found |= {name: before[name].version if name in before else ABSENT for name in delta.increments}
    removed = dict(delta.drops)
    removed |= {name: before[name].version for name in _cleared(delta, before)}
    found |= {name: base for name, base in removed.items() if base != ABSENT}
    return {name: base for name, base in found.items() if base is not None}


def _of_removal(settled: Settled, record: Record, versions: dict[ValueKey, int]) -> _Verdict:
    """Judge a change that wrote no value."""
    delta = settled.delta
    if delta.clears or delta.clear_all:
        is_there = settled.values is not None or not _cleared(delta, versions)
        return _Verdict.STANDS if is_there else _Verdict.UNKNOWN
    if delta.drops:
        return _Verdict.UNDONE if any(name in versions for name in delta.drops) else _Verdict.STANDS
    is_there = delta.deadline in {None, record.deadline} and delta.note in {None, record.note}
    return _Verdict.STANDS if is_there else _Verdict.UNDONE


def _cleared(delta: Delta, names: Iterable[ValueKey]) -> list[ValueKey]:
    return [name for name in names if (delta.clear_all or name[0] in delta.clears) and not is_spared(name, delta.spare)]
