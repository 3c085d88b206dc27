"""A bounded slice of the fuzzer, and the inputs that have made trouble elsewhere. `fuzz.py` runs it for longer."""

from __future__ import annotations

import io
import pickle
import random
import runpy
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coatcheck import Codec, SessionManager
from coatcheck.codec import Undecodable

HERE = Path(__file__).parent
_targets = runpy.run_path(str(HERE / "targets.py"))
_fuzz = runpy.run_path(str(HERE / "fuzz.py"))
TARGETS: dict[str, Any] = _targets["TARGETS"]
fuzz, mutate, WrongError = _fuzz["fuzz"], _fuzz["mutate"], _fuzz["WrongError"]
NAME = "__Host-sid"


@pytest.mark.parametrize("name", TARGETS)
def test_a_slice_of_the_fuzzer(tmp_path: Path, name: str) -> None:
    """A new seed each time; where it fails, the message has it."""
    target = TARGETS[name](tmp_path)
    iterations = 10_000 if name == "encodings" else 1500
    outcomes = fuzz(target, iterations, random.randrange(2**32))  # noqa: S311 (no secret)
    target.close()
    assert outcomes.total() == iterations
    assert len(outcomes) > 3, "the inputs are all of one kind"


@pytest.mark.slow
def test_the_program_runs_and_fails_loudly(tmp_path: Path) -> None:
    command = [sys.executable, HERE / "fuzz.py", "--iterations", "50", "--seed", "3", "--target", "encodings"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("seed 3\nencodings: 50 inputs")

    class Brittle:
        corpus = (b"corpus",)

        def run(self, data: bytes, chance: random.Random) -> object:
            return data.decode("ascii")

    with pytest.raises(WrongError, match=r"iteration \d+ of seed 4: b") as caught:
        fuzz(Brittle(), 1000, 4)
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)


def test_the_same_seed_gives_the_same_inputs() -> None:
    corpus = [b"one", b"another"]
    runs = [[mutate(chance, b"seed", corpus) for _ in range(100)] for chance in (random.Random(5), random.Random(5))]  # noqa: S311
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 50


# -- the Cookie header ----------------------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    ["__Host-sid", "sid", "=", ";", "; ", " ", "\t", ",", '"', "\\", "\0", "\xa0", "$Path", "A" * 32]
)
_HEADERS = st.lists(_PIECES | st.text(st.characters(max_codepoint=255), max_size=8), max_size=30).map("".join)


