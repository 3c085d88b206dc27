"""What each operation asks of a cluster, where the keys of a user are on another server than those of a session.

A log-in into a session that is there takes four steps, and a revocation of the user may come between any two of them:

1. in the user's slot: is the log-in older than the last revocation? If not, the session is put into the index;
2. in the session's slot: the log-in is announced by a mark, and nothing else changes;
3. in the user's slot again: was there a revocation meanwhile? Then the log-in is refused, and the session is as it was;
4. in the session's slot: the log-in is written, if its mark is still there; else it begins again.

A revocation sets the fence and reads the index in one script. Then it ends each session of the user that the index
names, and takes the marks away from the others. So its fence is found in step 3, or it finds the log-in, or its mark.

A session that is created with a user is written in step 2 with a mark that it waits to be confirmed, and step 4 takes
the mark away, or ends the session where step 3 found a revocation: nobody has its token yet. A request that meets the
mark of a process that died takes these two steps in its place.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from coatcheck.drivers._steps import Steps
from coatcheck.drivers.redis.records import head_in, new_version
from coatcheck.drivers.redis.requests import Ask, Effect, ask, run
from coatcheck.drivers.redis.trouble import NotSent
from coatcheck.drivers.redis.work import RedisOperations, answer
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

__all__ = ["ClusterOperations"]

_TRIES: Final = 8  # how many log-ins of others a write sees to before it gives up
_AGAIN: Final = -1
_CROWDED: Final = 2  # the answer of scripts/admit.lua where the list of the user's sessions has grown
_MOMENT: Final = struct.Struct("<d")


class _Login(NamedTuple):
    """Who logs in, in which session, and when."""

    user: str
    sid: str
    moment: float


class ClusterOperations(RedisOperations):
    """The operations of the contract on a cluster."""

    # -- log-ins

    def create(self, record: Record, now: float) -> Steps[Answer]:
        if record.user is None:
            return (yield from super().create(record, now))
        if not (yield self._admit(_Login(record.user, record.sid, _moment(record)), now, now, b"")):
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
        for _ in range(_TRIES):
            login = yield from self._login_of(digest, delta, now)
            if isinstance(login, Gone):
                return login
            version = new_version()
            told = None
            if login is not None:
                told = yield from self._announced(digest, delta, login, _mark(version, now), now)
                if isinstance(told, Gone):
                    return told
                if told == _AGAIN:
                    continue
            match (yield request(version)):
                case [b"confirm", raw, waiting]:  # a creation that was left half-way; each time round, one is over
                    yield from self._see_to(_info(raw), waiting, now)
                case [b"again"]:  # a revocation or another log-in came in between
                    pass
                case reply:
                    if login is not None and told == _CROWDED:
                        yield from self.sessions_of(login.user, now)  # which takes those off the list that have ended
                    return answer(reply, delta, version)
        raise NotSent(f"other log-ins into this session came first {_TRIES} times in a row")

    def _login_of(self, digest: bytes, delta: Delta, now: float) -> Steps[_Login | Gone | None]:
        """Return the log-in that a change is; None if it is none."""
        if delta.user is None and delta.auth_time is None:
            return None
        if delta.user is not None and delta.auth_time is not None and isinstance(delta.basis, str):
            return _Login(delta.user, delta.basis, delta.auth_time)
        head = yield from self._peeked(digest, now)
        return head if isinstance(head, Gone) else _login_in(delta, head)

    def _announced(self, digest: bytes, delta: Delta, login: _Login, mark: bytes, now: float) -> Steps[int | Gone]:
        """Take the first three steps of a log-in in a session that is there; return a refusal, or what step 3 said."""
        if not (yield self._admit(login, now, now, b"")):
            head = yield from self._peeked(digest, now)
            return head if isinstance(head, Gone) else Gone(Reason.REVOKED)
        base, slot = self.keys.of_digest(digest)
        words = (base, digest, repr(now), mark)
        match (yield run(self.scripts.announce, base + b"d:" + digest, slot, Effect.PREPARES, *words)):
            case [b"gone", reason]:
                return Gone(Reason(reason.decode()))
            case [b"confirm", raw, waiting]:
                yield from self._see_to(_info(raw), waiting, now)
                return _AGAIN
            case [_, raw]:
                found = _info(raw)
        if _login_in(delta, found) != login:
            return _AGAIN  # another log-in came in between
        last_end = min(login.moment + found.absolute, NEVER)
        told: int = yield self._admit(login, last_end, now, b"announced")
        return told or Gone(Reason.REVOKED)

    def _peeked(self, digest: bytes, now: float) -> Steps[SessionInfo | Gone]:
        base, slot = self.keys.of_digest(digest)
        reply = yield run(self.scripts.peek, base + b"d:" + digest, slot, Effect.READS, base, digest, repr(now))
        return Gone(Reason(reply[1].decode())) if reply[0] == b"gone" else _info(reply[1])

    def _is_confirmed(self, session: SessionInfo, waiting: bytes, now: float, *, is_late: bool = False) -> Steps[bool]:
        """Take the last two steps of a creation: let it stand, or end the session."""
        login = _Login(session.user or "", session.sid, _moment(session))
        last_end = min(login.moment + session.absolute, NEVER)
        told = 0 if is_late else (yield self._admit(login, last_end, now, b"created"))
        (base, slot), (sid,) = next(iter(self.keys.by_slot([session.sid]).items()))
        words = (base, b"", repr(now), sid, waiting, 1 if told else 0)
        is_there = yield run(self.scripts.settle, base + b"s:" + sid.encode(), slot, Effect.WRITES, *words)
        if told == _CROWDED:
            yield from self.sessions_of(login.user, now)  # which takes those off the list that have ended
        return bool(told and is_there)

    def _admit(self, login: _Login, last_end: float, now: float, stage: bytes) -> Ask:
        base, slot = self.keys.of_user(login.user)
        words = (self.keys.base, b"", repr(now), login.user, login.sid, repr(login.moment), repr(last_end), stage)
        effect = Effect.WRITES if stage == b"created" else Effect.PREPARES
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
        """Return the sessions with these sids, each with the log-in that waits."""
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
                head = head_in(*each[:2]) if isinstance(each, list) else None
                found.append((sid, None, b"") if head is None else (sid, head.info, each[2]))
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
        listed = yield ask(b"ZRANGE", base + b"u", 0, -1, b"WITHSCORES", slot=slot)
        sids, scores = _texts(listed[::2]), dict(zip(_texts(listed[::2]), listed[1::2], strict=True))
        heads = yield from self._heads(sids, now)
        waiting = [sid for sid, head, mark in heads if head is not None and mark]
        if waiting:
            yield from self._see_to_all(waiting, now)
            heads = yield from self._heads(sids, now)
        ended = [sid for sid, head, _ in heads if head is None]
        if ended:  # a session that is being created is listed again, with another score
            words = [word for sid in ended for word in (sid, scores[sid])]
            args = (self.keys.base, b"", repr(now), user, *words)
            yield run(self.scripts.delist, base + b"u", slot, Effect.PREPARES, *args)
        found = [head for _, head, _ in heads if head is not None and head.user == user and head.expires > now]
        return sorted(found, key=lambda info: info.created)


def _login_in(delta: Delta, head: SessionInfo) -> _Login | None:
    """Return the log-in that a change of a session is; None if it is none."""
    user = delta.user or head.user
    if user is None:
        return None  # a moment without a user is no log-in
    moment = _moment(head) if delta.auth_time is None else delta.auth_time  # without a moment: as old as the session
    return _Login(user, head.sid, moment)


def _mark(version: int, now: float) -> bytes:
    """Return the mark of a log-in that waits, as the scripts write it: no two are the same."""
    return _MOMENT.pack(now) + version.to_bytes(8, "big")


def _moment(session: SessionInfo) -> float:
    return session.created if session.auth_time is None else session.auth_time


def _info(raw: bytes) -> SessionInfo:
    """Return the session in a head that a script made sense of."""
    head = head_in(raw)
    if head is None:
        raise ValueError("the server read a head that is none")
    return head.info


def _texts(listed: list[bytes]) -> list[str]:
    return [sid.decode(errors="replace") for sid in listed]
