"""When the headers of a CGI script's answer are out: nothing tells but the empty line that the script prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TextIO
from weakref import WeakMethod

__all__ = ["watch"]


def watch(output: TextIO, closed: Callable[[], None]) -> None:
    """Have a method called once an empty line was written to *output*.

    Args:
        output: Where the script prints to. What does not go through its ``write`` is not seen.
        closed: The method; it does not keep its object alive.
    """
    attributes = getattr(output, "__dict__", None)
    if attributes is None:  # then nothing can be put in the way of what it writes
        return
    headers = getattr(attributes.get("write"), "__self__", None)
    if not isinstance(headers, _Headers):
        headers = _Headers(output)
        attributes["write"] = headers.write
    headers.told.append(WeakMethod(closed))


class _Headers:
    """An output up to the end of the headers."""

    def __init__(self, output: TextIO) -> None:
        self.told: Final[list[WeakMethod[Any]]] = []
        self._output: Final = output
        self._write: Final = output.write
        self._at_start = True  # of a line

    def write(self, text: str, /) -> int:
        """Write, and look for the empty line."""
        count = self._write(text)
        lines = text.replace("\r", "").split("\n")
        if len(lines) > 1 and ((self._at_start and not lines[0]) or "" in lines[1:-1]):
            self._end()
        elif text:
            self._at_start = not lines[-1] and (len(lines) > 1 or self._at_start)
        return count

    def _end(self) -> None:
        del vars(self._output)["write"]
        for each in self.told:
            if (closed := each()) is not None:
                closed()
