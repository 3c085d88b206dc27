"""Drivers that are broken on purpose: how sessions end by their sids, and what becomes of their notes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from coatcheck.drivers.memory import MemoryDriver, _StoredSession
from coatcheck.record import Answer, Committed, Delta, Record, SessionInfo

# -- rule 7


class EndsAnybodys(MemoryDriver):
    """Takes no notice of the user."""

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        del user
        return super().end(sids, now)


class EndsNobodys(MemoryDriver):
    """Ends an anonymous session for any user."""

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        anonymous = [sid for sid in sids if sid in self._sessions and self._sessions[sid].info.user is None]
        return super().end(sids, now, user=user) + super().end(anonymous, now)


class EndsOne(MemoryDriver):
    """Ends the first."""

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        return super().end(list(sids)[:1], now, user=user)


class EndCountsTheExpired(MemoryDriver):
    """Counts what was over already."""

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        before = len(self._sessions)
        super().end(sids, now, user=user)
        return before - len(self._sessions)


class EndCountsTwice(MemoryDriver):
    """Counts a sid as often as it is named."""

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        named = list(sids)
        return super().end(named, now, user=user) + len(named) - len(set(named))


class EndLeavesNoTombstone(MemoryDriver):
    """Deletes, so that a late creation brings the token back."""

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        ended = super().end(sids, now, user=user)
        self._ended.clear()
        return ended


class EndLeavesTheOldToken(MemoryDriver):
    """Forgets the token that is in its grace."""

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        named = list(sids)
        priors = [held.prior for sid, held in self._sessions.items() if sid in named]
        ended = super().end(named, now, user=user)
        for prior in priors:
            if prior is not None:
                del self._ended[prior]
        return ended


class EndRevokesTheUser(MemoryDriver):
    """Ends one session by revoking its user, which keeps log-ins out."""

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        if user is not None:
            self._fences[user] = now
        return super().end(sids, now, user=user)


class EndFails(MemoryDriver):
    """Takes a sid that names no session for an error."""

    def end(self, sids: Iterable[str], now: float, *, user: str | None = None) -> int:
        named = list(sids)
        assert not self.missing(named, now)
        return super().end(named, now, user=user)


# -- rule 10


class NotesAreText(MemoryDriver):
    """Stores a note as text."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        note = None if delta.note is None else delta.note.decode(errors="replace").encode()
        return super()._apply(held, replace(delta, note=note))


class NotesAreForgotten(MemoryDriver):
    """Loses a note with the next change."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        return super()._apply(held, replace(delta, note=delta.note or b""))


class NotesAreNotListed(MemoryDriver):
    """Leaves the note to those who load the session."""

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        return [replace(info, note=b"") for info in super().sessions_of(user, now)]


class NotesEndWithARotation(MemoryDriver):
    """Files a session anew without its note."""

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        return super().rotate(old, new, replace(delta, note=delta.note or b""), grace, now)


class NotesAreNotEmptied(MemoryDriver):
    """Takes an empty note for none."""

    def _apply(self, held: _StoredSession, delta: Delta) -> Committed:
        return super()._apply(held, replace(delta, note=delta.note or None))


class NotesComeLater(MemoryDriver):
    """Takes the note of a change and not that of a new session."""

    def create(self, record: Record, now: float) -> Answer:
        return super().create(replace(record, note=b""), now)


class NotesAreWrittenFirst(MemoryDriver):
    """Writes the note before it finds out that the change is refused."""

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        if delta.note is not None:
            super().commit(digest, Delta(note=delta.note), now)
        return super().commit(digest, delta, now)
