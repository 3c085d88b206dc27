"""A foreign package called `web` is noticed at import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def imported(*before: str) -> str:
    code = "; ".join([*before, "import web, web.wsgi"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr


def test_alone_it_says_nothing() -> None:
    assert imported() == ""


def test_another_web_package_on_the_path_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "__init__.py").touch()
    said = imported("import sys", f"sys.path.append({str(tmp_path)!r})")
    assert str(tmp_path / "web") in said
    assert "uninstall" in said


def test_modules_of_another_package_among_ours_are_named(tmp_path: Path) -> None:
    import web  # noqa: PLC0415 (the package whose copy is spoilt)

    home = Path(web.__file__).parent
    (tmp_path / "web").mkdir()
    for entry in home.iterdir():
        if entry.name != "__pycache__":
            (tmp_path / "web" / entry.name).symlink_to(entry)
    (tmp_path / "web" / "webapi.py").touch()
    said = imported("import sys", f"sys.path.insert(0, {str(tmp_path)!r})")
    assert "webapi.py" in said
