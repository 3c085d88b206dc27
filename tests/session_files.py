"""What the tests of the filesystem share: a look at its files, and work in a forked process."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

from stored import LATER

from coatcheck.drivers.base import Driver


def below(folder: Path, *without: str) -> list[Path]:
    """Give all files below a folder, but those in some of its folders."""
    found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(path for path in found if path.relative_to(folder).parts[0] not in without)


def the_file(root: Path, kind: str) -> Path:
    (found,) = below(root / kind)
    return found


def clean(driver: Driver, root: Path) -> None:
    """Let all that is there come to its end, and see that nothing is left of it."""
    for _ in range(2):
        driver.sweep(LATER, 10_000)
    assert below(root, "lock", "format") == []
    assert list((root / "due").iterdir()) == []


def in_child(work: Callable[[], object]) -> int:
    """Run *work* in a forked process; give what it ended with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 (the child must not return into the test)
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
