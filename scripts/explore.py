"""Explore chosen triples of requests, on storage in memory: `make explore`. Pairs are in the tests.

Prints the figures of each triple, and ends with an error where the model cannot explain an outcome.
"""  # noqa: INP001 (a program, not a package)

from __future__ import annotations

import logging
import sys
import time
from typing import Final

from coatcheck.drivers.memory import MemoryDriver
from coatcheck.testing import explore

TRIPLES: Final = [
    (("append", "append", "append"), "logged in"),
    (("append", "append", "append, renewal due"), "just renewed"),
    (("increment", "increment", "log in, keep"), "anonymous"),
    (("read", "read and change", "write unread"), "anonymous"),
    (("append", "log out", "revoke the user"), "logged in"),
    (("write unread", "log in", "log out"), "anonymous"),
    (("append", "rotate", "log out"), "logged in"),
    (("log in", "log in, keep", "revoke the user"), "anonymous"),
]
"""Kinds of requests, and what they find."""


def main() -> int:
    """Explore, print, and return the number of triples with an outcome that the model cannot explain."""
    logging.disable(logging.CRITICAL)
    schedules = states = failed = 0
    began = time.process_time()
    for triple, beginning in TRIPLES:
        found = explore(MemoryDriver, [triple], [beginning], most_failures=1)
        schedules, states, failed = schedules + found.schedules, states + found.states, failed + bool(found.failures)
        _say(f"{' + '.join(triple) + ', ' + beginning:60} {found.schedules:8,} {found.states:9,}")
        for failure in found.failures:
            _say(failure)
    seconds = time.process_time() - began
    _say(f"{len(TRIPLES)} triples: {schedules:,} orders, {states:,} states, {seconds:.0f} s of CPU, {failed} failed")
    return failed


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
