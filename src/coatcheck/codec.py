"""Python values as opaque bytes, and exactly the same values back, types included.

The bytes are MessagePack. Trees of dicts, lists and scalars are plain MessagePack, which msgspec reads and writes at
the speed of C; every other type is an extension with a tag of its own. msgspec alone would turn tuples into lists,
dates into strings and subclasses into their bases silently: hence the walk over exact types that comes before
it. Nothing is ever imported because stored data says so: the types of an application are registered by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from enum import Enum
from fractions import Fraction
from functools import partial
from threading import Lock
from typing import Any, Final

from msgspec import Raw
from msgspec.msgpack import Decoder, Encoder, Ext

from coatcheck._forms import (
    COUNTER,
    COUNTS,
    FRACTION,
    FRACTION_BITS,
    FROZENSET,
    INT,
    LEAF_READERS,
    LEAVES,
    NEST_READERS,
    PAIRS,
    RANGE,
    REGISTERED,
    SET,
    TUPLE,
    RefusedError,
    ensure,
    full_name,
    is_text,
    write_int,
)
from coatcheck._kinds import functions_of, is_namedtuple
from coatcheck.errors import CoatcheckError, ConfigurationError

__all__ = ["MAX_DEPTH", "Codec", "Undecodable", "Unencodable", "encode_plain"]

MAX_DEPTH: Final = 64
"""The most containers that may stand inside one another."""

_PATH_STEPS: Final = 10
"""The most steps of the path to a refused value that a message shows."""

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1

_to_msgpack = Encoder().encode


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


@dataclass(frozen=True, slots=True)
class _Registration:
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    immutable: bool


def path_step(key: object) -> str:
    """Return a dict's key as a step of a path: short, and its text only if that is harmless to make."""
    text = repr(key) if type(key) in (str, int, bool) else f"<{type(key).__name__}>"
    return f"[{text[:40]}]"


def _refusal(kind: type) -> str:
    """Return why a type is refused, and the call that makes it storable."""
    name = full_name(kind)
    if issubclass(kind, Enum) or is_dataclass(kind) or is_namedtuple(kind):
        return f"{name} cannot be stored before codec.register({name})"
    base = next((base for base in kind.__mro__ if base in _BUILT_IN_TYPES), None)
    turn = f" turn it into a plain {base.__name__}, or" if base else ""
    return f"{name} cannot be stored as it is:{turn} codec.register({name}, name, encode, decode)"


def _too_deep_error(kind: type) -> RefusedError:
    return RefusedError(kind, f"containers nest deeper than {MAX_DEPTH} levels, or one contains itself")


_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_NESTS: Final = frozenset({list, dict, tuple, set, frozenset, Counter})
_BUILT_IN_TYPES: Final = _SCALARS | _NESTS | {Fraction, range} | LEAVES.keys()
_SIMPLE: Final = _BUILT_IN_TYPES - _NESTS - {bytearray}


def _is_plain(value: Any, found: list[Any], depth: int = 1) -> bool:
    """Check whether msgspec may have a list or dict as it is. Most values are like that, and get no other walk.

    Each list and dict that it comes by is added to *found*.
    """
    kind = type(value)
    if kind is dict:
        found.append(value)
        for key, member in value.items():
            if type(key) is not str or (
                type(member) not in _SCALARS and (depth >= MAX_DEPTH or not _is_plain(member, found, depth + 1))
            ):
                return False
        return True
    if kind is not list:
        return False
    found.append(value)
    for member in value:
        if type(member) not in _SCALARS and (depth >= MAX_DEPTH or not _is_plain(member, found, depth + 1)):
            return False
    return True


def encode_plain(value: object) -> tuple[bytes, list[Any]] | None:
    """Return the bytes of a value and the lists and dicts in it; None if anything else but scalars is in it."""
    found: list[Any] = []
    if not _is_plain(value, found):
        return None
    try:
        return _to_msgpack(value), found
    except (OverflowError, ValueError):  # then `Codec.encode` has to look at every part
        return None