@pytest.fixture(params=["memory:", "sqlite:///{}/sessions.db"], ids=["memory", "sqlite"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    site = _targets["Site"](request.param.format(tmp_path))
    site.manager.driver.setup()
    yield site
    site.manager.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=_HEADERS, after=_HEADERS, writes=st.booleans())
@example(before="", after="", writes=True)
def test_whatever_stands_around_a_cookie(site: Any, before: str, after: str, *, writes: bool) -> None:
    """A token that was never issued opens nothing and is never taken on, whatever stands around it."""
    planted = "B" * 32
    header = f"{before}; {NAME}={planted}; {after}"
    stored = site.digests()
    answer = site.send(header, lambda session: session.update(mine=1) if writes else dict(session))
    new = site.digests() - stored
    if writes:
        assert planted not in answer
        assert len(new) == 1
    else:
        assert (answer, site.result, new) == (None, {}, set())
    assert not new & {_targets["Token"](text).digest for text in (planted, "A" * 32)}


@pytest.mark.parametrize("header", [
    "\\" * 65536,
    NAME + "=" + "\\" * 65000,
    f'{NAME}="' + "\\" * 65000,
    f'{NAME}="' + '\\"' * 32000,
    NAME + "=" + '"' * 65000,
    "\\" * 30000 + f"; {NAME}=" + "\\" * 30000,
    NAME * 6500,
    f"{NAME}=;" * 5900,
    ";" * 65536,
    "=" * 65536,
    " " * 65536,
    f"{NAME}=" + " " * 65000 + "x",
    f"{NAME}={'C' * 32};" * 999,
], ids=lambda header: f"{header[:14]!r}...{len(header)}")  # fmt: skip
def test_64_kilobytes_in_under_50_ms(site: Any, header: str) -> None:
    """The bound is for the whole request: found, loaded, answered (CVE-2024-7592 took quadratic time)."""
    site.new(other=1)
    times = []
    for _ in range(5):
        begin = time.thread_time()  # other programs' time does not count
        assert site.send(header, dict) is None
        times.append(time.thread_time() - begin)
    assert site.result == {}
    assert min(times) < 0.05


# -- stored bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bomb", _targets["BOMBS"], ids=lambda bomb: repr(bomb[:12]))
def test_a_bomb_in_storage_is_never_set_off(tmp_path: Path, bomb: bytes) -> None:
    """A planted pickle is not run (checklist F1); depth, length and number bombs cost nothing (F2)."""
    target = TARGETS["values"](tmp_path)
    outcome = target.run(bomb, random.Random(1))  # noqa: S311 (no secret)
    if bomb[:2] != b"\xd6\xff":  # that one is a moment of MessagePack's own
        assert outcome[0], "something came of it"
    target.close()


def test_the_bombs_are_live() -> None:
    """What `watch` looks for would be seen: otherwise the tests above prove nothing."""
    _targets["watch"]()
    _targets["unwatch"]()
    _targets["watch"]()
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        Refusing(io.BytesIO(_targets["BOMBS"][0])).load()
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        Refusing(io.BytesIO(_targets["BOMBS"][1])).load()
    pickle.loads(pickle.dumps(Path))  # noqa: S301 (its own)
    with pytest.raises(AssertionError, match=r"pickle\.find_class"):
        _targets["unwatch"]()


class Refusing(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"refused: {module}.{name}")


_STORABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=4)
        | st.dictionaries(st.text(max_size=3), st.integers(), max_size=4).map(Counter)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(value=_STORABLE, position=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_a_changed_byte_of_a_valid_encoding(value: object, position: int, byte: int, *, cut: bool) -> None:
    """It gives a value or `Undecodable`: no other exception, and no value that could not be stored again."""
    codec = Codec()
    data = bytearray(codec.encode(value))
    assert codec.decode(bytes(data)) == value
    if cut:
        del data[position % len(data) :]
    else:
        data[position % len(data)] = byte
    try:
        found = codec.decode(bytes(data))
    except Undecodable:
        return
    again = codec.encode(found)
    assert codec.encode(codec.decode(again)) == again


def test_a_spoilt_value_neither_moves_nor_spreads(tmp_path: Path) -> None:
    """Unreadable bytes stay as they are, through reads, writes of other keys and a rotation, until overwritten."""
    target = TARGETS["values"](tmp_path)
    target.raw.execute("UPDATE coatcheck_value SET data = x'c1c1' WHERE key = 'bad'")
    cookie = target.cookie

    def held() -> object:
        return target.raw.execute("SELECT data FROM coatcheck_value WHERE key = 'bad'").fetchone()

    for handler in (dict, lambda session: session.update(good="new"), lambda session: session.rotate()):
        answer = target.site.send(cookie, handler)
        cookie = answer.partition(";")[0] if answer else cookie
        assert held() == (b"\xc1\xc1",)
    target.site.send(cookie, dict)
    assert target.site.result == {"good": "new"}
    target.site.send(cookie, lambda session: session.setdefault("bad", "mended"))
    target.site.send(cookie, dict)
    assert target.site.result == {"good": "new", "bad": "mended"}
    target.close()


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"ok\xed\xa0\x80"])
@pytest.mark.parametrize(("table", "column"), [
    ("session", "sid"), ("session", "user"), ("value", "app"), ("value", "key"), ("value", "data"), ("ended", "reason"),
])  # fmt: skip
def test_text_that_is_no_utf8_is_never_an_outage(tmp_path: Path, table: str, column: str, text: bytes) -> None:
    """SQLite hands out text that is no Unicode as an error of the engine; it is a spoilt row, and no 503."""
    target = TARGETS["rows"](tmp_path)
    for handler in _targets["HANDLERS"]:
        target._repair()
        only = {"session": "WHERE id = 1", "value": "WHERE key = 'bad'", "ended": ""}[table]
        target.raw.execute(f"UPDATE coatcheck_{table} SET {column} = CAST(? AS TEXT) {only}", (text,))  # noqa: S608
        target.site.send(target.ended if table == "ended" else target.cookie, handler)
        target.site.send(target.neighbour, dict)
        assert target.site.result == {"mine": "unharmed"}
    if table == "value":
        target._repair()
        target.raw.execute(f"UPDATE coatcheck_value SET {column} = CAST(? AS TEXT) WHERE key = 'bad'", (text,))  # noqa: S608
        target.site.send(target.cookie, dict)
        assert target.site.result == {"good": "unharmed"}
    target.close()


@pytest.mark.parametrize("spoilt", ["x'00'", "'soon'", "NULL"])
def test_a_spoilt_fence_keeps_nobody_out(tmp_path: Path, spoilt: str) -> None:
    target = TARGETS["rows"](tmp_path)
    manager: SessionManager = target.site.manager
    if spoilt != "NULL":  # which the table refuses
        target.raw.execute(f"UPDATE coatcheck_fence SET at = {spoilt}")  # noqa: S608 (a constant)
    else:
        target.raw.execute("DELETE FROM coatcheck_fence")
    target.site.send(None, lambda session: session.login("ada"))
    assert len(manager.sessions_of("ada")) == 1
    target.close()
