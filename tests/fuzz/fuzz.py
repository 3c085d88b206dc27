"""A fuzzer for all that comes from outside: Cookie headers, bodies, stored values, stored rows, encodings.

    python tests/fuzz/fuzz.py --iterations 1000000 --seed 7 --target cookies

It mutates a corpus of valid and of nasty inputs, and keeps what led to an outcome not seen before. Each target says
what has to hold for every input whatever; the first one that breaks it is raised with its iteration and the seed.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_INPUT = 4096
_KEEP = 2000
_SHOWN = 200
_NASTY = (
    b"", b"\0", b"\xff", b"\r\n", b";", b"=", b",", b'"', b"\\", b" ", b"\t", b"%00", b"../", b"__Host-", b"\xc3\xa9",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc1", b"\xc7\xff", b"\xc8\xff\xff", b"\xc9\xff\xff\xff\xff", b"\xdc\xff\xff",
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xd9\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 80,
    b"\x81\xa1a" * 40, b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"A" * 32, b"' OR 1=1 --",
)  # fmt: skip


class Target(Protocol):
    """Something that takes any bytes whatever."""

    corpus: Sequence[bytes]

    def run(self, data: bytes, chance: random.Random) -> object:
        """Work on *data*; give the kind of outcome, and raise where something is wrong."""

    def close(self) -> None:
        """Look at what all runs left behind, and clean up."""


class WrongError(Exception):
    """An input that breaks what has to hold.

    Attributes:
        data: The input.
    """

    def __init__(self, data: bytes, iteration: int, seed: int) -> None:
        shown = repr(data) if len(data) <= _SHOWN else f"{data[:_SHOWN]!r} and {len(data) - _SHOWN} bytes more"
        super().__init__(f"iteration {iteration} of seed {seed}: {shown}")
        self.data = data


def _flip(chance: random.Random, made: bytearray, at: int) -> None:
    made[at : at + 1] = bytes(byte ^ 1 << chance.randrange(8) for byte in made[at : at + 1])


def _repeat(chance: random.Random, made: bytearray, at: int) -> None:
    made[at:at] = made[at : at + chance.randrange(1, 33)] * chance.choice((1, 1, 2, 8, 64))


def _overwrite(chance: random.Random, made: bytearray, at: int) -> None:
    nasty = chance.choice(_NASTY)
    made[at : at + len(nasty)] = nasty


def _insert(chance: random.Random, made: bytearray, at: int) -> None:
    made[at:at] = chance.choice((chance.choice(_NASTY), chance.randbytes(chance.randrange(9))))


def _delete(chance: random.Random, made: bytearray, at: int) -> None:
    del made[at : at + chance.choice((1, 1, 2, 4, 8, MAX_INPUT))]


_CHANGES = (_flip, _flip, _insert, _insert, _delete, _delete, _repeat, _overwrite)


def mutate(chance: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Change *data* in one to four places, and now and then splice it with another of the corpus."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        at = chance.randrange(len(made) + 1)
        if chance.random() < 0.15:
            other = chance.choice(corpus)
            made[at : chance.choice((at, MAX_INPUT))] = other[chance.randrange(len(other) + 1) :]
        else:
            chance.choice(_CHANGES)(chance, made, at)
    return bytes(made[:MAX_INPUT])


def fuzz(
    target: Target,
    iterations: int,
    seed: int,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _outcomes: None,
    seconds: float | None = None,
) -> Counter[object]:
    """Run *target* on mutated inputs; give how often each kind of outcome came.

    Raises:
        WrongError: Something that has to hold did not. Its cause says what.
    """
    chance = random.Random(seed)  # noqa: S311 (no secret: the same seed gives the same run)
    corpus = list(target.corpus)
    outcomes: Counter[object] = Counter()
    until = None if seconds is None else time.monotonic() + seconds
    for done in range(iterations):
        if done < len(target.corpus):
            data = corpus[done]
        elif chance.random() < 0.02:
            data = chance.randbytes(chance.randrange(64))
        else:
            data = mutate(chance, chance.choice(corpus), corpus)
        try:
            outcome = target.run(data, chance)
        except Exception as error:
            raise WrongError(data, done, seed) from error
        outcomes[outcome] += 1
        if outcomes[outcome] <= 3 and len(corpus) < _KEEP:
            corpus.append(data)
        if done % 10000 == 0:
            on_progress(done, len(outcomes))
        if until is not None and time.monotonic() >= until:
            break
    return outcomes


def main() -> int:
    """Run from the command line; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=100_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="default: all of them")
    options = parser.parse_args()
    logging.getLogger("coatcheck").addHandler(logging.NullHandler())  # there will be a warning for most inputs
    print("seed", options.seed, flush=True)  # noqa: T201 (a program)
    for name in options.target or sorted(TARGETS):
        with tempfile.TemporaryDirectory() as folder:
            target = TARGETS[name](Path(folder))
            begin = time.monotonic()
            outcomes = fuzz(target, options.iterations, options.seed)
            target.close()
            took = time.monotonic() - begin
        print(f"{name}: {outcomes.total()} inputs in {took:.0f} s, {len(outcomes)} kinds of outcome")  # noqa: T201
        for outcome, times in outcomes.most_common(12):
            print(f"  {times:9d} {outcome}", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
