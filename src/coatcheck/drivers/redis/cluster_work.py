"""What each operation asks of a cluster, where the keys of a user are on another server than those of a session.

A log-in takes three steps, and a revocation of the user may come between any two of them:

1. in the user's slot: is the log-in older than the last revocation? If not, the session is put into the index;
2. in the session's slot: the session is written, with a mark that the log-in waits to be confirmed;
3. in the user's slot again: was there a revocation meanwhile? If so, the session is ended, else the mark is removed.

A revocation sets the fence and reads the index in one script, and then ends each session that it names. So it either
finds a session that was written, or its fence is found in step 3. Whoever meets the mark of a process that died takes
step 3 in its place, so nobody slips through.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from coatcheck.drivers._steps import Steps
from coatcheck.drivers.redis.records import head_in, new_version
from coatcheck.drivers.redis.requests import Ask, Effect, ask, run
from coatcheck.drivers.redis.work import Work, answer
from coatcheck.record import (
    NEVER,
    USER_FENCE,
    Answer,
    Committed,
    Delta,
    Gone,
    Reason,
    Record,
    SessionInfo,
)

__all__ = ["ClusterWork"]

_TRIES: Final = 8  # how many log-ins of others a write sees to before it gives up
_CROWDED: Final = 2  # the answer of scripts/admit.lua where the list of the user's sessions has grown
_MOMENT: Final = struct.Struct("<d")


class ClusterWork(Work):
    """The operations of the contract on a cluster."""

    # -- log-ins

    def create(self, record: Record, now: float) -> Steps[Answer]:
        if record.user is None:
            return (yield from super().create(record, now))
        if not (yield from self._is_admitted(record, now)):
            return Gone(Reason.REVOKED)
        version = new_version()
        reply = yield self._create(record, version, now)
        done = answer(reply, Delta(), version)
        if isinstance(done, Committed) and not (yield from self._is_confirmed(record, _mark(version, now), now)):
            return Gone(Reason.REVOKED)
        return done

    def commit(self, digest: bytes, delta: Delta, now: float) -> Steps[Answer]:
        return (yield from self._change(digest, delta, partial(self._commit, digest, delta, now), now))

    def rotate(self, old: bytes, new: bytes, delta: Delta, grace: float, now: float) -> Steps[Answer]:
        return (yield from self._change(old, delta, partial(self._rotate, old, new, delta, grace, now), now))

    def _change(self, digest: bytes, delta: Delta, request: Callable[[int], Ask], now: float) -> Steps[Answer]:
        if delta.user is not None or delta.auth_time is not None:
            refused = yield from self._refused_login(digest, delta, now)
            if refused is not None:
                return refused
        version = new_version()
        for _ in range(_TRIES):
            match (yield request(version)):
                case [b"confirm", raw, waiting]:  # somebody else's log-in; each time round, one of them is over
                    yield from self._see_to(_info(raw), waiting, now)
                case [b"waiting", raw, *totals]:
                    if not (yield from self._is_confirmed(_info(raw), _mark(version, now), now)):
                        return Gone(Reason.REVOKED)
                    return answer([b"done", *totals], delta, version)
                case reply:
                    return answer(reply, delta, version)
        return Gone(Reason.UNREADABLE)  # its mark cannot be removed: no script of ours wrote that

    def _refused_login(self, digest: bytes, delta: Delta, now: float) -> Steps[Gone | None]:
        """Take the first step of a log-in in an existing session; give the refusal, or None."""
        user, login, sid = delta.user, delta.auth_time, delta.basis
        if user is None or login is None or not isinstance(sid, str):
            head = yield from self._peeked(digest, now)
            if isinstance(head, Gone):
                return head
            user, sid = user or head.user, head.sid
            if user is None:
                return None  # a moment without a user is no log-in
            if login is None:  # a user without a moment: as old as the session
                login = head.created if head.auth_time is None else head.auth_time
        if (yield self._admit(user, sid, login, now, now, is_written=False)):
            return None
        head = yield from self._peeked(digest, now)
        return head if isinstance(head, Gone) else Gone(Reason.REVOKED)

    def _peeked(self, digest: bytes, now: float) -> Steps[SessionInfo | Gone]:
        base, slot = self.keys.of_digest(digest)
        reply = yield run(self.scripts.peek, base + b"d:" + digest, slot, Effect.READS, base, digest, repr(now))
        return Gone(Reason(reply[1].decode())) if reply[0] == b"gone" else _info(reply[1])

    def _is_admitted(self, session: SessionInfo, now: float) -> Steps[bool]:
        """Take the first step: list the session for now, unless its log-in is too old."""
        user, sid = session.user or "", session.sid
        return bool((yield self._admit(user, sid, _login(session), now, now, is_written=False)))

    def _is_confirmed(self, session: SessionInfo, waiting: bytes, now: float, *, is_late: bool = False) -> Steps[bool]:
        """Take the third step: let a log-in stand that waits, or end its session."""
        login = _login(session)
        last_end = min(login + session.absolute, NEVER)
        user = session.user or ""
        told = 0 if is_late else (yield self._admit(user, session.sid, login, last_end, now, is_written=True))
        (base, slot), (sid,) = next(iter(self.keys.by_slot([session.sid]).items()))
        words = (base, b"", repr(now), sid, waiting, 1 if told else 0)
        is_there = yield run(self.scripts.settle, base + b"s:" + sid.encode(), slot, Effect.WRITES, *words)
        if told == _CROWDED:
            yield from self.sessions_of(user, now)  # which takes those off the list that have ended
        return bool(told and is_there)

    def _admit(self, user: str, sid: str, login: float, last_end: float, now: float, *, is_written: bool) -> Ask:
        base, slot = self.keys.of_user(user)
        words = (self.keys.base, b"", repr(now), user, sid, repr(login), repr(last_end), b"1" if is_written else b"")
        effect = Effect.WRITES if is_written else Effect.PREPARES
        return run(self.scripts.admit, base + b"f", slot, effect, *words)

    def _see_to(self, found: SessionInfo, waiting: bytes, now: float) -> Steps[bool]:
        # Whether there was a revocation is remembered for so long; after that, nobody can tell any more.
        is_late = len(waiting) < _MOMENT.size or now >= _MOMENT.unpack_from(waiting)[0] + USER_FENCE
        return (yield from self._is_confirmed(found, waiting, now, is_late=is_late))

    def _see_to_all(self, sids: list[str], now: float) -> Steps[None]:
        for _, head, waiting in (yield from self._heads(sids, now)):
            if head is not None and waiting:
                yield from self._see_to(head, waiting, now)

    def _heads(self, sids: list[str], now: float) -> Steps[list[tuple[str, SessionInfo | None, bytes]]]:
        """Give the sessions with these sids, each with the log-in that waits."""
        parts = self._parts(sids)
        if not parts:
            return []
        replies = yield [
            run(self.scripts.heads, base + b"s:" + group[0].encode(), slot, Effect.READS, base, b"", repr(now), *group)
            for base, slot, group in parts
        ]
        found: list[tuple[str, SessionInfo | None, bytes]] = []
        for (_, _, group), told in zip(parts, replies, strict=True):
            for sid, each in zip(group, told, strict=True):
                head = head_in(each[0]) if isinstance(each, list) else None
                found.append((sid, None, b"") if head is None else (sid, head.info, each[1]))
        return found

    # -- the sessions of a user

    def revoke_user(self, user: str, now: float, keep: str | None) -> Steps[int]:
        base, slot = self.keys.of_user(user)
        words = (self.keys.base, b"", repr(now), user, keep or "")
        listed = yield run(self.scripts.fence, base + b"u", slot, Effect.WRITES, *words)
        parts = self._parts(_texts(listed))
        if not parts:
            return 0
        return sum((yield [
            run(self.scripts.end, base + b"s:" + group[0].encode(), slot, Effect.WRITES, base, b"", repr(now), user,
                keep or "", *group)
            for base, slot, group in parts
        ]))  # fmt: skip

    def sessions_of(self, user: str, now: float) -> Steps[list[SessionInfo]]:
        base, slot = self.keys.of_user(user)
        sids = _texts((yield ask(b"ZRANGE", base + b"u", 0, -1, slot=slot)))
        heads = yield from self._heads(sids, now)
        waiting = [sid for sid, head, mark in heads if head is not None and mark]
        if waiting:
            yield from self._see_to_all(waiting, now)
            heads = yield from self._heads(sids, now)
        strangers = [sid for sid, head, _ in heads if head is None or head.user != user]
        if strangers:  # a log-in that is on its way to its session is listed once more in its third step
            yield ask(b"ZREM", base + b"u", *strangers, slot=slot, effect=Effect.PREPARES)
        found = [head for _, head, _ in heads if head is not None and head.user == user and head.expires > now]
        return sorted(found, key=lambda info: info.created)


def _mark(version: int, now: float) -> bytes:
    """Give the mark of a log-in that waits, as the scripts write it: no two are the same."""
    return _MOMENT.pack(now) + version.to_bytes(8, "big")


def _login(session: SessionInfo) -> float:
    return session.created if session.auth_time is None else session.auth_time


def _info(raw: bytes) -> SessionInfo:
    """Give the session in a head that a script made sense of."""
    head = head_in(raw)
    if head is None:
        raise ValueError("the server read a head that is none")
    return head.info


def _texts(listed: list[bytes]) -> list[str]:
    return [sid.decode(errors="replace") for sid in listed]
