"""What each operation does on a SQL server, statement by statement.

All transactions of the driver take their locks in one order, so that none waits for another in a circle:

1. the fence of a user (a row of `fence`),
2. sessions (rows of `session`), one, or those of a user by rising id,
3. tombstones (rows of `ended`) of digests that belong to no session, or to the sessions that are locked already,
4. values, which are only ever written under the lock of their session.

MariaDB locks an entry of an index before the row that it leads to, and writing a row needs the entries of all indexes.
There a session is locked by its digest first, as almost everybody finds it; only then are a user's sessions sought.

What a transaction reads without a lock may be older than the locks that it gets later. So a decision is made on rows
that are locked, or that nobody changes but under a lock that is held.

Two transactions that insert different rows do not see each other before they commit, whatever they look for. Wherever
both must not succeed, both therefore write one row, on which the second waits for the first:

- A log-in and `revoke_user`: the row of `fence`. The log-in writes it too, without raising the fence. If the
  log-in is first, the revocation waits for it and then finds its session; if the revocation is first, the log-in waits
  and then finds the fence.
- `create` (or the new digest of a rotation) and the revocation of a digest that is not there yet: the row of `ended`.
  The request that files a session under a new digest inserts that row as a guard, and deletes it before the end. A
  revocation that finds no session writes the tombstone into that row, waiting if the guard is there, and then looks for
  the session once more. Two creations under one digest wait for each other there too.

What an operation locks and reads is sent in one message, and what it writes, with the COMMIT, in another; in between it
decides. The statements of a message are done in their order, and each sees what was committed when it began: so the
order of locks and the age of what is read are the same as if they were sent one by one.

A sweep takes what it can lock without waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar, cast

from coatcheck.drivers._rows import Found, found_in, record_of
from coatcheck.drivers._rules import ended_at, prior_state
from coatcheck.drivers._steps import Steps
from coatcheck.drivers.sql.statement import BEGIN, Again, Row, Statement, Wants, count_of, rows_of, together
from coatcheck.drivers.sql.tables import Tables
from coatcheck.errors import ConfigurationError
from coatcheck.record import (
    TOMBSTONE,
    USER_FENCE,
    Missing,
    Reason,
    Record,
    SessionInfo,
    Value,
    ValueKey,
)

__all__ = ["CHUNK", "Common", "Tombstone", "in_chunks", "judged"]

T = TypeVar("T")

Tombstone = tuple[bytes, Reason, float, str | None]
"""The digest, why it opens nothing, when it ended, and the sid for one who comes to end the session."""

CHUNK: Final = 500
"""Rows, keys or digests of one statement."""

MOST_LOCKED: Final = 50
"""Sessions that one statement locks by their digests."""

_SEE_ALL: Final = frozenset({"read committed", "read uncommitted"})


def in_chunks(things: Sequence[T], size: int = CHUNK) -> Iterable[Sequence[T]]:
    """Return *things* in parts that one statement takes."""
    for start in range(0, len(things), size):
        yield things[start : start + size]


class Common(Tables):
    """Reading, ending and sweeping: all operations but those of `writing`."""

    # -- reading

    def load(self, digest: bytes, now: float) -> Steps[Record | Missing]:
        """See `Driver.load`. A digest goes from current to prior to ended, never back, and is sought in that order."""
        sql = self.dialect.sql
        rows = yield from rows_of(sql.load, (digest,))
        if rows:
            return _record_in(rows, digest, now, stale=False)
        rows = yield from rows_of(sql.load_prior, (digest,))
        found = _record_in(rows, digest, now, stale=True) if rows else (yield from self._why_not(digest, now))
        if isinstance(found, Missing) and found.reason is Reason.ROTATED:
            rows = rows or (yield from rows_of(sql.load_heir, (digest,)))
            heir = _record_in(rows, b"", now, stale=False) if rows else None
            return Missing(found.reason, heir if isinstance(heir, Record) else None, found.ended)
        return found

    def _why_not(self, digest: bytes, now: float) -> Steps[Missing]:
        rows = yield from rows_of(self.dialect.sql.why_not, (digest,))
        return _tombstone(rows, now)

    def sessions_of(self, user: str, now: float) -> Steps[list[SessionInfo]]:
        """See `Driver.sessions_of`."""
        rows = yield from rows_of(self.dialect.sql.of_user, (user,))
        found = (found_in(row, by_prior=False) for row in rows)
        return [session.info for session in found if session is not None and session.info.expires > now]

    def missing(self, sids: Iterable[str], now: float) -> Steps[set[str]]:
        """See `Driver.missing`."""
        wanted = list(dict.fromkeys(sids))
        dead = set(wanted)
        for chunk in in_chunks(wanted):
            rows = yield from rows_of(*self.dialect.sql.alive(chunk, now))
            dead.difference_update(cast("str", row[0]) for row in rows)
        return dead

    # -- finding a session that may be written

    def _seek(self, digest: bytes) -> Steps[tuple[Row | None, bool]]:
        """Lock the row that *digest* opens, and return it, and whether it has a successor."""
        rows = yield from rows_of(self.dialect.sql.find, (digest,))
        if rows:
            return rows[0], False
        rows = yield from rows_of(self.dialect.sql.find_prior, (digest,))
        return (rows[0], True) if rows else (None, False)

    def _why_not_now(self, digest: bytes, now: float) -> Steps[Reason]:
        """Return why *digest* opens nothing, also where the transaction sees something older."""
        rows = yield from rows_of(self.dialect.sql.why_not_now, (digest,))
        return _tombstone(rows, now).reason

    def _sees_all(self) -> Steps[None]:
        """See to it that what is to be removed is seen, however new it is.

        Raises:
            ConfigurationError: The application's transaction does not see what others committed since it began.
        """
        if self.dialect.snapshot is None:
            return
        ((level,),) = yield from rows_of(self.dialect.snapshot.text)
        if level not in _SEE_ALL:
            raise ConfigurationError(
                f"the transaction on the connection that was lent is {str(level).upper()}, and would leave behind what"
                " others wrote since it began: log in, log out, clear and revoke at READ COMMITTED, or without the"
                " application's connection"
            )

    # -- fences and tombstones

    def _fencing(self, user: str | None, now: float) -> tuple[Statement, ...]:
        """Return what keeps revocations of *user* waiting and finds the last one. Before any session is locked."""
        if user is None:
            return ()
        sql = self.dialect.sql
        return (
            Statement(sql.raise_fence, (user, 0.0, now + USER_FENCE)),
            Statement(sql.fence, (user,), Wants.ROWS),
        )

    def _ending(self, ended: Sequence[Tombstone]) -> Iterable[Statement]:
        """Return what leaves tombstones."""
        each = {row[0]: row for row in ended}  # a digest may be named twice
        for chunk in in_chunks([each[digest] for digest in sorted(each)]):
            rows = ((digest, str(reason), end + TOMBSTONE, sid) for digest, reason, end, sid in chunk)
            yield Statement(self.dialect.sql.end(len(chunk)), tuple(part for row in rows for part in row))

    def _removing(self, sessions: Sequence[object]) -> Iterable[Statement]:
        """Return what removes sessions that are locked, with their values."""
        sql = self.dialect.sql
        for chunk in in_chunks(sessions):
            for text, parameters in (sql.clear(chunk), sql.delete(chunk)):
                yield Statement(text, parameters)

    # -- ending

    def revoke(self, digest: bytes, now: float) -> Steps[bool]:
        """See `Driver.revoke`. The tombstone is left in any case, for a `create` that is still on its way."""
        sql = self.dialect.sql
        yield BEGIN
        yield from self._sees_all()
        row, by_prior = yield from self._seek(digest)
        if row is None:
            found: Found | Reason = yield from self._why_not_now(digest, now)
        else:
            found = judged(row, now, by_prior=by_prior)
        if found is Reason.ROTATED:
            found = yield from self._successor(digest, now)
        ended: list[Tombstone] = [(digest, Reason.REVOKED, now, None)]
        if isinstance(found, Found):
            ended += _digests_of(found, now)
            yield from together(*self._ending(ended), *self._removing([found.id]), ends=True)
            return True
        if row is None:
            *_, filed = yield from together(*self._ending(ended), Statement(sql.filed, (digest, digest), Wants.ROWS))
            if filed:
                raise Again  # a creation that the tombstone waited for: it is to be locked first
        else:  # one that is expired or unreadable ends, too, whatever another clock says
            removed = [] if by_prior else [row[0]]
            yield from together(*self._ending(ended), *self._removing(removed), ends=True)
        return False

    def _successor(self, digest: bytes, now: float) -> Steps[Found | Reason]:
        """Lock the live session that *digest* opened before a rotation took it away, and give it."""
        for statement in (self.dialect.sql.find_prior, self.dialect.sql.find_successor):
            rows = yield from rows_of(statement, (digest,))
            found = found_in(rows[0], by_prior=False) if rows else None
            if found is not None and found.info.expires > now:
                return found
        return Reason.ROTATED

    def revoke_user(self, user: str, now: float, keep: str | None) -> Steps[int]:
        """See `Driver.revoke_user`."""
        sql = self.dialect.sql
        yield BEGIN
        yield from self._sees_all()
        first: tuple[Statement, ...] = (Statement(sql.raise_fence, (user, now, now + USER_FENCE)),)
        locks: tuple[Statement, ...] = (Statement(sql.lock_user, (user,), Wants.ROWS),)
        if self.dialect.locks_indexes:
            _, rows = yield from together(*first, Statement(sql.of_user, (user,), Wants.ROWS))
            first = tuple(self._locking(cast("list[Row]", rows)))
        *_, rows = yield from together(*first, *locks)
        found = [(row[0], found_in(row, by_prior=False)) for row in cast("list[Row]", rows)]
        return (yield from self._end([each for each in found if each[1] is None or each[1].info.sid != keep], now))

    def end(self, sids: Iterable[str], now: float, user: str | None) -> Steps[int]:
        """See `Driver.end`."""
        sql = self.dialect.sql
        chunks = list(in_chunks(sorted(set(sids))))
        yield BEGIN
        yield from self._sees_all()
        first: tuple[Statement, ...] = ()
        if self.dialect.locks_indexes:
            seen = yield from together(*(Statement(*sql.of_sids(chunk), Wants.ROWS) for chunk in chunks))
            first = tuple(self._locking([row for rows in cast("list[list[Row]]", seen) for row in rows]))
        locks = [Statement(*sql.lock_sids(chunk), Wants.ROWS) for chunk in chunks]
        replies = cast("list[list[Row]]", (yield from together(*first, *locks))[len(first) :])
        found = [(row[0], found_in(row, by_prior=False)) for rows in replies for row in rows]
        if user is not None:  # one that cannot be read is nobody's
            found = [each for each in found if each[1] is not None and each[1].info.user == user]
        return (yield from self._end(found, now))

    def _end(self, sessions: Sequence[tuple[object, Found | None]], now: float) -> Steps[int]:
        """End sessions that are locked, and commit; return the number of live ones.

        Args:
            sessions: The id of each, and what it is, or None if it is unreadable.
            now: The present moment.
        """
        ended = [tombstone for _, found in sessions if found is not None for tombstone in _digests_of(found, now)]
        removed = [ident for ident, _ in sessions]
        yield from together(*self._ending(ended), *self._removing(removed), ends=True)
        return sum(found is not None and found.info.expires > now for _, found in sessions)

    def _locking(self, rows: Sequence[Row]) -> Iterable[Statement]:
        """Return what locks the sessions in *rows* by their digests."""
        found = [found_in(row, by_prior=False) for row in rows]
        for chunk in in_chunks(sorted(session.digest for session in found if session is not None), MOST_LOCKED):
            text, digests = self.dialect.sql.lock_digests(chunk)
            yield Statement(text, digests, Wants.ROWS)

    def sweep(self, now: float, limit: int, since: float) -> Steps[int]:
        """See `Driver.sweep`."""
        sql = self.dialect.sql
        if limit <= 0 or not (yield from rows_of(sql.is_dirty, (now, now, now), is_ranged=True))[0][0]:
            return 0  # the usual case takes no locks
        yield BEGIN
        yield from self._sees_all()
        rows = yield from rows_of(sql.expired, (since, now, limit), is_ranged=True)
        removed = yield from together(*self._removing([row[0] for row in rows]))
        rows = yield from rows_of(sql.old_ended, (now, limit), is_ranged=True)
        for chunk in in_chunks([row[0] for row in rows]):
            yield from count_of(*sql.forget_ended(chunk))
        rows = yield from rows_of(sql.old_fences, (now, limit), is_ranged=True)
        for chunk in in_chunks([row[0] for row in rows]):
            yield from count_of(*sql.forget_fences(chunk))
        return sum(cast("list[int]", removed[1::2]))


def _tombstone(rows: Sequence[Row], now: float) -> Missing:
    """Read a row of (reason, expires)."""
    if not rows or cast("float", rows[0][1]) <= now:
        return Missing(Reason.UNKNOWN)
    reason = Reason.ROTATED if rows[0][0] == Reason.ROTATED else Reason.REVOKED
    return Missing(reason, ended=ended_at(cast("float", rows[0][1])))


def judged(row: Row, now: float, *, by_prior: bool) -> Found | Reason:
    """Return the session of a row if it is alive, or say why it is not."""
    found = found_in(row, by_prior=by_prior)
    if found is None:
        return Reason.UNREADABLE
    if found.info.expires <= now:
        return Reason.EXPIRED
    reason = prior_state(found.prior_until, now) if by_prior else None
    return found if reason is None else reason


def _digests_of(found: Found, now: float) -> list[Tombstone]:
    """Return the tombstones of a session that is ended on purpose."""
    ended: list[Tombstone] = [(found.digest, Reason.REVOKED, now, None)]
    if found.prior is not None and prior_state(found.prior_until, now) is not Reason.UNKNOWN:
        ended.append((found.prior, Reason.REVOKED, now, None))
    return ended


def _record_in(rows: Sequence[Row], digest: bytes, now: float, *, stale: bool) -> Record | Missing:
    """Return the session in rows of the statement `load`, or why it is none.

    A value that another program spoilt is left out: to the application it is missing, and its next write replaces it.
    """
    values: dict[ValueKey, Value] = {}
    for row in rows:
        app, key, version, data, number = row[12:]
        content = data if number is None else number
        if (
            (type(content) is bytes or type(content) is int)
            and type(version) is int
            and version > 0
            and type(app) is str
            and type(key) is str
        ):
            values[app, key] = Value(content, version)
    return record_of(rows[0][:12], values, digest, now, stale=stale)
