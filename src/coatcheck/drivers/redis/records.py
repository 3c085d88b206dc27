"""Fields of the server as records. What another program spoilt is recognized, and never raises."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from coatcheck.drivers.redis.keys import key_in
from coatcheck.record import (
    ABSENT,
    COUNTER_MAX,
    COUNTER_MIN,
    NEVER,
    Missing,
    Reason,
    Record,
    SessionInfo,
    Value,
    ValueKey,
)

__all__ = [
    "IN_GRACE",
    "NOTE",
    "REVOKED",
    "ROTATED",
    "Head",
    "head_in",
    "mark_in",
    "new_version",
    "packed",
    "session_in",
    "stored_form",
    "version_text",
]

_HEAD: Final = struct.Struct("<9dBB")
"""created, seen, deadline, idle, absolute, auth_time, rotated, the end of the old digest's grace, the length of that
grace; flags; then the old digest and the sid, each after its length, and the user."""
_MARK: Final = struct.Struct("<cd")
IN_GRACE: Final = b"g"
ROTATED: Final = b"r"
REVOKED: Final = b"x"
"""What a mark says of its digest."""

NOTE: Final = b"n"
"""The field of a session's note."""

_HAS_AUTH: Final = 1
_HAS_USER: Final = 2
_SMALLEST_VALUE: Final = 9
_LONGEST_COUNTER: Final = 20

_new_value: Final = tuple.__new__  # a NamedTuple's own constructor takes three times as long


class Head(NamedTuple):
    """What is stored of a session besides its values."""

    info: SessionInfo
    rotated: float
    ends: float  # the end of the grace of the digest before: NEVER while the present one was not used
    grace: float
    prior: bytes


def new_version() -> int:
    """Draw a version. 63 random bits are not seen twice, so a value that was dropped needs no memory of its last."""
    return int.from_bytes(os.urandom(8), "big") >> 1 or 1


def version_text(version: int | None) -> bytes:
    """Return a version as the scripts compare it; nothing for None."""
    return b"" if version is None else version.to_bytes(8, "big") if 0 <= version < 1 << 64 else b"?"


def stored_form(version: bytes, data: bytes | int) -> bytes:
    """Return a value as it is stored: its version, a letter for its kind, its content."""
    return b"%bi%d" % (version, data) if isinstance(data, int) else b"%bb%b" % (version, data)


def _value_in(raw: bytes) -> Value | None:
    if len(raw) < _SMALLEST_VALUE:
        return None
    version = int.from_bytes(raw[:8], "big")
    if version == ABSENT:
        return None
    kind = raw[8]
    if kind == 98:  # noqa: PLR2004 (the letter b)
        return _new_value(Value, (raw[9:], version))
    text = raw[9:]
    if kind != 105 or len(text) > _LONGEST_COUNTER or not text.removeprefix(b"-").isdigit():  # noqa: PLR2004 (i)
        return None
    number = int(text)
    return _new_value(Value, (number, version)) if COUNTER_MIN <= number <= COUNTER_MAX else None


def packed(record: Record) -> bytes:
    """Return the head of a new session."""
    auth, user = record.auth_time, record.user
    flags = (0 if auth is None else _HAS_AUTH) | (0 if user is None else _HAS_USER)
    sid = record.sid.encode()
    start = _HEAD.pack(
        record.created, record.seen, record.deadline, record.idle, record.absolute, auth or 0.0,
        record.rotated, 0.0, 0.0, flags, 0,
    )  # fmt: skip
    return b"%b%c%b%b" % (start, len(sid), sid, (user or "").encode())


def head_in(raw: Any, note: bytes = b"") -> Head | None:
    """Return the head of a session that has a *note*, or None if it makes no sense."""
    try:
        created, seen, deadline, idle, absolute, auth, rotated, ends, grace, flags, length = _HEAD.unpack_from(raw)
        start = _HEAD.size + length
        size = raw[start]
        end = start + 1 + size
        if len(raw) < end:
            return None
        info = SessionInfo(
            sid=raw[start + 1 : end].decode(),
            created=created,
            seen=seen,
            deadline=deadline,
            idle=idle,
            absolute=absolute,
            user=raw[end:].decode() if flags & _HAS_USER else None,
            auth_time=auth if flags & _HAS_AUTH else None,
            note=note,
        )
    except (struct.error, IndexError, ValueError, TypeError):
        return None
    return Head(info, rotated, ends, grace, raw[_HEAD.size : start])


def mark_in(raw: Any) -> tuple[bytes, float]:
    """Return the kind of a mark and when it ends; one that makes no sense ended long ago."""
    try:
        kind, ends = _MARK.unpack_from(raw)
    except (struct.error, TypeError):
        return ROTATED, 0.0
    return kind, ends


def session_in(
    fields: Sequence[bytes], digest: bytes, now: float
) -> tuple[Record | Missing, Head | None, bytes | None]:
    """Return the session in the fields of a hash, or why it is none; its head; and the log-in that waits.

    A value that makes no sense is left out: to the application it is missing, and its next write replaces it.

    Args:
        fields: Fields and contents in turn.
        digest: The digest that the session is filed under.
        now: The present moment.
    """
    values: dict[ValueKey, Value] = {}
    raw: bytes | None = None
    waiting: bytes | None = None
    note = b""
    for at in range(0, len(fields), 2):
        field = fields[at]
        if field == b"h":
            raw = fields[at + 1]
        elif field == b"w":
            waiting = fields[at + 1]
        elif field == NOTE:
            note = fields[at + 1]
        else:
            value = _value_in(fields[at + 1])
            name = key_in(field)
            if name is not None and value is not None:
                values[name] = value
    head = head_in(raw)
    if head is None:
        return Missing(Reason.UNREADABLE), None, None
    info = head.info
    if info.expires <= now:
        return Missing(Reason.EXPIRED), head, None
    record = Record(
        sid=info.sid,
        created=info.created,
        seen=info.seen,
        deadline=info.deadline,
        idle=info.idle,
        absolute=info.absolute,
        user=info.user,
        auth_time=info.auth_time,
        note=note,
        digest=digest,
        values=values,
        rotated=head.rotated,
        fresh=head.ends == NEVER,
        basis=info.sid,
    )
    return record, head, waiting
