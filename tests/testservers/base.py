"""What all servers have in common: a folder, a port, a log, and a process that is started, stopped, killed, paused."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from testservers.processes import guard, kill_tree, running, signal_tree, stopped, unguard

__all__ = ["PATIENCE", "Server", "ServerError", "find_program", "free_port", "scratch", "wait_until"]

HOST: Final = "127.0.0.1"
USER: Final = "nobody"
"""Who runs the servers where the tests are run by root, whom most servers refuse."""

# Below the ports that the kernel gives to outgoing connections: so nobody takes the port of a server that is down for a
# moment, and a client that tries it again and again never comes to be connected to itself.
_PORTS: Final = range(10240, 22000)
_EXTRA_FOLDERS: Final = "/usr/local/sbin:/usr/sbin:/sbin"
_POLL: Final = 0.02

PATIENCE: Final = 120.0
"""How many seconds anything is waited for: long, because it ends only what would never come."""

_random = random.SystemRandom()
_taken: set[int] = set()


class ServerError(Exception):
    """A server did not do what it should."""


class _EndedError(ServerError):
    """There is nothing more to wait for."""


def find_program(name: str) -> str | None:
    """Give the path of a program; Debian has some servers where only root's PATH leads."""
    found = shutil.which(name) or shutil.which(name, path=_EXTRA_FOLDERS)
    if found is None:
        versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
        newest = max(versions, key=lambda path: float(path.parts[-3]), default=None)
        found = None if newest is None else str(newest)
    return found


def free_port(*, offsets: Sequence[int] = (0,)) -> int:
    """Give a port of loopback that is free, and free too at each of *offsets* above it."""
    for _ in range(1000):
        port = _random.choice(_PORTS)
        ports = {port + offset for offset in offsets}
        if not ports & _taken and all(map(_free, ports)):
            _taken.update(ports)
            return port
    raise ServerError("no free port on loopback")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder that servers can reach whoever runs them, and remove it in the end.

    pytest's own folders are closed to all but their owner, so a server that root's tests run as `nobody` cannot.
    """
    folder = Path(tempfile.mkdtemp(prefix="coatcheck-"))
    folder.chmod(0o755)
    guard(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        unguard(folder)


def wait_until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    """Wait until *true* says so; what it raises meanwhile counts as not yet.

    Raises:
        ServerError: It did not within *patience* seconds.
    """
    end = time.monotonic() + patience
    problem: Exception | None = None
    while True:
        try:
            if true():
                return
        except _EndedError:
            raise
        except (OSError, LookupError, ValueError, ServerError) as error:
            problem = error
        if time.monotonic() > end:
            raise ServerError(f"waited {patience:g} s in vain for {what}") from problem
        time.sleep(_POLL)


class Server:
    """A server process on loopback with all its files in one folder.

    Args:
        folder: Where its files are; made where it is missing. `scratch` gives one that fits.
        port: Where it listens; a free port by itself.

    Attributes:
        programs: The programs it needs, and the Debian package of each.
        patience: How many seconds it may take to start.
        log: Where its output goes.
    """

    programs: ClassVar[dict[str, str]] = {}
    patience: ClassVar[float] = PATIENCE
    end_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder: Final = folder
        self.host: Final = HOST
        self.port: Final = port or free_port()
        self.log: Final = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @classmethod
    def missing(cls) -> list[str]:
        """Give the Debian packages that would have to be installed."""
        return sorted({package for name, package in cls.programs.items() if find_program(name) is None})

    @property
    def url(self) -> str:
        """Where it is, as a driver's URL without options."""
        raise NotImplementedError

    def command_line(self) -> list[str]:
        """Give the program and its arguments."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make the files that it needs; called before each start."""

    def answers(self) -> bool:
        """Tell whether it does its work."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The main process, where it is running."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> Self:
        """Start it and wait until it answers. Where it runs already, nothing happens.

        Raises:
            ServerError: It did not answer in time, or ended. The message has the end of its log.
        """
        if self.pid is not None:
            return self
        self._own_folder()
        self.prepare()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command_line(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_user(),
            )
        guard(self._process.pid)
        self._paused = False
        try:
            wait_until(self._answers_unless_ended, f"{type(self).__name__} on {self.address}", self.patience)
        except ServerError as error:
            self.kill()
            raise ServerError(f"{error}; the end of its log:\n{self.tail()}") from error.__cause__
        return self

    def stop(self, patience: float = 15.0) -> None:
        """Ask it to end, and kill it where it has not within *patience* seconds."""
        process = self._process
        if process is None or self.pid is None:
            return
        if self._paused:
            self.resume()
        process.send_signal(self.end_signal)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
        self._over(process)

    def kill(self) -> None:
        """SIGKILL all its processes, at once."""
        process = self._process
        if process is None:
            return
        if self.pid is not None:
            tree = kill_tree(process.pid)
            process.wait()
            wait_until(lambda: not any(map(running, tree)), f"the end of {type(self).__name__}")
        self._over(process)

    def restart(self) -> Self:
        """Stop it where it runs, and start it on the same port with the same files."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Stop all its processes in their tracks (SIGSTOP). Connections stay, and nobody answers."""
        assert self.pid is not None
        tree = signal_tree(self.pid, signal.SIGSTOP)
        wait_until(lambda: all(map(stopped, tree)), f"{type(self).__name__} to stand still")
        self._paused = True

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self.pid is not None:
            signal_tree(self.pid, signal.SIGCONT)
        self._paused = False

    def tail(self, lines: int = 25) -> str:
        """Give the end of its log."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    def run_tool(self, *command: str, said: str | None = None) -> str:
        """Run a program that comes with the server, as the server's user; give its output.

        Raises:
            ServerError: It failed.
        """
        done = subprocess.run(
            [_path(command[0]), *command[1:]],
            input=said,
            stdin=subprocess.DEVNULL if said is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            **self._as_user(),
        )
        if done.returncode:
            raise ServerError(f"{command[0]} failed with status {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def write(self, name: str, text: str) -> Path:
        """Write a file of the server's."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        self._give(path)
        return path

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers_unless_ended(self) -> bool:
        if self._process is not None and self.pid is None:
            raise _EndedError(f"{type(self).__name__} ended with status {self._process.returncode}")
        return self.answers()

    def _over(self, process: subprocess.Popen[bytes]) -> None:
        unguard(process.pid)
        self._process = None
        self._paused = False

    def _own_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._give(self.folder)
        if os.geteuid() == 0:
            for parent in self.folder.resolve().parents:
                if not parent.stat().st_mode & 0o001:
                    raise ServerError(f"{parent} is closed to {USER}, who runs the server: use testservers.scratch()")

    def _give(self, path: Path) -> None:
        if os.geteuid() == 0:
            found = pwd.getpwnam(USER)
            os.chown(path, found.pw_uid, found.pw_gid)

    def _as_user(self) -> dict[str, Any]:
        more: dict[str, Any] = {
            "cwd": self.folder,
            "env": {"PATH": f"{os.environ.get('PATH', '')}:{_EXTRA_FOLDERS}", "LC_ALL": "C", "HOME": str(self.folder)},
        }
        if os.geteuid() == 0:
            found = pwd.getpwnam(USER)
            more |= {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
        return more


def _path(program: str) -> str:
    found = find_program(program)
    if found is None:
        raise ServerError(f"the program {program} is not installed")
    return found
