"""What a CGI script has printed, up to the end of its headers. Nothing else shows that they were sent."""

from __future__ import annotations

import sys
from typing import Final, TextIO

__all__ = ["Printed", "printed"]

_MOST: Final = 65536
"""Characters that headers are looked for in. What is longer without an empty line is no answer to a request."""


class Printed:
    """What was printed since this object was made.

    What is written past the ``write`` of `sys.stdout` is not seen.

    Attributes:
        output: Where the script prints to.
        headers: The headers so far.
        closed: True once the empty line that ends them was printed.
        typed: True once `web.header` returned its line.
    """

    def __init__(self, output: TextIO) -> None:
        self.output = output
        self.headers = ""
        self.closed = False
        self.typed = False
        self._write = output.write
        if (attributes := getattr(output, "__dict__", None)) is not None:  # else nothing of it can be replaced
            attributes["write"] = self.write

    def write(self, text: str, /) -> int:
        """Write, and look for the empty line."""
        if not self.closed:
            self.headers += text.replace("\r", "")
            end = 0 if self.headers.startswith("\n") else self.headers.find("\n\n") + 1
            if end or self.headers.startswith("\n"):
                self.headers, self.closed = self.headers[:end], True
            elif len(self.headers) > _MOST:
                self.headers, self.closed = "", True
        return self._write(text)

    @property
    def names(self) -> dict[str, str]:
        """The headers so far: values by names, both in lower case."""
        pairs = (line.partition(":") for line in self.headers.lower().splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    @property
    def takes_html(self) -> bool:
        """Whether a page can follow."""
        return "html" in self.names.get("content-type", "html")


_latest: Printed | None = None


def printed() -> Printed:
    """Return what was printed to the present standard output; the first call begins to look."""
    global _latest  # noqa: PLW0603 -- a process has one standard output, and tests have another
    if _latest is None or _latest.output is not sys.stdout:
        _latest = Printed(sys.stdout)
    return _latest
