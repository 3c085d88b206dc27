"""The Python Web Modules interface of 2005 on Python 3: `web.wsgi`, `web.session`, `web.database` and more."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Final

__version__ = "0.1.0"

_OURS: Final = frozenset({"__init__", "__pycache__", "database", "environment", "error", "py", "session", "wsgi"})


def _foreign(here: Path, path: list[str]) -> str | None:
    """Name another package called ``web`` (web.py installs one), where it is in the way of this one."""
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
