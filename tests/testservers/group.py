"""Servers that work together, such as those of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Self

from testservers.base import Server, ServerError, find_program, wait_until

__all__ = ["Group"]


class Group:
    """Servers that work together.

    Attributes:
        members: The servers, in the order in which they are started.
        is_alert: Whether they are to notice soon that one of them is lost; see `alert`.
        programs: The programs they need, and the Debian package of each.
    """

    programs: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.members: list[Server] = []
        self.is_alert = False

    @classmethod
    def missing(cls) -> list[str]:
        """Give the Debian packages that would have to be installed."""
        return sorted({package for name, package in cls.programs.items() if find_program(name) is None})

    @property
    def url(self) -> str:
        """Where they are, as a driver's URL without options."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Tell whether they do their work together."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start those that are not running, and wait until all work together.

        Raises:
            ServerError: They did not in time. The message has the end of their logs.
        """
        try:
            for member in self.members:
                member.start()
            self.join()
            wait_until(self.ready, f"{type(self).__name__} at {self.url}")
            self.watch()
        except ServerError as error:
            logs = "\n".join(f"{member.address}: {member.tail(8)}" for member in self.members)
            self.kill()
            raise ServerError(f"{error}; the ends of the logs:\n{logs}") from error.__cause__
        return self

    def join(self) -> None:
        """Make the servers, which all run, know each other."""

    def stop(self) -> None:
        """Ask all to end, the last started first."""
        for member in reversed(self.members):
            member.stop()

    def kill(self) -> None:
        """SIGKILL all."""
        for member in self.members:
            member.kill()

    def restart(self) -> Self:
        """Stop all and start them on the same ports with the same files."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """SIGSTOP all."""
        for member in self.members:
            member.pause()

    def resume(self) -> None:
        """Let all go on."""
        for member in self.members:
            member.resume()

    @contextmanager
    def alert(self) -> Iterator[None]:
        """Have the servers notice soon that one is lost.

        At all other times a server that a busy machine keeps waiting for seconds does not lose its part, and with it
        what it acknowledged.
        """
        self.is_alert = True
        self.watch()
        try:
            yield
        finally:
            self.is_alert = False
            self.watch()

    def watch(self) -> None:
        """Tell the servers after how long a silence one of them is lost; called after each start."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