def _too_deep(value: object) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        members: list[Any] = []
        for nest in level:
            if type(nest) is dict:
                members += nest.values()
                members += nest  # keys nest too, as tuples and frozensets
            elif type(nest) in _NESTS:
                members += nest  # of a Counter its keys, since its counts are numbers
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

    def convert(self, value: Any, depth: int) -> Any:
        """Return what msgspec writes for a value with that many containers around it: if it can, the value itself."""
        kind = type(value)
        if kind in self._plain:
            return value
        if kind is dict:
            return self._dict(value, depth)
        if kind is list:
            return self._list(value, depth)
        if kind in LEAVES:
            tag, write, _ = LEAVES[kind]
            return Ext(tag, write(value))
        if kind is tuple:
            return Ext(TUPLE, _to_msgpack(self._list(value, depth)))
        if kind is set or kind is frozenset:
            # Sets of equal members may iterate differently; their bytes must not differ.
            members = sorted(map(_to_msgpack, self._list(list(value), depth)))
            return Ext(SET if kind is set else FROZENSET, _to_msgpack(list(map(Raw, members))))
        if kind in self._registered:
            return self._application(self._registered[kind], value, depth)
        return self._rare(kind, value, depth)

    def _rare(self, kind: type, value: Any, depth: int) -> Any:
        if kind is int:
            return value if _INT_MIN <= value <= _INT_MAX else Ext(INT, write_int(value))
        if kind is str:
            if not is_text(value):
                raise RefusedError(str, "text with a lone surrogate cannot be stored: store bytes instead")
            return value
        if kind is Fraction:
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > FRACTION_BITS:
                raise RefusedError(Fraction, f"a Fraction over {FRACTION_BITS} bits cannot be stored")
            return Ext(FRACTION, _to_msgpack(self._list([value.numerator, value.denominator], depth - 1)))
        if kind is range:
            return Ext(RANGE, _to_msgpack(self._list([value.start, value.stop, value.step], depth - 1)))
        if kind is Counter:
            return self._counter(value, depth)
        raise RefusedError(kind, _refusal(kind))

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
        except RefusedError as refused:
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
        except RefusedError as refused:
            refused.steps.append(path_step(key))
            raise
        return self._pairs(value, depth)

    def _counter(self, value: Counter[Any], depth: int) -> Ext:
        if depth >= MAX_DEPTH:
            raise _too_deep_error(Counter)
        for key, count in value.items():
            if type(count) not in COUNTS:
                refused = RefusedError(type(count), "a count of a Counter must be an int, float, Decimal or Fraction")
                refused.steps.append(path_step(key))
                raise refused
        return self._pairs(value, depth, COUNTER)

    def _pairs(self, value: dict[Any, Any], depth: int, tag: int = PAIRS) -> Ext:
        """Return a dict with keys that are no scalars. MessagePack's own maps would lose the types of such keys."""
        flat: list[Any] = []
        key = None
        try:
            for key, item in value.items():
                flat += (self.convert(key, depth + 1), self.convert(item, depth + 1))
        except RefusedError as refused:
            refused.steps.append(path_step(key))
            raise
        return Ext(tag, _to_msgpack(flat))

    def _application(self, known: _Registration, value: Any, depth: int) -> Ext:
        if depth >= MAX_DEPTH:
            raise _too_deep_error(type(value))
        try:
            inner = known.encode(value)
        except Exception as error:
            why = f"the encode function registered for {full_name(type(value))} raised {type(error).__name__}"
            raise RefusedError(type(value), why) from error
        return Ext(REGISTERED, _to_msgpack([known.name, self.convert(inner, depth + 1)]))


class Codec:
    """Encodes values to bytes and decodes them to exactly equal values of exactly the same types.

    Stored as they are: None, bool, int and float (any), str, bytes, bytearray, list, tuple, dict (any hashable keys;
    the order is kept), set, frozenset, Counter (of int, float, Decimal or Fraction), Decimal, Fraction, complex, range,
    UUID, datetime, date, time, timedelta, timezone and ZoneInfo. Every other type, subclasses of these included, is
    refused unless it is registered.
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
        if cls in _BUILT_IN_TYPES:
            raise ConfigurationError(f"{full_name(cls)} is storable already and cannot be registered")
        if encode is None and decode is None:
            encode, decode = functions_of(cls)
        elif encode is None or decode is None:
            raise ConfigurationError(f"{full_name(cls)}: pass both encode and decode, or neither")
        label = full_name(cls) if name is None else name
        if not label or not is_text(label):
            raise ConfigurationError(f"{full_name(cls)}: its name must be text and not empty")
        fixed = issubclass(cls, Enum) if immutable is None else immutable
        known = _Registration(label, encode, decode, fixed)
        with self._lock:
            if cls in self._registered:
                raise ConfigurationError(f"{full_name(cls)} is registered already")
            if label in self._named:
                raise ConfigurationError(f"the name {label!r} is registered already: use another one")
            # By name first: what another thread can encode, it can decode.
            self._named[label] = known
            self._registered[cls] = known

    def encode(self, value: object) -> bytes:
        """Return the bytes of a value: the same bytes for the same value, on every machine and at any time.

        "The same" is stricter than ``==``: 1, True and 1.0 differ, and so do dicts in another order.

        Raises:
            Unencodable: A type is not storable, nesting is deeper than `MAX_DEPTH` (as in a value that contains
                itself), or a str is not Unicode text. The message names the place and the remedy.
        """
        try:
            if type(value) in _SCALARS or _is_plain(value, []):
                return _to_msgpack(value)
            return _to_msgpack(self._quick.convert(value, 0))
        except RefusedError as refused:
            raise _unencodable(refused) from refused.__cause__
        except (OverflowError, ValueError):
            pass
        try:
            return _to_msgpack(self._careful.convert(value, 0))
        except RefusedError as refused:
            raise _unencodable(refused) from refused.__cause__
        except (OverflowError, ValueError) as error:
            # Over four gigabytes in one piece, or a time zone whose name is no text.
            raise Unencodable(
                full_name(type(value)), "", f"a part of it cannot be stored ({type(error).__name__})"
            ) from error

    def decode(self, data: bytes) -> Any:
        """Return the value that `encode` made these bytes of.

        Time and memory are bounded by a small multiple of the size of `data`, even if an attacker wrote it.

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
        """Check whether a value can change in place. So can registered types that are not said to be immutable."""
        if type(value) in _SIMPLE:  # most values
            return False
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
        if tag in LEAF_READERS:
            return LEAF_READERS[tag](bytes(view))
        ensure(level <= MAX_DEPTH, "too deep")
        held = self._decoders[level + 1].decode(view)
        ensure(type(held) is list, "not the payload of an extension")
        if tag == REGISTERED:
            name, inner = held
            # What an application's function makes of it is opaque to the look at the whole value.
            ensure(not _too_deep(inner), "too deep")
            return self._named[name].decode(inner)
        return NEST_READERS[tag](held)


def _unencodable(refused: RefusedError) -> Unencodable:
    steps = refused.steps[::-1]
    if len(steps) > _PATH_STEPS:
        steps[_PATH_STEPS:] = ["[…]"]
    return Unencodable(full_name(refused.kind), "".join(steps), refused.why)
