"""The operations that write a session: create, commit and rotate. The order of locks is told in `work`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

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
from coatcheck.drivers.sql.statement import BEGIN, Again, Statement, Wants, count_of, rows_of
from coatcheck.drivers.sql.work import CHUNK, Common, in_chunks
from coatcheck.record import ABSENT, Answer, Committed, Conflict, Delta, Gone, Reason, Record, ValueKey

__all__ = ["SQLOperations"]

Held = dict[ValueKey, tuple[int, int | None]]
"""What is stored of some values: the version, and the number of a counter."""

Fence = tuple[str | None, float]
"""Who logs in, and when that user was last revoked; 0 for never."""

MOST_BYTES: Final = 1 << 20
"""The bytes of values that one statement takes, unless it is a single value."""


class SQLOperations(Common):
    """The operations of the contract on a SQL server, in any dialect."""

    # -- create

    def create(self, record: Record, now: float) -> Steps[Answer]:
        """See `Driver.create`."""
        yield BEGIN
        login = record.created if record.auth_time is None else record.auth_time
        fence = 0.0 if record.user is None else (yield from self._fence_of(record.user, now))
        taken = yield from self._taken(record.digest, now)
        if taken is not None:
            return taken
        if record.expires <= now:
            return Gone(Reason.EXPIRED)
        if is_fenced(fence, login, now):
            return Gone(Reason.REVOKED)
        session = yield Statement(
            self.dialect.sql.create,
            (
                record.sid, record.digest, record.created, record.seen, record.deadline, record.idle,
                record.absolute, record.user, record.auth_time, record.rotated, 0.0, 0.0, record.note or None,
            ),
            Wants.ID,
        )  # fmt: skip
        if session is None:  # the sid is in use
            return Conflict()
        version = new_version()
        yield from self._write(session, version, ((name, value.data) for name, value in record.values.items()))
        yield from count_of(self.dialect.sql.unguard, (record.digest,))
        return Committed(version)

    def _taken(self, digest: bytes, now: float) -> Steps[Conflict | Gone | None]:
        """Keep others from using *digest*, and say what stands in its way, or None.

        Where nothing does, the guard has to be taken away in the end (`unguard`).
        """
        sql = self.dialect.sql
        if not (yield from count_of(sql.guard, (digest,))):
            rows = yield from rows_of(sql.ended, (digest,))
            if not rows:  # swept away between the two
                raise Again
            reason, expires = rows[0]
            if cast("float", expires) > now:
                return Gone(Reason.ROTATED if reason == Reason.ROTATED else Reason.REVOKED)
        for row in (yield from rows_of(sql.taken, (digest, digest))):
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
        fence = yield from self._fence_of_delta(digest, delta, now)
        found = yield from self._find(digest, now)
        if isinstance(found, Reason):
            return Gone(found)
        held = yield from self._held(found, delta)
        refusal = _refusal(found, delta, fence, held, now)
        if refusal is not None:
            return refusal
        until = found.prior_until
        if found.is_fresh:
            until = now + found.grace  # the client has the new token: the old one's time starts to run
        return (yield from self._apply(found, delta, until, version, held))

    def _fence_of_delta(self, digest: bytes, delta: Delta, now: float) -> Steps[Fence | None]:
        """Lock the fence of whoever logs in by *delta*, or None where nobody does.

        Who that is may depend on the session, which is not to be locked before the fence: it is looked at twice.
        """
        if delta.user is None and delta.auth_time is None:
            return None
        user = delta.user
        if user is None:
            rows = yield from rows_of(self.dialect.sql.peek, (digest, digest))
            found = rows[0][0] if rows else None
            user = found if isinstance(found, str) else None  # neither None nor text is unreadable, and not written to
        return user, 0.0 if user is None else (yield from self._fence_of(user, now))

    def _held(self, found: Found, delta: Delta) -> Steps[Held]:
        """Look up what *delta* depends on."""
        wanted = list(delta.increments)
        if has_bases(delta):
            wanted += [name for name, put in delta.puts.items() if put.base is not None]
            wanted += [name for name, base in delta.drops.items() if base is not None]
        held: Held = {}
        for chunk in in_chunks(wanted):
            for app, key, version, number in (yield from rows_of(*self.dialect.sql.versions(found.id, chunk))):
                held[cast("ValueKey", (app, key))] = cast("tuple[int, int | None]", (version, number))
        return held

    def _apply(self, found: Found, delta: Delta, until: float, version: int, held: Held) -> Steps[Committed]:
        sql, session = self.dialect.sql, found.id
        counters = _counters(delta, held)
        yield from self._clear(session, delta)
        yield from self._write(session, version, ((name, checked(name, put)) for name, put in delta.puts.items()))
        for chunk in in_chunks(list(delta.drops)):
            yield from count_of(*sql.drop(session, chunk))
        yield from self._write(session, version, counters.items())
        row = (delta.touch, delta.deadline, delta.user, delta.auth_time, delta.note)
        if until != found.prior_until or any(part is not None for part in row):
            yield from count_of(sql.update, (*row, until, session))
        return Committed(version, counters)

    def _clear(self, session: object, delta: Delta) -> Steps[None]:
        sql = self.dialect.sql
        if delta.clears or delta.clear_all:
            yield from self._sees_all()
        if delta.spare and (delta.clears or delta.clear_all):
            rows = yield from rows_of(sql.names, (session,))
            # what is no text belongs to a value that nobody can read or write
            names = [(app, key) for app, key in rows if isinstance(app, str) and isinstance(key, str)]
            for chunk in in_chunks(cleared(delta, names)):
                yield from count_of(*sql.drop(session, chunk))
        elif delta.clear_all:
            yield from count_of(*sql.clear([session]))
        elif delta.clears:
            yield from count_of(*sql.clear_apps(session, sorted(delta.clears)))

    def _write(self, session: object, version: int, values: Iterable[tuple[ValueKey, bytes | int]]) -> Steps[None]:
        """Write values, in as few statements as their number and size allow."""
        rows: list[object] = []
        count = size = 0
        for (app, key), data in values:
            is_counter = isinstance(data, int)
            length = 0 if isinstance(data, int) else len(data)
            if count == CHUNK or (count and size + length > MOST_BYTES):
                yield from count_of(self.dialect.sql.put(count), tuple(rows))
                rows, count, size = [], 0, 0
            rows += (session, app, key, version, None if is_counter else data, data if is_counter else None)
            count, size = count + 1, size + length
        if count:
            yield from count_of(self.dialect.sql.put(count), tuple(rows))

    # -- rotate

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Steps[Answer]:
        """See `Driver.rotate`."""
        sql = self.dialect.sql
        yield BEGIN
        fence = yield from self._fence_of_delta(old, delta, now)
        found = yield from self._find(old, now)
        if isinstance(found, Reason):
            return Gone(found)
        if rotation_refused(found.prior_until, found.rotated, grace, now, by_prior=found.by_prior):
            return Conflict()
        if (yield from self._taken(new, now)) is not None:
            return Conflict()
        held = yield from self._held(found, delta)
        refusal = _refusal(found, delta, fence, held, now)
        if refusal is not None:
            return refusal
        plan = planned(found, old, grace, now)
        yield from self._end([(digest, Reason.ROTATED, end, found.info.sid) for digest, end in plan.dead])
        yield from count_of(sql.rotate, (new, plan.prior, plan.until, grace, now, found.id))
        yield from count_of(sql.unguard, (new,))
        rotated = found._replace(prior_until=plan.until)
        return (yield from self._apply(rotated, delta, plan.until, new_version(), held))


def _refusal(found: Found, delta: Delta, fence: Fence | None, held: Held, now: float) -> Conflict | Gone | None:
    """Say why *delta* must not be applied to the session that is locked now, or None.

    Raises:
        Again: The session has changed hands since its user's fence was locked.
    """
    if fence is not None:
        user, moment = fence
        info = found.info
        if user != (info.user if delta.user is None else delta.user):
            raise Again
        login = delta.auth_time
        if login is None:  # a user without a moment: as old as the session
            login = info.created if info.auth_time is None else info.auth_time
        if is_fenced(moment, login, now):
            return Gone(Reason.REVOKED)
    failed = failed_bases(delta, lambda name: held[name][0] if name in held else ABSENT)
    return Conflict(failed) if failed else None


def _counters(delta: Delta, held: Held) -> dict[ValueKey, int]:
    """Give what the counters hold after the increments of *delta*.

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
