"""The Python Web Modules interface of 2005 on Python 3: `web.wsgi`, `web.session`, `web.database` and more.

A CGI script prints `header()`, reads the fields of its request in `web.cgi`, and writes text through `encode`.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from web._script import encode, header
    from web.wsgi.cgi import FieldStorage

    cgi: FieldStorage

__all__ = ["encode", "header"]

__version__ = "0.1.0"

_FOR_SCRIPTS: Final = frozenset({"cgi", "encode", "header"})
_OURS: Final = frozenset(
    {"__init__", "__pycache__", "_printed", "_script", "database", "environment", "error", "py", "session", "wsgi"}
)


def _foreign(here: Path, path: list[str]) -> str | None:
    """Return the name of another package called ``web`` (web.py installs one), if it conflicts with this one."""
    strangers = sorted(entry.name for entry in here.iterdir() if entry.name.partition(".")[0] not in _OURS)
    if strangers:
        return f"{here} also holds {', '.join(strangers[:3])}"
    for folder in path:
        other = Path(folder or ".") / "web" / "__init__.py"
        if other.is_file() and other.resolve() != (here / "__init__.py").resolve():
            return f"{other.parent} is another one"
    return None


if (_found := _foreign(Path(__file__).parent, sys.path)) is not None:
    warnings.warn(
        f"two packages called 'web' are installed: {_found}. Programs will get parts of the wrong one: uninstall either"
        " coatcheck-pythonweb or the other (web.py installs such a package)",
        RuntimeWarning,
        stacklevel=2,
    )


def __getattr__(name: str) -> Any:
    """Create what CGI scripts use on first use."""
    if name not in _FOR_SCRIPTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from web import _script  # noqa: PLC0415 -- see above

    return _script.fields() if name == "cgi" else getattr(_script, name)
