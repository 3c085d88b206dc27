"""The operations of the contract on the files of a folder.

Readers take no lock. A writer holds the session's lock from its look at what is there to its last write, so nothing
that was removed comes back. A log-in holds the lock of the user as well, and so does a revocation of that user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

from coatcheck.drivers._document import (
    Change,
    Document,
    Ended,
    Pointer,
    login_of,
    missing,
    reason_of,
    record_of,
    to_commit,
    to_create,
    to_rotate,
    touches_values,
)
from coatcheck.drivers._rules import is_fenced
from coatcheck.drivers.filesystem.due import Entry, EntryKind
from coatcheck.drivers.filesystem.locks import Locks
from coatcheck.drivers.filesystem.sessions import (
    SESSION,
    Moved,
    Sessions,
    Spoilt,
    digest_name,
    session_name,
    user_name,
)
from coatcheck.record import (
    USER_FENCE,
    Answer,
    Committed,
    Conflict,
    Delta,
    Gone,
    Missing,
    Reason,
    Record,
    SessionInfo,
    Value,
    ValueKey,
)

__all__ = ["FileWork"]

USER: Final = "user-"
DIGEST: Final = "digest-"

_TRIES: Final = 100
_Decide = Callable[[Document, Mapping[ValueKey, Value] | None], Change | Gone | Conflict]


class FileWork:
    """The operations.

    Args:
        sessions: The files.
        locks: The locks.
    """

    def __init__(self, sessions: Sessions, locks: Locks) -> None:
        self._sessions: Final = sessions
        self._locks: Final = locks

    # -- reading

    def load(self, digest: bytes, now: float) -> Record | Missing:
        """See `Driver.load`."""
        try:
            return self._load(digest, now)
        except Spoilt:
            return Missing(Reason.UNREADABLE)

    def _load(self, digest: bytes, now: float) -> Record | Missing:
        named = self._named(digest, now)
        if isinstance(named, Missing):
            return named
        name = session_name(named)
        with ExitStack() as patience:
            for attempt in range(_TRIES):
                if attempt == _TRIES - 1:  # writers were always faster: they wait for this one now
                    patience.enter_context(self._locks.held(SESSION, name))
                session = self._sessions.session(name)
                if session is None:
                    return Missing(Reason.UNKNOWN)
                reason = reason_of(session, digest, now)
                if isinstance(session, Ended) or reason not in (None, Reason.ROTATED):
                    return missing(session, digest, now)
                try:
                    values = self._sessions.values(name, session)
                except Moved:
                    continue
                if reason is not None:
                    return missing(session, digest, now, values)
                return record_of(session, values, digest)
        raise Spoilt  # nobody wrote meanwhile, and its values are not there

    def sessions_of(self, user: str, now: float) -> list[SessionInfo]:
        """See `Driver.sessions_of`. What is listed and is not there any more is taken from the list."""
        found: list[SessionInfo] = []
        for name in self._sessions.of_user(user):
            session = self._peek(name)
            if not isinstance(session, Document) or session.user != user:
                self._heal(user, name)
            elif session.expires > now:
                found.append(session.info)
        if not found:
            self._sessions.tree.check_there()
        return sorted(found, key=lambda info: info.created)

    def missing(self, sids: Iterable[str], now: float) -> set[str]:
        """See `Driver.missing`."""
        found = set()
        for sid in dict.fromkeys(sids):
            session = self._peek(session_name(sid))
            if not isinstance(session, Document) or session.expires <= now:
                found.add(sid)
        if found:
            self._sessions.tree.check_there()
        return found

    def _named(self, digest: bytes, now: float) -> str | Missing:
        """Return the sid that *digest* names, or why it names none."""
        pointer = self._sessions.pointer(digest_name(digest))
        if pointer is None:
            self._sessions.tree.check_there()
            return Missing(Reason.UNKNOWN)
        return pointer.sid if isinstance(pointer, Pointer) else missing(pointer, digest, now)

    def _peek(self, name: str) -> Document | Ended | None:
        """Return what stands under a sid, None for what makes no sense."""
        try:
            return self._sessions.session(name)
        except Spoilt:
            return None

    def _heal(self, user: str, name: str) -> None:
        with self._locks.held(SESSION, name):  # nobody logs in on it just now
            session = self._peek(name)
            if not isinstance(session, Document) or session.user != user:
                self._sessions.forget_user(user, name)

    # -- writing

    @contextmanager
    def _writing(self, name: str, user: str | None) -> Iterator[None]:
        """Hold what a write needs: the user's lock first, where it is a log-in."""
        with ExitStack() as held:
            if user is not None:
                held.enter_context(self._locks.held(USER, user_name(user)))
            held.enter_context(self._locks.held(SESSION, name))
            yield

    def _is_fenced(self, user: str, login: float, now: float) -> bool:
        return is_fenced(self._sessions.fence(user_name(user)), login, now)

    def create(self, record: Record, now: float) -> Answer:
        """See `Driver.create`."""
        name = session_name(record.sid)
        with self._writing(name, record.user):
            try:
                if self._sessions.pointer(digest_name(record.digest)) is not None:
                    return self._taken(record.digest, now)
                there = self._sessions.session(name)
            except Spoilt:
                return Conflict()
            if there is not None:
                return Gone(Reason.REVOKED) if isinstance(there, Ended) else Conflict()
            if record.expires <= now:
                return Gone(Reason.EXPIRED)
            login = record.created if record.auth_time is None else record.auth_time
            if record.user is not None and self._is_fenced(record.user, login, now):
                return Gone(Reason.REVOKED)
            session, values = to_create(record)
            if not self._sessions.point(record.digest, record.sid, now):
                return self._taken(record.digest, now)
            done = Committed(session.version)
            self._write(name, None, Change(session, values, done), record.digest, now)
            return done

    def _taken(self, digest: bytes, now: float) -> Answer:
        """Return what stands under a digest that is not free."""
        try:
            named = self._named(digest, now)
            if isinstance(named, Missing):
                return Gone(named.reason) if named.reason.is_tombstone else Conflict()
            session = self._sessions.session(session_name(named))
        except Spoilt:
            return Conflict()
        reason = None if session is None else reason_of(session, digest, now)
        return Gone(reason) if reason is not None and reason.is_tombstone else Conflict()

    def commit(self, digest: bytes, delta: Delta, now: float) -> Answer:
        """See `Driver.commit`."""

        def decide(session: Document, values: Mapping[ValueKey, Value] | None) -> Change | Gone | Conflict:
            return to_commit(session, values, digest, delta, now)

        return self._change(digest, delta, now, decide, None)

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        """See `Driver.rotate`."""

        def decide(session: Document, values: Mapping[ValueKey, Value] | None) -> Change | Gone | Conflict:
            return to_rotate(session, values, old, new, delta, grace=grace, now=now)

        return self._change(old, delta, now, decide, new)

    def _change(self, digest: bytes, delta: Delta, now: float, decide: _Decide, new: bytes | None) -> Answer:
        """Change a session as *decide* says; *new* is a digest to point at it first."""
        try:
            named = self._named(digest, now)
            if isinstance(named, Missing):
                return Gone(named.reason)
            name = session_name(named)
            user = delta.user
            while True:
                if user is None and delta.auth_time is not None:  # anyone who is logged in proves it once more
                    session = self._sessions.session(name)
                    user = session.user if isinstance(session, Document) else None
                with self._writing(name, user):
                    answer = self._changed(name, digest, delta, now, decide, new, user)
                if answer is not None:
                    return answer
                user = None
        except Spoilt:
            return Gone(Reason.UNREADABLE)

    def _changed(
        self,
        name: str,
        digest: bytes,
        delta: Delta,
        now: float,
        decide: _Decide,
        new: bytes | None,
        user: str | None,
    ) -> Answer | None:
        """Do the change, under the locks of the session and of *user*; None if it is about another user by now."""
        session = self._sessions.session(name)
        reason = Reason.UNKNOWN if session is None else reason_of(session, digest, now)
        if reason is not None or not isinstance(session, Document):
            return Gone(reason or Reason.UNKNOWN)
        login = login_of(session, delta)
        if login is not None:
            if login[0] != user:
                return None
            if self._is_fenced(*login, now):
                return Gone(Reason.REVOKED)
        try:
            values = self._sessions.values(name, session) if touches_values(delta) else None
        except Moved:
            raise Spoilt from None  # nobody writes now
        change = decide(session, values)
        if not isinstance(change, Change):
            return change
        if new is not None and not self._sessions.point(new, session.sid, now):
            return Conflict()
        self._write(name, session, change, new, now)
        return change.done

    def _write(self, name: str, before: Document | None, change: Change, new: bytes | None, now: float) -> None:
        """Write a session; *new* is the digest that was pointed at it for that."""
        try:
            self._sessions.write(name, before, change)
        except FileNotFoundError:  # the folder was removed meanwhile: the next attempt finds the digest free
            if new is not None:
                self._sessions.remove_digest(digest_name(new))
            raise
        if new is not None:
            self._sessions.pointed(new, now)

    # -- ending

    def revoke(self, digest: bytes, now: float) -> bool:
        """See `Driver.revoke`. The tombstone is left in any case, for a `create` that is still on its way."""
        name = digest_name(digest)
        while True:
            try:
                pointer = self._sessions.pointer(name)
            except Spoilt:
                pointer = Ended(0.0)
            if isinstance(pointer, Pointer):
                return self._revoke(session_name(pointer.sid), digest, now)
            with self._locks.held(DIGEST, name):  # a sweep may be about to remove an old one
                if pointer is not None:
                    self._sessions.forbid_again(name, now)
                    return False
                self._sessions.tree.check_there()
                if self._sessions.forbid(name, now):
                    return False

    def _revoke(self, name: str, digest: bytes, now: float) -> bool:
        with self._locks.held(SESSION, name):
            try:
                session = self._sessions.session(name)
            except Spoilt:
                self._sessions.end(name, None, now)
                return False
            if session is None or reason_of(session, digest, now) is Reason.UNKNOWN:
                return False  # rotated away too long ago, or a pointer that leads nowhere
            self._sessions.end(name, session, now)
            return isinstance(session, Document) and session.expires > now

    def revoke_user(self, user: str, now: float, keep: str | None) -> int:
        """See `Driver.revoke_user`. The fence comes first, so anyone who is interrupted can begin again."""
        kept = None if keep is None else session_name(keep)
        ended = 0
        with self._locks.held(USER, user_name(user)):
            self._sessions.set_fence(user_name(user), now)
            for name in self._sessions.of_user(user):
                if name != kept:
                    with self._locks.held(SESSION, name):
                        ended += self._end_of_user(user, name, now)
        return ended

    def _end_of_user(self, user: str, name: str, now: float) -> bool:
        session = self._peek(name)
        if not isinstance(session, Document) or session.user != user:
            self._sessions.forget_user(user, name)
            return False
        self._sessions.end(name, session, now)
        return session.expires > now

    def end(self, sids: Iterable[str], now: float, user: str | None) -> int:
        """See `Driver.end`."""
        ended = 0
        for sid in set(sids):
            name = session_name(sid)
            with self._locks.held(SESSION, name):
                session = self._peek(name)
                if isinstance(session, Document) and user in (None, session.user):
                    self._sessions.end(name, session, now)
                    ended += session.expires > now
        if not ended:
            self._sessions.tree.check_there()
        return ended

    # -- sweeping

    def sweep(self, now: float, limit: int, since: float) -> int:
        """See `Driver.sweep`."""
        removed = others = 0
        for entry in self._sessions.due.entries(now) if limit > 0 else ():
            if entry.kind is EntryKind.SESSION:
                if removed < limit and entry.at >= since:
                    removed += self._sweep_session(entry)
            elif others < limit:
                others += 1
                self._sweep_other(entry, now)
            if removed >= limit and others >= limit:
                break
        if limit > 0:
            self._sessions.tree.remove_leftovers(limit)
        return removed

    def _sweep_session(self, entry: Entry) -> bool:
        """Remove a session that has expired, and return whether it had."""
        with self._locks.held(SESSION, entry.name):
            session = self._peek(entry.name)
            is_over = isinstance(session, Document) and session.expires == entry.at
            if is_over or session is None:
                self._sessions.remove(entry.name, session)
            self._sessions.due.drop(entry)
            return is_over

    def _sweep_other(self, entry: Entry, now: float) -> None:
        if entry.kind is EntryKind.FENCE:
            with self._locks.held(USER, entry.name):
                at = self._sessions.fence(entry.name)
                if at is not None and at + USER_FENCE <= now:
                    self._sessions.remove_fence(entry.name)
                self._sessions.due.drop(entry)
        elif entry.kind is EntryKind.ENDED:
            with self._locks.held(SESSION, entry.name):
                session = self._peek(entry.name)
                if isinstance(session, Ended) and session.until <= now:
                    self._sessions.remove(entry.name, session)
                self._sessions.due.drop(entry)
        else:
            self._sweep_digest(entry, now)

    def _sweep_digest(self, entry: Entry, now: float) -> None:
        """Remove a tombstone that is over, or what a process left that was killed while it made a pointer."""
        try:
            pointer = self._sessions.pointer(entry.name)
        except Spoilt:
            pointer = Ended(0.0)
        if isinstance(pointer, Pointer):
            name = session_name(pointer.sid)
            with self._locks.held(SESSION, name):
                session = self._peek(name)
                if session is None or bytes.fromhex(entry.name) not in (
                    session.digests if isinstance(session, Document | Ended) else ()
                ):
                    self._sessions.remove_digest(entry.name)
                self._sessions.due.drop(entry)
            return
        with self._locks.held(DIGEST, entry.name):
            try:
                pointer = self._sessions.pointer(entry.name)
            except Spoilt:
                pointer = Ended(0.0)
            if isinstance(pointer, Ended) and pointer.until <= now:
                self._sessions.remove_digest(entry.name)
            self._sessions.due.drop(entry)

    def tear_down(self) -> None:
        """See `Driver.tear_down`."""
        if self._sessions.tree.is_made():
            self._sessions.tree.make()  # of which somebody may have removed a part
            with self._locks.all_held(SESSION):
                self._sessions.tree.remove_all()
