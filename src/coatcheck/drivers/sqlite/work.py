"""What each operation does, statement by statement, inside a transaction that somebody else begins and ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

from coatcheck.drivers._rows import Found, found_in, planned
from coatcheck.drivers._rules import (
    added,
    checked,
    cleared,
    ended_at,
    failed_bases,
    has_bases,
    is_fenced,
    new_version,
    prior_state,
    rotation_refused,
)
from coatcheck.drivers.sqlite.rows import record_in, value_in
from coatcheck.drivers.sqlite.schema import SQLiteStatements
from coatcheck.record import (
    ABSENT,
    TOMBSTONE,
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
    ValueKey,
)

__all__ = ["Run", "SQLiteWork"]

Run = Callable[..., sqlite3.Cursor]
"""Executes one statement: (text, parameters)."""

_CHUNK: Final = 500  # parameters of one statement: the smallest limit among SQLite's builds is 999


class SQLiteWork:
    """The operations of the contract on the tables with one prefix. Free of state, so threads share it.

    Each method takes *run*, which executes a statement on a connection. All but `load`, `sessions_of`, `missing` and
    `is_dirty` expect an open write transaction, which the caller commits unless the answer is a refusal.
    """

    def __init__(self, statements: SQLiteStatements) -> None:
        self.sql: Final = statements

    # -- reading

    def load(self, run: Run, digest: bytes, now: float) -> Record | Missing:
        """See `Driver.load`. A digest goes from current to prior to ended, never back, and is sought in that order."""
        sql = self.sql
        rows = run(sql.load, (digest,)).fetchall()
        if rows:
            return record_in(rows, digest, now, stale=False)
        rows = run(sql.load_prior, (digest,)).fetchall()
        found = record_in(rows, digest, now, stale=True) if rows else self._why_not(run, digest, now)
        if isinstance(found, Missing) and found.reason is Reason.ROTATED:
            rows = rows or run(sql.load_heir, (digest,)).fetchall()
            heir = record_in(rows, b"", now, stale=False) if rows else None
            return Missing(found.reason, heir if isinstance(heir, Record) else None, found.ended)
        return found

    def _why_not(self, run: Run, digest: bytes, now: float) -> Missing:
        """Return what the tombstone of *digest* says, if there is one."""
        row = run(self.sql.ended, (digest,)).fetchone()
        if row is not None and isinstance(row[1], float) and row[1] > now:
            reason = Reason.ROTATED if row[0] == Reason.ROTATED else Reason.REVOKED
            return Missing(reason, ended=ended_at(row[1]))
        return Missing(Reason.UNKNOWN)

    def sessions_of(self, run: Run, user: str, now: float) -> list[SessionInfo]:
        """See `Driver.sessions_of`."""
        found = (found_in(row, by_prior=False) for row in run(self.sql.of_user, (user,)).fetchall())
        return [session.info for session in found if session is not None and session.info.expires > now]

    def missing(self, run: Run, sids: Iterable[str], now: float) -> set[str]:
        """See `Driver.missing`."""
        wanted = list(dict.fromkeys(sids))
        dead = set(wanted)
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            dead.difference_update(row[0] for row in run(f"{self.sql.alive}({marks})", (now, *chunk)))
        return dead

    def is_dirty(self, run: Run, now: float) -> bool:
        """Check whether a sweep would find anything."""
        return bool(run(self.sql.is_dirty, (now, now, now - USER_FENCE)).fetchone()[0])

    # -- finding a session that may be written

    def _find(self, run: Run, digest: bytes, now: float) -> Found | Reason:
        """Return the live session under *digest*, or why there is none."""
        by_prior = False
        row = run(self.sql.find, (digest,)).fetchone()
        if row is None:
            by_prior = True
            row = run(self.sql.find_prior, (digest,)).fetchone()
            if row is None:
                return self._why_not(run, digest, now).reason
        found = found_in(row, by_prior=by_prior)
        if found is None:
            return Reason.UNREADABLE
        if found.info.expires <= now:
            return Reason.EXPIRED
        if by_prior and (reason := prior_state(found.prior_until, now)) is not None:
            return reason
        return found

    def _is_fenced(self, run: Run, user: str | None, login: float, now: float) -> bool:
        if user is None:
            return False
        row = run(self.sql.fence, (user,)).fetchone()
        return row is not None and type(row[0]) is float and is_fenced(row[0], login, now)

    def _is_delta_fenced(self, run: Run, found: Found, delta: Delta, now: float) -> bool:
        if delta.user is None and delta.auth_time is None:
            return False
        info = found.info
        login = delta.auth_time
        if login is None:  # a user without a moment: as old as the session
            login = info.created if info.auth_time is None else info.auth_time
        return self._is_fenced(run, info.user if delta.user is None else delta.user, login, now)

    # -- writing

    def create(self, run: Run, record: Record, now: float) -> Answer:
        """See `Driver.create`."""
        sql = self.sql
        taken = self._taken(run, record.digest, now)
        if taken is not None:
            return taken
        if run(sql.find_sid, (record.sid,)).fetchone() is not None:
            return Conflict()
        if record.expires <= now:
            return Gone(Reason.EXPIRED)
        login = record.created if record.auth_time is None else record.auth_time
        if self._is_fenced(run, record.user, login, now):
            return Gone(Reason.REVOKED)
        session = run(
            sql.create,
            (
                record.sid, record.digest, record.created, record.seen, record.deadline, record.idle,
                record.absolute, record.user, record.auth_time, record.rotated, record.note or None,
            ),
        ).lastrowid  # fmt: skip
        # SQLite gives the number of a removed session again: what may be left of its values must not be inherited
        run(sql.clear, (session,))
        version = new_version()
        for (app, key), value in record.values.items():
            run(sql.put, (session, app, key, version, value.data))
        return Committed(version)

    def commit(self, run: Run, digest: bytes, delta: Delta, now: float) -> Answer:
        """See `Driver.commit`."""
        found = self._find(run, digest, now)
        if isinstance(found, Reason):
            return Gone(found)
        refusal = self._refusal(run, found, delta, now)
        if refusal is not None:
            return refusal
        until = found.prior_until
        if found.is_fresh:
            until = now + found.grace  # the client has the new token: the old one's time starts to run
        return self._apply(run, found, delta, until)

    def _refusal(self, run: Run, found: Found, delta: Delta, now: float) -> Conflict | Gone | None:
        if self._is_delta_fenced(run, found, delta, now):
            return Gone(Reason.REVOKED)
        if has_bases(delta):

            def version_of(name: ValueKey) -> int:
                value = value_in(run(self.sql.get_value, (found.id, *name)).fetchone())
                return ABSENT if value is None else value.version

            failed = failed_bases(delta, version_of)
            if failed:
                return Conflict(failed)
        return None

    def _apply(self, run: Run, found: Found, delta: Delta, until: float) -> Committed:
        sql, session = self.sql, found.id
        version = new_version()
        self._clear(run, session, delta)
        for name, put in delta.puts.items():
            run(sql.put, (session, *name, version, checked(name, put)))
        for name in delta.drops:
            run(sql.drop, (session, *name))
        counters: dict[ValueKey, int] = {}
        for name, amount in delta.increments.items():
            value = value_in(run(sql.get_value, (session, *name)).fetchone())
            total = added(name, None if value is None else value.data, amount)
            run(sql.put, (session, *name, version, total))
            counters[name] = total
        row = (delta.touch, delta.deadline, delta.user, delta.auth_time, delta.note)
        if until != found.prior_until or any(part is not None for part in row):
            run(sql.update, (*row, until, session))
        return Committed(version, counters)

    def _clear(self, run: Run, session: int, delta: Delta) -> None:
        if not delta.clears and not delta.clear_all:
            return
        if delta.spare:
            # Spoilt names are nobody's: they cannot be spared, and go with the session
            names = [
                name for name in run(self.sql.names, (session,)).fetchall() if type(name[0]) is type(name[1]) is str
            ]
            for name in cleared(delta, names):
                run(self.sql.drop, (session, *name))
        elif delta.clear_all:
            run(self.sql.clear, (session,))
        else:
            for app in delta.clears:
                run(self.sql.clear_app, (session, app))

    # -- rotating

    def rotate(self, run: Run, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Answer:
        """See `Driver.rotate`."""
        found = self._find(run, old, now)
        if isinstance(found, Reason):
            return Gone(found)
        if rotation_refused(found.prior_until, found.rotated, grace, now, by_prior=found.by_prior):
            return Conflict()
        if self._taken(run, new, now) is not None:
            return Conflict()
        refusal = self._refusal(run, found, delta, now)
        if refusal is not None:
            return refusal
        plan = planned(found, old, grace, now)
        for digest, end in plan.dead:
            self._end(run, digest, Reason.ROTATED, end, found.info.sid)
        run(self.sql.rotate, (new, plan.prior, plan.until, grace, now, found.id))
        return self._apply(run, found._replace(prior_until=plan.until), delta, plan.until)

    def _taken(self, run: Run, digest: bytes, now: float) -> Conflict | Gone | None:
        """Return what stands in the way of a new session or token under *digest*, or None."""
        why_not = self._why_not(run, digest, now)
        if why_not.reason.is_tombstone:
            return Gone(why_not.reason)
        if run(self.sql.find, (digest,)).fetchone() is not None:
            return Conflict()
        row = run(self.sql.find_prior, (digest,)).fetchone()
        if row is None:
            return None
        found = found_in(row, by_prior=True)
        is_over = found is not None and prior_state(found.prior_until, now) is Reason.ROTATED
        return Gone(Reason.ROTATED) if is_over else Conflict()

    def _end(self, run: Run, digest: bytes, reason: Reason, end: float, sid: str | None = None) -> None:
        run(self.sql.end, (digest, str(reason), end + TOMBSTONE, sid))

    # -- ending

    def revoke(self, run: Run, digest: bytes, now: float) -> bool:
        """See `Driver.revoke`. The tombstone is left in any case, for a `create` that is still on its way."""
        found = self._find(run, digest, now)
        if found is Reason.ROTATED:
            found = self._successor(run, digest, now)
        self._end(run, digest, Reason.REVOKED, now)
        if isinstance(found, Reason):
            row = run(self.sql.find, (digest,)).fetchone()
            if row is not None:  # expired or unreadable: it ends in any case, whatever another clock says
                self._remove(run, row[0])
            return False
        self._bury(run, found, now)
        return True

    def _successor(self, run: Run, digest: bytes, now: float) -> Found | Reason:
        """Return the live session that *digest* opened before a rotation took it away."""
        for statement in (self.sql.find_prior, self.sql.find_successor):
            row = run(statement, (digest,)).fetchone()
            found = None if row is None else found_in(row, by_prior=False)
            if found is not None and found.info.expires > now:
                return found
        return Reason.ROTATED

    def revoke_user(self, run: Run, user: str, now: float, keep: str | None) -> int:
        """See `Driver.revoke_user`."""
        run(self.sql.set_fence, (user, now))
        ended = 0
        for row in run(self.sql.of_user, (user,)).fetchall():
            found = found_in(row, by_prior=False)
            if found is None:
                self._remove(run, row[0])
            elif found.info.sid != keep:
                self._bury(run, found, now)
                ended += found.info.expires > now
        return ended

    def end(self, run: Run, sids: Iterable[str], now: float, user: str | None) -> int:
        """See `Driver.end`."""
        ended = 0
        for sid in set(sids):
            row = run(self.sql.find_sid, (sid,)).fetchone()
            found = None if row is None else found_in(row, by_prior=False)
            if found is None:
                if row is not None and user is None:
                    self._remove(run, row[0])  # one that cannot be read: whose it is, nobody knows
            elif user is None or found.info.user == user:
                self._bury(run, found, now)
                ended += found.info.expires > now
        return ended

    def _bury(self, run: Run, found: Found, now: float) -> None:
        self._end(run, found.digest, Reason.REVOKED, now)
        if found.prior is not None and prior_state(found.prior_until, now) is not Reason.UNKNOWN:
            self._end(run, found.prior, Reason.REVOKED, now)
        self._remove(run, found.id)

    def _remove(self, run: Run, session: int) -> None:
        run(self.sql.clear, (session,))
        run(self.sql.delete, (session,))

    def tear_down(self, run: Run) -> None:
        """See `Driver.tear_down`."""
        for text in self.sql.drop_tables:
            run(text)

    def sweep(self, run: Run, now: float, limit: int, since: float) -> int:
        """See `Driver.sweep`."""
        expired = run(self.sql.expired, (since, now, limit)).fetchall()
        for (session,) in expired:
            self._remove(run, session)
        run(self.sql.forget_ended, (now, limit))
        run(self.sql.forget_fences, (now - USER_FENCE, limit))
        return len(expired)
