"""From one million sessions to a hundred million: plain arithmetic on what was measured, with its assumptions named."""

# ruff: noqa: RUF001 (it is the sign of multiplication)

from __future__ import annotations

import math
from typing import Final, NamedTuple

from harness import table

from million.measure import Found

SESSIONS: Final = 100_000_000
REQUESTS: Final = 50_000
"""Requests that use a session, in a second at the peak."""
WRITING: Final = 0.2
"""The part of them that changes it."""
DAYS: Final = 7
"""Days that a session lives, on the average: so many are made and expire in a second."""
ENDING: Final = SESSIONS / DAYS / 86400
"""Sessions that end in a second."""
SHARD: Final = 16e9
"""Bytes of memory that a primary has for sessions."""
ROOM: Final = 1.3
"""Bytes that a primary needs for each byte that it says it uses: fragmentation, the buffers of its replica."""
BUSY: Final = 0.6
"""The part of a core, or of a link, that may be used at the peak."""
LINK: Final = 1e9 / 8
"""Bytes that a link carries in a second: 1 Gbit/s."""
COPIES: Final = 2
"""A primary and one replica."""
TAGS: Final = 256
"""Hash tags of the sessions in a cluster: the first byte of the digest."""
SLOTS: Final = 16384


class Need(NamedTuple):
    """What all sessions together need of something, and what one shard has of it."""

    what: str
    total: float
    one: float
    unit: str

    @property
    def shards(self) -> int:
        """How many shards that takes."""
        return math.ceil(self.total / self.one)

    def row(self) -> list[str]:
        """Give the row of a table."""
        return [self.what, f"{_short(self.total)} {self.unit}", f"{_short(self.one)} {self.unit}", f"{self.shards:,}"]


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 20 else f"{number:,.1f}" if number >= 1 else f"{number:.2f}"


def fullest(shards: int) -> float:
    """Give how full the fullest of some shards is, where each has the same number of slots: times the average."""
    from redis.crc import key_slot  # noqa: PLC0415 (only who measured Redis gets here)

    held = [0] * shards
    for tag in range(TAGS):
        held[key_slot(b"{%02x}" % tag) * shards // SLOTS] += 1
    return max(held) * shards / TAGS


def _redis(found: Found) -> list[str]:
    assert found.cpu is not None
    assert found.wire is not None
    size = found.size.data / found.sessions
    loads, commits = REQUESTS, REQUESTS * WRITING
    seconds = loads * found.cpu[0] + commits * found.cpu[1]
    sent = loads * found.wire[0] + commits * found.wire[1] * COPIES
    needs = [
        Need("memory", SESSIONS * size * ROOM / 1e9, SHARD / 1e9, "GB"),
        Need("processor", seconds, BUSY, "cores"),
        Need("network", sent * 8 / 1e6, LINK * 8 * BUSY / 1e6, "Mbit/s"),
    ]
    first = max(needs, key=lambda need: need.total / need.one)
    shards = max(need.shards for need in needs)
    crowded = fullest(min(shards, TAGS))
    rows = table(["", "in all", "one primary has", "primaries"], [need.row() for need in needs])
    return [
        "### Redis Cluster",
        rows,
        f"""\
- **Runs out first: {first.what}.** {shards} primaries and as many replicas; \
{_short(SESSIONS * size * ROOM * COPIES / 1e9)} GB in all.
- **The slots.** Sessions have {TAGS} hash tags. With {shards} primaries of as many slots each, the fullest one holds \
{crowded:.2f}× the average: {_short(crowded * SESSIONS * size * ROOM / shards / 1e9)} GB. Move slots by weight, or \
give each primary that much.
- **A new replica** of {SHARD / 1e9:g} GB takes {_short(SHARD / (LINK * BUSY) / 60)} minutes over one link; until then \
its primary stands alone.
- **Sessions that end:** {_short(ENDING)} a second in all. One server removed {_short(found.expiring / found.sweep)} \
a second by itself.""",
    ]


def _postgresql(found: Found) -> list[str]:
    assert found.cpu is not None
    assert found.log is not None
    size = found.size.data / found.sessions
    indexes = found.size.parts["indexes"] / found.sessions
    commits = REQUESTS * WRITING
    cores = REQUESTS * found.cpu[0] + commits * found.cpu[1]
    rate = found.expiring / found.sweep
    rows = [
        ["disk", f"{_short(SESSIONS * size / 1e9)} GB, of it indexes {_short(SESSIONS * indexes / 1e9)} GB"],
        ["processor at the peak", f"{_short(cores)} cores busy, {_short(cores / BUSY)} to have"],
        ["log", f"{_short(commits * found.log / 1e6)} MB a second at the peak"],
        [
            "sweeping",
            f"{_short(ENDING)} sessions a second end; one sweeper removes {_short(rate)}: {ENDING / rate:.1%}",
        ],
    ]
    return [
        "### PostgreSQL, one primary\n\n" + table(["", "needs"], rows),
        """\
- **Runs out first: the one primary.** All commits go to it, and all reads too, since a replica may be behind. Its \
indexes should fit into its memory.""",
    ]


def _sqlite(found: Found) -> list[str]:
    size = found.size.data / found.sessions
    writer = REQUESTS * WRITING * found.commit[1]
    reading = REQUESTS * found.load[1]
    rows = [
        ["disk", f"{_short(SESSIONS * size / 1e9)} GB"],
        ["the one writer at the peak", f"{writer:.0%} of its time" + (": too much" if writer > BUSY else "")],
        ["reading at the peak", f"{_short(reading)} cores, in the processes of the application"],
    ]
    return [
        "### SQLite, one host\n\n" + table(["", "needs"], rows),
        """\
- **Runs out first: the host.** Everything that uses these sessions has to run on it, and a back-up is as large as \
the file.""",
    ]


_BY_NAME: Final = {"Redis": _redis, "PostgreSQL": _postgresql, "SQLite": _sqlite}


def report(all_found: list[Found]) -> str:
    """Write the part of the document that follows from the measurements."""
    assumed = [
        ["sessions alive", f"{SESSIONS:,}, each as large as one of those measured"],
        ["requests that use a session, at the peak", f"{REQUESTS:,} a second, {WRITING:.0%} of them change it"],
        ["life of a session", f"{DAYS} days on the average"],
        ["a primary of Redis", f"{SHARD / 1e9:g} GB of memory, of which it needs {ROOM:g} bytes for each byte in use"],
        ["a core, a link", f"used to {BUSY:.0%} at the peak; a link carries {LINK * 8 / 1e9:g} Gbit/s"],
    ]
    parts = ["### What is assumed\n\n" + table(["", ""], assumed)]
    for name, give in _BY_NAME.items():
        for found in all_found:
            if found.name == name:
                parts += give(found)
    return "\n\n".join(parts)
