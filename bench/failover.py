"""What a failover takes: writes and logouts that were acknowledged and are gone, and how long writes failed.

    python bench/failover.py                    all kinds, three rounds each
    python bench/failover.py --kind asked --replicas 1 --durable 0
    python bench/failover.py --update-docs      and put the table into docs/engines/redis.md

Four threads count in sessions of their own and log sessions out, without a pause, while Sentinel puts another server in
the primary's place: because it was asked to, because the primary was killed, or because it stood still for a while.
Everything runs on loopback, with three sentinels that count a primary as lost after a second of silence.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "tests"))

from testservers import RedisSentinel, ServerError, scratch, wait_until  # noqa: E402 (they are not installed)

from coatcheck.drivers import open_async_driver, open_driver  # noqa: E402
from coatcheck.drivers.base import Driver  # noqa: E402
from coatcheck.errors import DriverUnavailable  # noqa: E402
from coatcheck.record import Committed, Delta, Record  # noqa: E402
from coatcheck.testing import Blocking, make_record  # noqa: E402

PAGE: Final = FOLDER.parent / "docs" / "engines" / "redis.md"
BEGIN: Final = "<!-- bench/failover.py writes from here -->"
END: Final = "<!-- to here -->"
THREADS: Final = 4
BEFORE: Final = 1.0
SESSIONS: Final = 1000
AFTER: Final = 11.0
"""Seconds; longer than Sentinel leaves an old primary that answers in its old part."""

COUNT: Final = ("", "n")


@dataclass
class Tally:
    """What one thread was told.

    Attributes:
        record: The session in which it counts.
        waiting: Sessions that are there, to be ended.
        counted: How many increments were acknowledged.
        ended: The sessions whose logout was acknowledged.
        failures: When a write failed.
        back: When the first one after the last failure was acknowledged.
    """

    record: Record
    waiting: list[bytes]
    counted: int = 0
    ended: list[bytes] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    back: float = 0.0


@dataclass(frozen=True)
class Found:
    """What a failover took.

    Attributes:
        writes: How many were acknowledged.
        lost: How many of these are gone.
        logouts: How many logouts were acknowledged.
        revived: How many of these sessions live.
        failed: How many writes failed.
        seconds: From the first failure until writes worked again; infinite where they did not.
    """

    writes: int
    lost: int
    logouts: int
    revived: int
    failed: int
    seconds: float


def _stored(driver: Driver) -> Record:
    record = make_record(time.time(), user="ada", values={COUNT: 0})
    assert isinstance(driver.create(record, time.time()), Committed)
    return record


def _work(driver: Driver, tally: Tally, over: threading.Event) -> None:
    turn = 0
    while not over.is_set():
        turn += 1
        now = time.time()
        try:
            if turn % 20 or not tally.waiting:
                assert isinstance(driver.commit(tally.record.digest, Delta(increments={COUNT: 1}), now), Committed)
                tally.counted += 1
            else:
                digest = tally.waiting.pop()
                assert driver.revoke(digest, now)
                tally.ended.append(digest)
        except (DriverUnavailable, AssertionError):
            tally.failures.append(time.monotonic())
            time.sleep(0.01)
        else:
            if tally.failures and tally.back < tally.failures[-1]:
                tally.back = time.monotonic()


def _asked(group: RedisSentinel) -> None:
    wait_until(lambda: group.sentinels[0].command("SENTINEL", "FAILOVER", group.service), "the failover to begin")


def _killed(group: RedisSentinel) -> None:
    group.primary().kill()


def _stood_still(group: RedisSentinel) -> None:
    old = group.primary()
    old.pause()
    group.failed_over(old)
    old.resume()


KINDS: Final[dict[str, tuple[str, Callable[[RedisSentinel], None]]]] = {
    "asked": ("`SENTINEL FAILOVER`", _asked),
    "killed": ("the primary is killed", _killed),
    "stood still": ("the primary stands still, and goes on later", _stood_still),
}


def measure(group: RedisSentinel, kind: str, *, durable: int, asynchronous: bool) -> Found:
    """Let one failover happen under load."""
    url = f"{group.url}?prefix=b{time.time_ns()}" + (f"&durable=replicas:{durable}" if durable else "")
    driver: Driver = Blocking(open_async_driver(url)) if asynchronous else open_driver(url)
    driver.setup()
    tallies = [Tally(_stored(driver), [_stored(driver).digest for _ in range(SESSIONS)]) for _ in range(THREADS)]
    over = threading.Event()
    threads = [threading.Thread(target=_work, args=(driver, tally, over)) for tally in tallies]
    for thread in threads:
        thread.start()
    try:
        time.sleep(BEFORE)
        with group.alert():
            old = group.primary()
            KINDS[kind][1](group)
            group.failed_over(old)
            time.sleep(AFTER)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return _judged(driver, tallies)


def _judged(driver: Driver, tallies: list[Tally]) -> Found:
    lost = revived = 0
    for tally in tallies:
        found = driver.load(tally.record.digest, time.time())
        count = found.values[COUNT].data if isinstance(found, Record) else 0
        assert isinstance(count, int)
        lost += max(0, tally.counted - count)
        revived += sum(isinstance(driver.load(digest, time.time()), Record) for digest in tally.ended)
    failures = [moment for tally in tallies for moment in tally.failures]
    back = max(tally.back for tally in tallies)
    driver.close()
    return Found(
        writes=sum(tally.counted for tally in tallies),
        lost=lost,
        logouts=sum(len(tally.ended) for tally in tallies),
        revived=revived,
        failed=len(failures),
        seconds=inf if failures and back < max(failures) else back - min(failures) if failures else 0.0,
    )


def _range(values: list[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def line(replicas: int, kind: str, durable: int, found: list[Found]) -> str:
    """Give a row of the table."""
    cells = [
        KINDS[kind][0],
        f"{replicas}",
        f"`replicas:{durable}`" if durable else "-",
        f"{_range([each.lost for each in found], ',.0f')} of {_range([each.writes for each in found], ',.0f')}",
        f"{_range([each.revived for each in found], '.0f')} of {_range([each.logouts for each in found], ',.0f')}",
        _range([each.failed for each in found], ",.0f"),
        "does not end" if found[0].seconds == inf else f"{_range([each.seconds for each in found], '.1f')} s",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure what was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--replicas", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--durable", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--async", dest="asynchronous", action="store_true")
    parser.add_argument("--update-docs", action="store_true")
    options = parser.parse_args()
    rows = [
        "| what happens | replicas | `durable` | acknowledged writes lost | logouts undone | writes failed | within |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(rows), flush=True)
    for replicas in options.replicas:
        with scratch() as folder, RedisSentinel(folder / "group", replicas=replicas) as group:
            for kind in options.kind:
                for durable in options.durable:
                    found: list[Found] = []
                    while len(found) < options.rounds:
                        try:
                            found.append(measure(group, kind, durable=durable, asynchronous=options.asynchronous))
                        except ServerError as error:
                            print(f"once more: {error}", file=sys.stderr)
                        wait_until(lambda: group.heal() is None, "all servers")
                    rows.append(line(replicas, kind, durable, found))
                    print(rows[-1], flush=True)
    if options.update_docs:
        text = PAGE.read_text("utf-8")
        head, _, rest = text.partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(rows) + f"\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
