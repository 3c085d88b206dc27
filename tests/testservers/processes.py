"""Whole trees of processes: stop, go on, kill; and a guard that kills them when the test process is gone.

The guard is a process of its own (``python processes.py PID``), because the kernel's own means, PR_SET_PDEATHSIG, goes
off when the *thread* that started a server ends, and is forgotten when a server changes its user.
"""

from __future__ import annotations

import atexit
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["guard", "kill_tree", "running", "signal_tree", "stopped", "unguard"]


def _stat(pid: int | str) -> tuple[str, int] | None:
    """Give the state and the parent of a process, or of a thread given as PID/task/TID."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def running(pid: int) -> bool:
    """Tell whether a process is there and not merely waited for."""
    found = _stat(pid)
    return found is not None and found[0] not in "ZX"


def stopped(pid: int) -> bool:
    """Tell whether none of a process's threads can do anything: a signal takes a while on a busy machine."""
    try:
        threads = [entry.name for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return True
    states = [_stat(f"{pid}/task/{thread}") for thread in threads]
    return all(found is None or found[0] in "TtZX" for found in states)


def _tree(root: int) -> list[int]:
    """Give a process and all below it. Process groups would not do: each process of PostgreSQL has its own."""
    children: dict[int, list[int]] = {}
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        if (found := _stat(pid)) is not None:
            children.setdefault(found[1], []).append(pid)
    tree = [root]
    for pid in tree:
        tree += children.get(pid, ())
    return tree


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def signal_tree(root: int, number: signal.Signals) -> list[int]:
    """Send a signal to a process first and then to all below it; give their ids."""
    _send(root, number)
    tree = _tree(root)
    for pid in tree[1:]:
        _send(pid, number)
    return tree


def kill_tree(root: int) -> list[int]:
    """SIGKILL a process and all below it, so that none of them can do anything more; give their ids."""
    _send(root, signal.SIGSTOP)  # so that it starts no others meanwhile, nor cleans up after the first that is dead
    tree = _tree(root)
    for pid in tree:
        _send(pid, signal.SIGKILL)
    return tree


class _Guard:
    """The guard of this process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(self.owner)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # what is typed at the terminal is not for it
            cwd="/",
        )
        atexit.register(self.end)

    def tell(self, line: str) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(f"{line}\n".encode())
        pipe.flush()

    def end(self) -> None:
        """Let it clear away what is left, and wait for it."""
        pipe = self._process.stdin
        if self.owner == os.getpid() and pipe is not None:
            pipe.close()
            self._process.wait()


_lock = threading.Lock()
_guards: list[_Guard] = []


def guard(what: int | Path) -> None:
    """See to it that a tree of processes is killed, or a folder removed, when this process ends."""
    with _lock:
        if not _guards or _guards[-1].owner != os.getpid():
            _guards.append(_Guard())
        _guards[-1].tell(f"+{what}")


def unguard(what: int | Path) -> None:
    """Forget what `guard` was asked to see to."""
    with _lock:
        if _guards and _guards[-1].owner == os.getpid():
            _guards[-1].tell(f"-{what}")


def _watch(owner: int) -> None:
    """Keep the list until the owner is gone, and then clear it away."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    listed: dict[str, None] = {}
    for line in _told(owner):
        sign, what = line[:1], os.fsdecode(line[1:])
        if sign == b"+":
            listed[what] = None
        elif sign == b"-":
            listed.pop(what, None)
    for what in listed:
        if what.isdigit():
            kill_tree(int(what))
    for what in listed:
        if not what.isdigit():
            shutil.rmtree(what, ignore_errors=True)


def _told(owner: int) -> Iterator[bytes]:
    """Give the lines that the owner writes, until it is gone and all of them are read.

    A process that the owner forked keeps the pipe open, so the end of the pipe is not the only sign.
    """
    os.set_blocking(0, False)
    waiting = select.poll()
    waiting.register(0, select.POLLIN)
    try:
        watched = os.pidfd_open(owner)
    except ProcessLookupError:
        watched = None
    else:
        waiting.register(watched, select.POLLIN)
    rest = b""
    alive = watched is not None and os.getppid() == owner
    while True:
        if alive:
            alive = watched not in {descriptor for descriptor, _ in waiting.poll()}
        try:
            more = os.read(0, 1 << 20)
        except BlockingIOError:
            if alive:
                continue
            return
        if not more:
            return
        *lines, rest = (rest + more).split(b"\n")
        yield from lines


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
