"""Python values as opaque bytes, and exactly the same values back, types included.

The bytes are MessagePack. Trees of dicts, lists and scalars are plain MessagePack, which msgspec reads and writes at
the speed of C; every other type is an extension with a tag of its own. msgspec alone would turn tuples into lists,
dates into strings and subclasses into their bases without a word: hence the walk over exact types that comes before
it. Nothing is ever imported because stored data says so: the types of an application are registered by name.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from functools import cached_property, partial
from threading import Lock
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec import Raw
from msgspec.msgpack import Decoder, Encoder, Ext

from coatcheck.errors import CoatcheckError, ConfigurationError

__all__ = ["MAX_DEPTH", "Codec", "Undecodable", "Unencodable"]

MAX_DEPTH: Final = 64
"""How many containers may stand inside one another."""

_FRACTION_BITS: Final = 1 << 14
"""Larger fractions are refused: reducing one to lowest terms takes time that grows with the square of its size."""

_PATH_STEPS: Final = 10
"""As much of the way to a refused value as a message has room for."""

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1

# The tags of the stored format. One that was ever released keeps its meaning for good.
_INT, _TUPLE, _SET, _FROZENSET, _PAIRS, _BYTEARRAY, _DECIMAL, _FRACTION, _COMPLEX = range(1, 10)
_UUID, _DATETIME, _DATE, _TIME, _TIMEDELTA, _ZONE, _RANGE = range(10, 17)
_REGISTERED: Final = 32

_DATETIME_HEAD: Final = struct.Struct(">HBBBBBI")
_DATE_FORM: Final = struct.Struct(">HBB")
_TIME_HEAD: Final = struct.Struct(">BBBI")
_TIMEDELTA_FORM: Final = struct.Struct(">iII")
_COMPLEX_FORM: Final = struct.Struct(">dd")
_OFFSET_FORM: Final = struct.Struct(">q")
_FOLD: Final = 1 << 31
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_MICROSECOND: Final = timedelta(microseconds=1)

_write = Encoder().encode


class Unencodable(CoatcheckError, TypeError):
    """A value cannot be encoded so that exactly the same comes back.

    Attributes:
        type_name: The full name of the type that was refused.
        path: Where in the value it stands, such as ``"['cart'][2]"``; empty for the value itself.
    """

    def __init__(self, type_name: str, path: str, why: str) -> None:
        super().__init__(f"at {path}: {why}" if path else why)
        self.type_name = type_name
        self.path = path


class Undecodable(CoatcheckError):
    """Bytes are not what this codec writes, or name a type that is not registered with it."""


class _RefusedError(Exception):
    """A refusal on its way out of nested containers; each of them adds its step of the path."""

    def __init__(self, kind: type, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why
        self.steps: list[str] = []


@dataclass(frozen=True, slots=True)
class _Registration:
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    immutable: bool


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _step(key: object) -> str:
    """A dict's key as a step of a path: short, and only where its text is harmless to make."""
    text = repr(key) if type(key) in (str, int, bool) else f"<{type(key).__name__}>"
    return f"[{text[:40]}]"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _remedy(kind: type) -> str:
    """Why a type is refused, and the call that makes it storable."""
    name = _type_name(kind)
    if issubclass(kind, Enum) or is_dataclass(kind) or _is_namedtuple(kind):
        return f"a {name} cannot be stored before codec.register({name})"
    base = next((base for base in kind.__mro__ if base in _BUILT_IN), None)
    turn = f" turn it into a plain {base.__name__}, or" if base else ""
    return f"a {name} cannot be stored as it is:{turn} codec.register({name}, name, encode, decode)"


def _too_deep_error(kind: type) -> _RefusedError:
    return _RefusedError(kind, f"containers nest deeper than {MAX_DEPTH} levels, or one contains itself")


def _ensure(held: object, what: str) -> None:
    if not held:
        raise ValueError(what)


# --- leaves: a value to the payload of its extension, and back ---


