"""What each operation asks of one server, or of a primary with its replicas: mostly one script each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from coatcheck.drivers._rules import checked, ended_at, prior_state
from coatcheck.drivers._steps import Operations, Steps
from coatcheck.drivers.redis.keys import Keys, app_field, field_of
from coatcheck.drivers.redis.records import (
    IN_GRACE,
    NOTE,
    REVOKED,
    ROTATED,
    Head,
    head_in,
    mark_in,
    new_version,
    packed,
    session_in,
    stored_form,
    version_text,
)
from coatcheck.drivers.redis.requests import Ask, Effect, Primaries, ask, run
from coatcheck.drivers.redis.scripts import Scripts
from coatcheck.drivers.redis.trouble import Lost
from coatcheck.errors import ConfigurationError, CounterOverflow, NotACounter
from coatcheck.record import (
    Answer,
    Committed,
    Conflict,
    Delta,
    Gone,
    Missing,
    Reason,
    Record,
    SessionInfo,
)

__all__ = ["SCHEMA_VERSION", "RedisOperations", "answer", "schema_checked"]

SCHEMA_VERSION: Final = 1

_CHUNK: Final = 500  # sids of one script, so that it does not hold up the others for long
_SLICE: Final = 500  # keys looked at in one step of a SCAN
_NO_CHANGE: Final = Delta()
_FARTHEST: Final = 1 << 65  # any amount beyond overflows, whatever the counter holds


class RedisOperations(Operations):
    """The operations of the contract, on keys that one script can look at together.

    Args:
        keys: The names of the keys.
        scripts: The scripts.
    """

    def __init__(self, keys: Keys, scripts: Scripts) -> None:
        self.keys: Final = keys
        self.scripts: Final = scripts

    # -- reading

    def load(self, digest: bytes, now: float) -> Steps[Record | Missing]:
        base, slot = self.keys.of_digest(digest)
        fields = yield ask(b"HGETALL", base + b"d:" + digest, slot=slot, may_be_spoilt=True)
        if not isinstance(fields, list):
            return Missing(Reason.UNREADABLE)
        if len(fields) == 2 and fields[0] == b"m":  # noqa: PLR2004 (one field)
            return (yield from self._load_marked(digest, fields[1], now))
        if not fields:
            return Missing(Reason.UNKNOWN)
        found, _, waiting = session_in(fields, digest, now)
        if waiting is not None and isinstance(found, Record) and not (yield from self._see_to(found, waiting, now)):
            return Missing(Reason.REVOKED, ended=now)
        return found

    def _load_marked(self, digest: bytes, raw: bytes, now: float) -> Steps[Record | Missing]:
        """Return what a digest leads to that is not current any more: a session in its grace, or none."""
        kind, ends = mark_in(raw)
        if kind != IN_GRACE and ends <= now:
            return Missing(Reason.UNKNOWN)
        if kind == REVOKED:
            return Missing(Reason.REVOKED, ended=ended_at(ends))
        base, slot = self.keys.of_digest(digest)
        raw, fields = yield run(self.scripts.load, base + b"d:" + digest, slot, Effect.READS, base, digest, repr(now))
        found, head, waiting = session_in(fields, b"", now)
        if waiting is not None and isinstance(found, Record) and not (yield from self._see_to(found, waiting, now)):
            return Missing(Reason.REVOKED, ended=now)
        return _behind(mark_in(raw), digest, found, head, now)

    def sessions_of(self, user: str, now: float) -> Steps[list[SessionInfo]]:
        base, slot = self.keys.of_user(user)
        words = (self.keys.base, b"", repr(now), user)
        reply = yield run(self.scripts.sessions_of, base + b"u", slot, Effect.PREPARES, *words)
        heads = (head_in(*pair) for pair in reply)
        return sorted(
            (head.info for head in heads if head is not None and head.info.expires > now),
            key=lambda info: info.created,
        )

    def missing(self, sids: Iterable[str], now: float) -> Steps[set[str]]:
        letters = yield from self._letters(sids, now)
        waiting = [sid for sid, letter in letters.items() if letter == "w"]
        if waiting:
            yield from self._see_to_all(waiting, now)
            letters |= yield from self._letters(waiting, now)
        return {sid for sid, letter in letters.items() if letter == "-"}

    def _letters(self, sids: Iterable[str], now: float) -> Steps[dict[str, str]]:
        """Return for each sid what scripts/missing.lua says."""
        parts = self._parts(dict.fromkeys(sids))
        replies = yield [
            run(
                self.scripts.missing, base + b"s:" + group[0].encode(), slot, Effect.READS, base, b"", repr(now), *group
            )
            for base, slot, group in parts
        ]
        told = zip(parts, replies, strict=True)
        return {
            sid: letter for (_, _, group), letters in told for sid, letter in zip(group, letters.decode(), strict=True)
        }

    def _parts(self, sids: Iterable[str]) -> list[tuple[bytes, int, list[str]]]:
        """Sort sids into those of one script each: what their keys begin with, the slot, the sids."""
        return [
            (base, slot, group[start : start + _CHUNK])
            for (base, slot), group in self.keys.by_slot(sids).items()
            for start in range(0, len(group), _CHUNK)
            if group
        ]

    # -- writing

    def create(self, record: Record, now: float) -> Steps[Answer]:
        version = new_version()
        reply = yield self._create(record, version, now)
        return answer(reply, _NO_CHANGE, version)

    def _create(self, record: Record, version: int, now: float) -> Ask:
        base, slot = self.keys.of_digest(record.digest)
        text = version_text(version)
        words: list[bytes | str] = [base, record.digest, repr(now), packed(record), text]
        if record.note:
            words += (NOTE, record.note)
        for name, value in record.values.items():
            words += (field_of(name), stored_form(text, value.data))
        return run(self.scripts.create, base + b"d:" + record.digest, slot, Effect.WRITES, *words)

    def commit(self, digest: bytes, delta: Delta, now: float) -> Steps[Answer]:
        version = new_version()
        reply = yield self._commit(digest, delta, now, version)
        return answer(reply, delta, version)

    def _commit(self, digest: bytes, delta: Delta, now: float, version: int) -> Ask:
        base, slot = self.keys.of_digest(digest)
        words = _words(base, digest, delta, version, now)
        return run(self.scripts.commit, base + b"d:" + digest, slot, Effect.WRITES, *words)

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Steps[Answer]:
        version = new_version()
        reply = yield self._rotate(old, new, delta, grace, now, version)
        return answer(reply, delta, version)

    def _rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float, version: int) -> Ask:
        base, slot = self.keys.of_digest(old)
        words = (*_words(base, old, delta, version, now), new, repr(float(grace)))
        return run(self.scripts.rotate, base + b"d:" + old, slot, Effect.WRITES, *words)

    def revoke(self, digest: bytes, now: float) -> Steps[bool]:
        base, slot = self.keys.of_digest(digest)
        words = (base, digest, repr(now))
        reply = yield run(self.scripts.revoke, base + b"d:" + digest, slot, Effect.WRITES, *words)
        return bool(reply)

    def revoke_user(self, user: str, now: float, keep: str | None) -> Steps[int]:
        base, slot = self.keys.of_user(user)
        words = (self.keys.base, b"", repr(now), user, keep or "")
        reply = yield run(self.scripts.revoke_user, base + b"u", slot, Effect.WRITES, *words)
        return int(reply)

    def end(self, sids: Iterable[str], now: float, user: str | None) -> Steps[int]:
        parts = self._parts(dict.fromkeys(sids))
        whose = "" if user is None else f"u{user}"
        replies = yield [
            run(self.scripts.end_sids, base + b"s:" + group[0].encode(), slot, Effect.WRITES, base, b"", repr(now),
                whose, *group)
            for base, slot, group in parts
        ]  # fmt: skip
        return sum(map(int, replies))

    def sweep(self, now: float, limit: int, since: float) -> Steps[int]:
        del now, limit, since
        yield from ()
        return 0  # the server does it

    # -- log-ins that wait to be confirmed: only a cluster has any

    def _see_to(self, found: SessionInfo, waiting: bytes, now: float) -> Steps[bool]:
        """Confirm a log-in that waits, or end its session, and return whether it stands."""
        del found, waiting, now
        yield from ()
        return True

    def _see_to_all(self, sids: list[str], now: float) -> Steps[None]:
        """Do so with the log-ins of many sessions."""
        del sids, now
        yield from ()

    # -- the whole

    def setup(self) -> Steps[None]:
        schema, slot = self.keys.schema, self.keys.slot(self.keys.schema)
        version = str(SCHEMA_VERSION)
        _, found = yield [
            ask(b"SETNX", schema, version, slot=slot, effect=Effect.WRITES),
            ask(b"GET", schema, slot=slot),
        ]
        schema_checked(found)

    def is_set_up(self) -> Steps[bool]:
        found = yield ask(b"GET", self.keys.schema, slot=self.keys.slot(self.keys.schema))
        schema_checked(found)
        return found is not None

    def tear_down(self) -> Steps[None]:
        pattern, is_ours = self.keys.base + b"*", self.keys.is_ours
        for address in (yield Primaries()):
            cursor = b"0"
            while True:
                cursor, found = yield ask(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SLICE, address=address)
                ours = [key for key in found if is_ours(key)]
                if ours:
                    yield [ask(b"UNLINK", key, effect=Effect.WRITES, address=address) for key in ours]
                if cursor == b"0":
                    break


def schema_checked(found: Any) -> None:
    """Refuse to work with what another version of coatcheck stored.

    Raises:
        ConfigurationError: The version found is another one.
    """
    if found is not None and found != str(SCHEMA_VERSION).encode():
        raise ConfigurationError(
            f"the sessions on this Redis server have the schema version {found!r}, and this coatcheck knows "
            f"{SCHEMA_VERSION}: update coatcheck, or give it another prefix"
        )


def _behind(
    mark: tuple[bytes, float], digest: bytes, found: Record | Missing, head: Head | None, now: float
) -> Record | Missing:
    """Return what a digest with a mark opens, where *found* is the session that it once opened."""
    kind, ends = mark
    heir = found if isinstance(found, Record) else None
    if kind == IN_GRACE:
        if head is None or head.prior != digest:
            return Missing(Reason.UNKNOWN)
        if heir is None:
            return found
        reason = prior_state(head.ends, now)
        if reason is None:
            heir.digest, heir.fresh, heir.stale = digest, False, True
            return heir
        return Missing(reason, heir if reason is Reason.ROTATED else None, head.ends)
    if ends <= now:
        return Missing(Reason.UNKNOWN)
    if kind == ROTATED:
        return Missing(Reason.ROTATED, heir, ended_at(ends))
    return Missing(Reason.REVOKED, ended=ended_at(ends))


def _words(base: bytes, digest: bytes, delta: Delta, version: int, now: float) -> list[bytes | str | int]:
    """Return a Delta as the arguments of a script; see scripts/_delta.lua.

    Raises:
        CounterOverflow: It puts a counter outside 64 signed bits.
    """
    text = version_text(version)
    touch = "" if delta.touch is None else f"{'~' if delta.if_due else ''}{delta.touch!r}"
    more = _more_words(delta)
    words: list[bytes | str | int] = [base, digest, repr(now), text, touch]
    words += (len(delta.puts), len(delta.increments), "more" if more else "")
    for name, put in delta.puts.items():
        words += (field_of(name), version_text(put.base), stored_form(text, checked(name, put)))
    for name, amount in delta.increments.items():
        words += (field_of(name), str(max(-_FARTHEST, min(_FARTHEST, amount))))
    return words + more


def _more_words(delta: Delta) -> list[bytes | str | int]:
    """Return what else a Delta has, beside puts and increments; nothing if it has nothing else."""
    is_head_kept = delta.deadline is None and delta.auth_time is None and delta.user is None and delta.note is None
    if is_head_kept and not (delta.clear_all or delta.drops or delta.clears):
        return []
    words: list[bytes | str | int] = [
        "" if delta.deadline is None else repr(delta.deadline),
        "" if delta.auth_time is None else repr(delta.auth_time),
        "" if delta.user is None else f"u{delta.user}",
        b"" if delta.note is None else b"n%b" % delta.note,
        b"*" if delta.clear_all else b"",
        len(delta.drops),
        len(delta.clears),
        len(delta.spare),
    ]
    for name, base_version in delta.drops.items():
        words += (field_of(name), version_text(base_version))
    words += (app_field(app) for app in delta.clears)
    words += (field_of(name) for name in delta.spare)
    return words


def answer(reply: Any, delta: Delta, version: int) -> Answer:
    """Return the answer to a change.

    Raises:
        NotACounter: The change increments a value that is bytes.
        CounterOverflow: It increments a counter beyond 64 signed bits.
        Lost: The reply is none that the scripts give.
    """
    counters = tuple(delta.increments)
    match reply:
        case 1 if not counters:
            return Committed(version)
        case [b"gone", reason]:
            return Gone(Reason(reason.decode()))
        case [b"conflict", *failed]:
            names = (*delta.puts, *delta.drops)
            return Conflict(tuple(names[number - 1] for number in failed))
        case [b"no counter", number]:
            raise NotACounter(*counters[number - 1])
        case [b"overflow", number]:
            raise CounterOverflow(*counters[number - 1])
        case [b"done", *totals] if len(totals) == len(counters):
            return Committed(version, dict(zip(counters, map(int, totals), strict=True)))
    raise Lost("the reply makes no sense")
