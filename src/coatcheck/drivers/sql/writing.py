"""The operations that write a session: create, commit and rotate. The order of locks is told in `work`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple, cast

from coatcheck.drivers._rows import Found, found_in, planned
from coatcheck.drivers._rules import (
    added,
    checked,
    cleared,
    failed_bases,
    has_bases,
    is_fenced,
    new_version,
    prior_state,
    rotation_refused,
)
from coatcheck.drivers._steps import Steps
from coatcheck.drivers.sql.dialect import By
from coatcheck.drivers.sql.statement import BEGIN, Again, Reply, Row, Statement, Wants, rows_of, together
from coatcheck.drivers.sql.work import CHUNK, Common, in_chunks, judged
from coatcheck.record import ABSENT, Answer, Committed, Conflict, Delta, Gone, Reason, Record, ValueKey

__all__ = ["SQLOperations"]

Held = dict[ValueKey, tuple[int, int | None]]
"""What is stored of some values: the version, and the number of a counter."""


MOST_BYTES: Final = 1 << 20
"""The bytes of values that one statement takes, unless it is a single value."""


class _Locked(NamedTuple):
    """A session that is locked, and what was found out in the same round trip.

    Attributes:
        found: The session, or why there is none.
        fence: Who logs in, and when that user was last revoked, 0 for never; None if nobody logs in.
        held: What is stored of the values that the change depends on.
        names: The names of all values, if the change clears all but some.
        answers: The replies to what else was sent.
    """

    found: Found | Reason
    fence: tuple[str | None, float] | None
    held: Held
    names: Sequence[Row]
    answers: Sequence[Reply]


class SQLOperations(Common):
    """The operations of the contract on a SQL server, in any dialect."""

    # -- create

    def create(self, record: Record, now: float) -> Steps[Answer]:
        """See `Driver.create`."""
        yield BEGIN
        fencing = self._fencing(record.user, now)
        replies = yield from together(*fencing, *self._filing(record.digest))
        fence = _moment(replies[: len(fencing)])
        taken = yield from self._taken(record.digest, replies[-2:], now)
        if taken is not None:
            return taken
        if record.expires <= now:
            return Gone(Reason.EXPIRED)
        if is_fenced(fence, record.created if record.auth_time is None else record.auth_time, now):
            return Gone(Reason.REVOKED)
        version = new_version()
        replies = yield from together(
            Statement(
                self.dialect.sql.create,
                (
                    record.sid, record.digest, record.created, record.seen, record.deadline, record.idle,
                    record.absolute, record.user, record.auth_time, record.rotated, 0.0, 0.0, record.note or None,
                ),
                Wants.ID,
            ),
            *(
                self.dialect.put_new(record.digest, count, rows)
                for count, rows in _in_rows((), version, ((name, value.data) for name, value in record.values.items()))
            ),
            Statement(self.dialect.sql.unguard, (record.digest,)),
            ends=True,
        )  # fmt: skip
        return Conflict() if replies[0] is None else Committed(version)  # or the sid is in use: nothing was written

    def _filing(self, digest: bytes) -> tuple[Statement, Statement]:
        """Return what keeps others from using *digest*, and looks who does: the replies are for `_taken`."""
        sql = self.dialect.sql
        return Statement(sql.guard, (digest,)), Statement(sql.taken, (digest, digest), Wants.ROWS)

    def _taken(self, digest: bytes, replies: Sequence[Reply], now: float) -> Steps[Conflict | Gone | None]:
        """Return what stands in the way of *digest*, or None: then the guard must be taken away (`unguard`)."""
        is_guarded, rows = replies
        if not is_guarded:
            tombstone = yield from rows_of(self.dialect.sql.ended, (digest,))
            if not tombstone:  # swept away between the two
                raise Again
            reason, expires = tombstone[0]
            if cast("float", expires) > now:
                return Gone(Reason.ROTATED if reason == Reason.ROTATED else Reason.REVOKED)
        for row in cast("list[Row]", rows):
            found = found_in(row, by_prior=True)
            if found is None or found.prior != digest or prior_state(found.prior_until, now) is not Reason.ROTATED:
                return Conflict()
            return Gone(Reason.ROTATED)
        return None

    # -- commit

    def commit(self, digest: bytes, delta: Delta, now: float) -> Steps[Answer]:
        """See `Driver.commit`. What takes one statement is done by one, if that finds something to change."""
        version = new_version()
        single = self.dialect.single(digest, delta, now, version)
        if single is not None:
            rows = yield single.statement._replace(wants=Wants.ROWS, alone=True)
            if rows:
                counter = single.counter
                return Committed(version, {} if counter is None else {counter: cast("int", rows[0][0])})
        yield BEGIN
        locked = yield from self._lock(digest, delta, now)
        found = locked.found
        if isinstance(found, Reason):
            return Gone(found)
        refusal = _refusal(found, delta, locked, now)
        if refusal is not None:
            return refusal
        until = found.prior_until
        if found.is_fresh:
            until = now + found.grace  # the client has the new token: the old one's time starts to run
        return (yield from self._apply(found, delta, until, version, locked))

    def _lock(self, digest: bytes, delta: Delta, now: float, *more: Statement) -> Steps[_Locked]:
        """Lock the session under *digest*, after the fence of the user who logs in by *delta*, and look at its values.

        Args:
            digest: The session's digest: the current one, or the prior.
            delta: What is to be done to it.
            now: The present moment.
            more: What is to be done after that, in the same round trip.

        Raises:
            Again: The fence was swept away.
        """
        sql = self.dialect.sql
        user = yield from self._user_of(digest, delta)
        fencing = self._fencing(user, now)
        find = Statement(sql.find, (digest,), Wants.ROWS, waits=True)
        find_prior = Statement(sql.find_prior, (digest,), Wants.ROWS)
        looks = self._looking("digest", digest, delta)
        replies = iter((yield from together(*fencing, find, *((find_prior, *more) if more else ()), *looks)))
        moment = _moment(list(islice(replies, len(fencing))))
        rows = next(replies)
        by_prior = not rows
        if more:
            rows = next(replies) or rows
        elif by_prior:
            (rows,) = yield from together(find_prior)
        answers = list(islice(replies, len(more)))
        looked = list(replies)
        if by_prior and rows:
            looked = yield from together(*self._looking("prior", digest, delta))
        if rows:
            found = judged(cast("list[Row]", rows)[0], now, by_prior=by_prior)
        else:
            found = yield from self._why_not_now(digest, now)
        names = cast("list[Row]", looked.pop()) if _needs_names(delta) and looked else []
        held = {
            cast("ValueKey", (app, key)): cast("tuple[int, int | None]", (version, number))
            for each in cast("list[list[Row]]", looked)
            for app, key, version, number in each
        }
        return _Locked(found, (user, moment) if _logs_in(delta) else None, held, names, answers)

    def _user_of(self, digest: bytes, delta: Delta) -> Steps[str | None]:
        """Return who logs in by *delta*, or None.

        That may depend on the session, which is not to be locked before the fence: it is looked at twice.
        """
        if delta.user is not None or not _logs_in(delta):
            return delta.user
        rows = yield from rows_of(self.dialect.sql.peek, (digest, digest))
        found = rows[0][0] if rows else None
        return found if isinstance(found, str) else None  # neither None nor text is unreadable, and not written to

    def _looking(self, by: By, digest: bytes, delta: Delta) -> tuple[Statement, ...]:
        """Return what looks up all that *delta* depends on: versions and counters, and names for a clear."""
        sql = self.dialect.sql
        wanted = list(delta.increments)
        if has_bases(delta):
            wanted += [name for name, put in delta.puts.items() if put.base is not None]
            wanted += [name for name, base in delta.drops.items() if base is not None]
        looks = [Statement(*sql.versions(by, digest, chunk), Wants.ROWS) for chunk in in_chunks(wanted)]
        if _needs_names(delta):
            looks.append(Statement(sql.names[by], (digest,), Wants.ROWS))
        return tuple(looks)

    def _apply(
        self, found: Found, delta: Delta, until: float, version: int, locked: _Locked, *first: Statement
    ) -> Steps[Committed]:
        """Write *delta* to a session that is locked, after the statements in *first*, and commit."""
        sql, session = self.dialect.sql, found.id
        counters = _counters(delta, locked.held)
        if delta.clears or delta.clear_all:
            yield from self._sees_all()
        puts = ((name, checked(name, put)) for name, put in delta.puts.items())
        row = (delta.touch, delta.deadline, delta.user, delta.auth_time, delta.note)
        is_changed = until != found.prior_until or any(part is not None for part in row)
        yield from together(
            *first,
            *self._clearing(session, delta, locked.names),
            *self._putting(session, version, puts),
            *(Statement(*sql.drop(session, chunk)) for chunk in in_chunks(list(delta.drops))),
            *self._putting(session, version, counters.items()),
            *([Statement(sql.update, (*row, until, session))] if is_changed else []),
            ends=True,
        )
        return Committed(version, counters)

    def _clearing(self, session: object, delta: Delta, names: Sequence[Row]) -> Iterable[Statement]:
        """Return what clears values, of which there are *names* if some are spared."""
        sql = self.dialect.sql
        if _needs_names(delta):
            # what is no text belongs to a value that nobody can read or write
            there = [(app, key) for app, key in names if isinstance(app, str) and isinstance(key, str)]
            for chunk in in_chunks(cleared(delta, there)):
                yield Statement(*sql.drop(session, chunk))
        elif delta.clear_all:
            yield Statement(*sql.clear([session]))
        elif delta.clears:
            yield Statement(*sql.clear_apps(session, sorted(delta.clears)))

    def _putting(
        self, session: object, version: int, values: Iterable[tuple[ValueKey, bytes | int]]
    ) -> Iterable[Statement]:
        """Return what writes values whatever was there."""
        for count, rows in _in_rows((session,), version, values):
            yield Statement(self.dialect.sql.put(count), rows)

    # -- rotate

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Steps[Answer]:
        """See `Driver.rotate`."""
        sql = self.dialect.sql
        yield BEGIN
        locked = yield from self._lock(old, delta, now, *self._filing(new))
        found = locked.found
        if isinstance(found, Reason):
            return Gone(found)
        if rotation_refused(found.prior_until, found.rotated, grace, now, by_prior=found.by_prior):
            return Conflict()
        if (yield from self._taken(new, locked.answers, now)) is not None:
            return Conflict()
        refusal = _refusal(found, delta, locked, now)
        if refusal is not None:
            return refusal
        plan = planned(found, old, grace, now)
        first = (
            *self._ending([(digest, Reason.ROTATED, end, found.info.sid) for digest, end in plan.dead]),
            Statement(sql.rotate, (new, plan.prior, plan.until, grace, now, found.id)),
            Statement(sql.unguard, (new,)),
        )
        rotated = found._replace(prior_until=plan.until)
        return (yield from self._apply(rotated, delta, plan.until, new_version(), locked, *first))


def _logs_in(delta: Delta) -> bool:
    return delta.user is not None or delta.auth_time is not None


def _needs_names(delta: Delta) -> bool:
    """Return whether *delta* clears all values but some."""
    return bool(delta.spare) and (delta.clear_all or bool(delta.clears))


def _moment(replies: Sequence[Reply]) -> float:
    """Return when a user was last revoked, from the replies to `Common._fencing`; 0 for never.

    Raises:
        Again: The fence was swept away between the two.
    """
    if not replies:
        return 0.0
    rows = cast("list[Row]", replies[1])
    if not rows:
        raise Again
    return cast("float", rows[0][0])


def _in_rows(
    head: tuple[object, ...], version: int, values: Iterable[tuple[ValueKey, bytes | int]]
) -> Iterable[tuple[int, tuple[object, ...]]]:
    """Return values as the parameters of as few statements as their number and size allow, and how many each takes.

    Args:
        head: What each row begins with.
        version: The version that they get.
        values: Their names and contents.
    """
    rows: list[object] = []
    count = size = 0
    for (app, key), data in values:
        is_counter = isinstance(data, int)
        length = 0 if isinstance(data, int) else len(data)
        if count == CHUNK or (count and size + length > MOST_BYTES):
            yield count, tuple(rows)
            rows, count, size = [], 0, 0
        rows += (*head, app, key, version, None if is_counter else data, data if is_counter else None)
        count, size = count + 1, size + length
    if count:
        yield count, tuple(rows)


def _refusal(found: Found, delta: Delta, locked: _Locked, now: float) -> Conflict | Gone | None:
    """Return why *delta* must not be applied to the session that is locked now, or None.

    Raises:
        Again: The session has changed hands since its user's fence was locked.
    """
    if locked.fence is not None:
        user, moment = locked.fence
        info = found.info
        if user != (info.user if delta.user is None else delta.user):
            raise Again
        login = delta.auth_time
        if login is None:  # a user without a moment: as old as the session
            login = info.created if info.auth_time is None else info.auth_time
        if is_fenced(moment, login, now):
            return Gone(Reason.REVOKED)
    held = locked.held
    failed = failed_bases(delta, lambda name: held[name][0] if name in held else ABSENT)
    return Conflict(failed) if failed else None


def _counters(delta: Delta, held: Held) -> dict[ValueKey, int]:
    """Return what the counters hold after the increments of *delta*.

    Raises:
        NotACounter: One holds bytes.
        CounterOverflow: One would not fit 64 signed bits.
    """
    totals: dict[ValueKey, int] = {}
    emptied = set(cleared(delta, delta.increments))
    for name, amount in delta.increments.items():
        before: bytes | int | None = None
        if name in held and name not in emptied:
            number = held[name][1]
            before = b"" if number is None else number
        totals[name] = added(name, before, amount)
    return totals