def _write_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _read_int(data: bytes) -> int:
    value = int.from_bytes(data, "big", signed=True)
    _ensure(_write_int(value) == data, "a padded integer")
    return value


def _write_decimal(value: Decimal) -> bytes:
    # The case of str() depends on the decimal context of the moment; the bytes must not.
    return str(value).upper().encode("ascii")


def _read_decimal(data: bytes) -> Decimal:
    value = Decimal(data.decode("ascii"))
    _ensure(_write_decimal(value) == data, "another spelling of a Decimal")
    return value


def _write_zone(zone: tzinfo) -> bytes:
    if zone is UTC:
        return b"U"
    if type(zone) is timezone:
        # The only way to tell a name that was given from the one that timezone makes up.
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        stamp = _OFFSET_FORM.pack(offset // _MICROSECOND)
        return b"N" + stamp + name[0].encode() if name else b"O" + stamp
    if type(zone) is ZoneInfo:
        if not _ZONE_KEY.fullmatch(zone.key or ""):
            raise _RefusedError(ZoneInfo, "a ZoneInfo that was not made by its key cannot be stored")
        return b"Z" + zone.key.encode("ascii")
    why = f"the time zone {_type_name(type(zone))} cannot be stored: use zoneinfo.ZoneInfo or datetime.timezone"
    raise _RefusedError(type(zone), why)


def _read_zone(data: bytes) -> tzinfo:
    form, rest = data[:1], data[1:]
    if form == b"U":
        _ensure(not rest, "more than a zone")
        return UTC
    if form == b"Z":
        key = rest.decode("ascii")
        # Looked at before zoneinfo goes to the file system with it.
        _ensure(_ZONE_KEY.fullmatch(key), "not the key of a zone")
        return ZoneInfo(key)
    _ensure(form == b"N" or (form == b"O" and len(rest) == _OFFSET_FORM.size), "not a zone")
    offset = timedelta(microseconds=_OFFSET_FORM.unpack_from(rest)[0])
    return timezone(offset) if form == b"O" else timezone(offset, rest[_OFFSET_FORM.size :].decode())


def _write_datetime(value: datetime) -> bytes:
    fine = value.microsecond | _FOLD if value.fold else value.microsecond
    head = _DATETIME_HEAD.pack(value.year, value.month, value.day, value.hour, value.minute, value.second, fine)
    return head if value.tzinfo is None else head + _write_zone(value.tzinfo)


def _read_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, fine = _DATETIME_HEAD.unpack_from(data)
    zone = _read_zone(data[_DATETIME_HEAD.size :]) if len(data) > _DATETIME_HEAD.size else None
    return datetime(year, month, day, hour, minute, second, fine & ~_FOLD, zone, fold=fine // _FOLD)


def _write_time(value: time) -> bytes:
    fine = value.microsecond | _FOLD if value.fold else value.microsecond
    head = _TIME_HEAD.pack(value.hour, value.minute, value.second, fine)
    return head if value.tzinfo is None else head + _write_zone(value.tzinfo)


def _read_time(data: bytes) -> time:
    hour, minute, second, fine = _TIME_HEAD.unpack_from(data)
    zone = _read_zone(data[_TIME_HEAD.size :]) if len(data) > _TIME_HEAD.size else None
    return time(hour, minute, second, fine & ~_FOLD, zone, fold=fine // _FOLD)


def _read_timedelta(data: bytes) -> timedelta:
    days, seconds, microseconds = _TIMEDELTA_FORM.unpack(data)
    value = timedelta(days, seconds, microseconds)
    _ensure((value.days, value.seconds) == (days, seconds), "another spelling of a timedelta")
    return value


_LEAVES: Final[dict[type, tuple[int, Callable[[Any], bytes], Callable[[bytes], Any]]]] = {
    bytearray: (_BYTEARRAY, bytes, bytearray),
    Decimal: (_DECIMAL, _write_decimal, _read_decimal),
    complex: (_COMPLEX, lambda c: _COMPLEX_FORM.pack(c.real, c.imag), lambda b: complex(*_COMPLEX_FORM.unpack(b))),
    UUID: (_UUID, lambda u: u.bytes, lambda b: UUID(bytes=b)),
    datetime: (_DATETIME, _write_datetime, _read_datetime),
    date: (_DATE, lambda d: _DATE_FORM.pack(d.year, d.month, d.day), lambda b: date(*_DATE_FORM.unpack(b))),
    time: (_TIME, _write_time, _read_time),
    timedelta: (
        _TIMEDELTA,
        lambda t: _TIMEDELTA_FORM.pack(t.days, t.seconds, t.microseconds),
        _read_timedelta,
    ),
    timezone: (_ZONE, _write_zone, _read_zone),
    ZoneInfo: (_ZONE, _write_zone, _read_zone),
}
_LEAF_READERS: Final = {tag: read for tag, _, read in _LEAVES.values()} | {_INT: _read_int}

# --- extensions that hold other values: a list of them to the value ---


def _read_set(members: list[Any]) -> set[Any]:
    value = set(members)
    _ensure(len(value) == len(members), "a set with equal members")
    return value


def _read_pairs(flat: list[Any]) -> dict[Any, Any]:
    ends = iter(flat)
    value = dict(zip(ends, ends, strict=False))
    _ensure(len(value) * 2 == len(flat), "a dict with equal keys, or without a value")
    return value


def _read_fraction(parts: list[Any]) -> Fraction:
    above, below = parts
    _ensure(type(above) is type(below) is int and below > 0, "not a Fraction")
    _ensure(max(above.bit_length(), below.bit_length()) <= _FRACTION_BITS, "a Fraction too large")
    value = Fraction(above, below)
    _ensure(value.denominator == below, "a Fraction not in lowest terms")
    return value


def _read_range(parts: list[Any]) -> range:
    start, stop, step = parts
    _ensure(type(start) is type(stop) is type(step) is int, "not a range")
    return range(start, stop, step)


_NEST_READERS: Final[dict[int, Callable[[list[Any]], Any]]] = {
    _TUPLE: tuple,
    _SET: _read_set,
    _FROZENSET: lambda members: frozenset(_read_set(members)),
    _PAIRS: _read_pairs,
    _FRACTION: _read_fraction,
    _RANGE: _read_range,
}

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_NESTS: Final = frozenset({list, dict, tuple, set, frozenset})
_BUILT_IN: Final = _SCALARS | _NESTS | {Fraction, range} | _LEAVES.keys()
_SIMPLE: Final = _BUILT_IN - _NESTS - {bytearray}


def _is_plain(value: Any, depth: int = 1) -> bool:
    """Whether msgspec may have a list or dict as it is. Most values are like that, so this is all the walk they get."""
    members = value
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                return False
        members = value.values()
    elif type(value) is not list:
        return False
    for member in members:
        if type(member) not in _SCALARS and (depth >= MAX_DEPTH or not _is_plain(member, depth + 1)):
            return False
    return True


def _too_deep(value: object) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        members: list[Any] = []
        for nest in level:
            if type(nest) is dict:
                members += nest.values()
                members += nest  # keys nest too, as tuples and frozensets
            elif type(nest) in _NESTS:
                members += nest
        if _NESTS.isdisjoint(map(type, members)):
            return False
        level = [member for member in members if type(member) in _NESTS]
    return True


class _Walk:
    """The walk before msgspec: anything that it would flatten becomes an extension, the rest is handed on as it is.

    The quick walk leaves it to msgspec to find integers over 64 bits and text that is no Unicode; when that happens,
    the careful walk does the work again and looks at every one. Both give the same bytes for what both can do.
    """

    def __init__(self, registered: dict[type, _Registration], *, careful: bool) -> None:
        self._registered = registered
        self._careful = careful
        self._plain = _SCALARS - {int, str} if careful else _SCALARS

    def convert(self, value: Any, depth: int) -> Any:  # noqa: PLR0911 - one for each kind
        """What msgspec writes for a value with that many containers around it: the value itself where it can."""
        kind = type(value)
        if kind in self._plain:
            return value
        if kind is dict:
            return self._dict(value, depth)
        if kind is list:
            return self._list(value, depth)
        if kind in _LEAVES:
            tag, write, _ = _LEAVES[kind]
            return Ext(tag, write(value))
        if kind is tuple:
            return Ext(_TUPLE, _write(self._list(value, depth)))
        if kind is set or kind is frozenset:
            # Sets of equal members may iterate differently; their bytes must not differ.
            members = sorted(map(_write, self._list(list(value), depth)))
            return Ext(_SET if kind is set else _FROZENSET, _write(list(map(Raw, members))))
        if kind in self._registered:
            return self._application(self._registered[kind], value, depth)
        return self._rare(kind, value, depth)

    def _rare(self, kind: type, value: Any, depth: int) -> Any:
        if kind is int:
            return value if _INT_MIN <= value <= _INT_MAX else Ext(_INT, _write_int(value))
        if kind is str:
            if not _is_text(value):
                raise _RefusedError(str, "text with a lone surrogate cannot be stored: store bytes instead")
            return value
        if kind is Fraction:
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > _FRACTION_BITS:
                raise _RefusedError(Fraction, f"a Fraction over {_FRACTION_BITS} bits cannot be stored")
            return Ext(_FRACTION, _write(self._list([value.numerator, value.denominator], depth - 1)))
        if kind is range:
            return Ext(_RANGE, _write(self._list([value.start, value.stop, value.step], depth - 1)))
        raise _RefusedError(kind, _remedy(kind))

    def _list(self, value: Any, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            raise _too_deep_error(type(value))
        changed: list[Any] | None = None
        plain = self._plain
        at = -1
        try:
            for at, item in enumerate(value):
                if type(item) not in plain:
                    new = self.convert(item, depth + 1)
                    if new is not item:
                        if changed is None:
                            changed = list(value)
                        changed[at] = new
        except _RefusedError as refused:
            refused.steps.append(f"[{at}]")
            raise
        return value if changed is None else changed

    def _dict(self, value: dict[Any, Any], depth: int) -> Any:
        if depth >= MAX_DEPTH:
            raise _too_deep_error(dict)
        plain = self._plain
        changed: dict[Any, Any] = {}
        key = None
        try:
            for key in value:
                if type(key) not in plain and not (self._careful and self.convert(key, depth + 1) is key):
                    break
            else:
                for key, item in value.items():
                    if type(item) not in plain:
                        new = self.convert(item, depth + 1)
                        if new is not item:
                            changed[key] = new
                return value | changed if changed else value
        except _RefusedError as refused:
            refused.steps.append(_step(key))
            raise
        return self._pairs(value, depth)

    def _pairs(self, value: dict[Any, Any], depth: int) -> Ext:
        """A dict with keys that are no scalars: MessagePack's own maps would lose the types of such keys."""
        flat: list[Any] = []
        key = None
        try:
            for key, item in value.items():
                flat += (self.convert(key, depth + 1), self.convert(item, depth + 1))
        except _RefusedError as refused:
            refused.steps.append(_step(key))
            raise
        return Ext(_PAIRS, _write(flat))

    def _application(self, known: _Registration, value: Any, depth: int) -> Ext:
        if depth >= MAX_DEPTH:
            raise _too_deep_error(type(value))
        try:
            inner = known.encode(value)
        except Exception as error:
            why = f"the encode function registered for {_type_name(type(value))} raised {type(error).__name__}"
            raise _RefusedError(type(value), why) from error
        return Ext(_REGISTERED, _write([known.name, self.convert(inner, depth + 1)]))


def _is_namedtuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields") and hasattr(kind, "_make")


def _by_fields(stored: Any, names: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The fields of an object, from what was stored; a field that is new since then gets its default."""
    _ensure(type(stored) is dict and stored.keys() <= names.keys(), "fields that the class does not have")
    return {name: stored[name] if name in stored else default() for name, default in names.items()}


def _no_default() -> Any:
    raise ValueError("a field is missing that has no default")


def _functions(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """How to take members of an enum, namedtuples and dataclasses apart and put them together again."""
    if issubclass(cls, Flag):
        return lambda member: member.value, cls
    if issubclass(cls, Enum):
        return lambda member: member.name, lambda name: cls[name]
    names: dict[str, Callable[[], Any]]
    if _is_namedtuple(cls):
        made: Any = cls
        defaults = made._field_defaults
        names = {
            name: partial(defaults.__getitem__, name) if name in defaults else _no_default for name in made._fields
        }
        return lambda value: value._asdict(), lambda stored: made._make(_by_fields(stored, names).values())
    if is_dataclass(cls):
        try:
            object.__new__(cls)
        except TypeError as error:
            raise ConfigurationError(f"{_type_name(cls)} is more than its fields: give encode and decode") from error
        names = {field.name: _default(field) for field in fields(cls)}
        return partial(_take_apart, names), partial(_put_together, cls, names)
    raise ConfigurationError(f"{_type_name(cls)} is no enum, namedtuple or dataclass: give encode and decode")


def _default(field: Field[Any]) -> Callable[[], Any]:
    if field.default_factory is not MISSING:
        return field.default_factory
    return _no_default if field.default is MISSING else lambda: field.default


def _take_apart(names: Mapping[str, object], value: Any) -> dict[str, Any]:
    for name in getattr(value, "__dict__", {}).keys() - names.keys():
        # What a cached property holds can be computed again; anything else would be lost without a word.
        if not isinstance(getattr(type(value), name, None), cached_property):
            raise TypeError(f"the attribute {name} is not a field")
    return {name: getattr(value, name) for name in names}


def _put_together(cls: type, names: Mapping[str, Callable[[], Any]], stored: Any) -> Any:
    # Past __init__, which may demand, change or compute things: the fields are what they were when it was stored.
    value: Any = object.__new__(cls)
    for name, part in _by_fields(stored, names).items():
        object.__setattr__(value, name, part)
    return value


class Codec:
    """Encodes values to bytes and decodes them to exactly equal values of exactly the same types.

    Stored as they are: None, bool, int and float (any), str, bytes, bytearray, list, tuple, dict (any hashable keys;
    the order is kept), set, frozenset, Decimal, Fraction, complex, range, UUID, datetime, date, time, timedelta,
    timezone and ZoneInfo. Every other type, subclasses of these included, is refused unless it is registered.
    An object that is referred to from two places becomes two equal objects.

    Safe to use from many threads at once.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._registered: dict[type, _Registration] = {}
        self._named: dict[str, _Registration] = {}
        self._quick = _Walk(self._registered, careful=False)
        self._careful = _Walk(self._registered, careful=True)
        # One decoder for each level of extensions in extensions, so that depth is bounded without any shared state.
        self._decoders = [Decoder(ext_hook=partial(self._extension, level)) for level in range(MAX_DEPTH + 2)]

    def register(
        self,
        cls: type,
        name: str | None = None,
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
        *,
        immutable: bool | None = None,
    ) -> None:
        """Make a type storable: exactly this class, not its subclasses.

        Args:
            cls: The class. For an enum, a namedtuple or a dataclass, `encode` and `decode` may be left out.
                Members of an enum are stored by name (of a Flag, by value); the others by field, and a field that is
                added later gets its default. A dataclass is restored without running its ``__init__``.
            name: What stored values are marked with, for good: the default is the module and name of the class, so
                give one if the class may move or be renamed. It is only compared, never imported.
            encode: Turns an instance into something storable.
            decode: Turns that back. It may see what an older version of the application stored, and raises an
                exception for what it cannot read.
            immutable: True if instances never change, so that sessions need not look for changes made in place.
                The default is True for enums only.

        Raises:
            ConfigurationError: The class or the name is taken, the class is built in, or the functions are missing.
        """
        if cls in _BUILT_IN:
            raise ConfigurationError(f"{_type_name(cls)} is storable already and cannot be registered")
        if encode is None and decode is None:
            encode, decode = _functions(cls)
        elif encode is None or decode is None:
            raise ConfigurationError(f"{_type_name(cls)}: give both encode and decode, or neither")
        label = _type_name(cls) if name is None else name
        if not label or not _is_text(label):
            raise ConfigurationError(f"{_type_name(cls)}: its name must be text and not empty")
        fixed = issubclass(cls, Enum) if immutable is None else immutable
        known = _Registration(label, encode, decode, fixed)
        with self._lock:
            if cls in self._registered:
                raise ConfigurationError(f"{_type_name(cls)} is registered already")
            if label in self._named:
                raise ConfigurationError(f"the name {label!r} is registered already: give another one")
            # By name first: what another thread can encode, it can decode.
            self._named[label] = known
            self._registered[cls] = known

    def encode(self, value: object) -> bytes:
        """The bytes of a value; the same for the same value, wherever and whenever it was made.

        "The same" is stricter than ``==``: 1, True and 1.0 differ, and so do dicts in another order.

        Raises:
            Unencodable: A type is not storable, nesting is deeper than `MAX_DEPTH` (as in a value that contains
                itself), or a str is not Unicode text. The message says where and what to do.
        """
        try:
            if type(value) in _SCALARS or _is_plain(value):
                return _write(value)
            return _write(self._quick.convert(value, 0))
        except _RefusedError as refused:
            raise _unencodable(refused) from refused.__cause__
        except (OverflowError, ValueError):
            pass
        try:
            return _write(self._careful.convert(value, 0))
        except _RefusedError as refused:
            raise _unencodable(refused) from refused.__cause__
        except (OverflowError, ValueError) as error:
            # Over four gigabytes in one piece, or a time zone whose name is no text.
            raise Unencodable(
                _type_name(type(value)), "", f"a part of it cannot be stored ({type(error).__name__})"
            ) from error

    def decode(self, data: bytes) -> Any:
        """The value that `encode` made these bytes of.

        Time and memory are bounded by a small multiple of the size of `data`, whoever wrote it.

        Raises:
            Undecodable: These are not bytes that this codec writes, or they hold a type that is not registered.
        """
        try:
            value = self._decoders[0].decode(data)
            # Fewer bytes cannot nest deeper: a container costs at least one.
            fits = len(data) <= MAX_DEPTH or not _too_deep(value)
        except Exception as error:  # noqa: BLE001 - storage may hold anything, and decode functions raise anything
            # No cause: its message may quote the value, and this error gets logged.
            raise Undecodable(f"stored bytes cannot be decoded ({type(error).__name__})") from None
        if not fits:
            raise Undecodable(f"stored bytes nest deeper than {MAX_DEPTH} levels")
        return value

    def is_mutable(self, value: object) -> bool:
        """Whether a value can change in place: True also for registered types not said to be immutable."""
        left = [value]
        while left:
            item = left.pop()
            kind = type(item)
            if kind is tuple or kind is frozenset:
                left += item  # type: ignore[arg-type]
            elif kind not in _SIMPLE:
                known = self._registered.get(kind)
                if known is None or not known.immutable:
                    return True
        return False

    def _extension(self, level: int, tag: int, view: memoryview) -> Any:
        if tag in _LEAF_READERS:
            return _LEAF_READERS[tag](bytes(view))
        _ensure(level <= MAX_DEPTH, "too deep")
        held = self._decoders[level + 1].decode(view)
        _ensure(type(held) is list, "not the payload of an extension")
        if tag == _REGISTERED:
            name, inner = held
            # What an application's function makes of it is opaque to the look at the whole value.
            _ensure(not _too_deep(inner), "too deep")
            return self._named[name].decode(inner)
        return _NEST_READERS[tag](held)


def _unencodable(refused: _RefusedError) -> Unencodable:
    steps = refused.steps[::-1]
    if len(steps) > _PATH_STEPS:
        steps[_PATH_STEPS:] = ["[…]"]
    return Unencodable(_type_name(refused.kind), "".join(steps), refused.why)
