"""CGI scripts in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SECRET = "s3cr3t-cookie-value"
HERE = {
    "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:8000", "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_CONNECTION": "keep-alive", "HTTP_SEC_FETCH_SITE": "none",
}  # fmt: skip


@dataclass
class Answered:
    """What a script printed, as a web server takes it."""

    headers: dict[str, str]
    body: str
    log: str
    code: int


class Script:
    """Runs scripts in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def raw(self, text: str, body: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
        given = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REQUEST_METHOD": "POST" if body else "GET",
            "QUERY_STRING": "",
            "CONTENT_LENGTH": str(len(body)),
            **HERE,
            "HTTP_COOKIE": f"other={SECRET}",
            **environ,
        }
        file = self.folder / "script.py"
        file.write_text(text, "utf-8")
        return subprocess.run(
            [sys.executable, str(file)],
            cwd=self.folder, env=os.environ | {"PYTHONUTF8": "1"} | given, input=body, capture_output=True, timeout=60,
            check=False,
        )  # fmt: skip

    def __call__(self, text: str, body: bytes = b"", **environ: str) -> Answered:
        done = self.raw(text, body, **environ)
        head, blank, rest = done.stdout.decode().partition("\n\n")
        assert blank, done.stderr.decode()
        lines = [line.partition(": ") for line in head.splitlines()]
        names = [name.lower() for name, _, _ in lines]
        assert sorted(set(names)) == sorted(names)
        return Answered({name.lower(): value for name, _, value in lines}, rest, done.stderr.decode(), done.returncode)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Run a script, each time in the folder of the test."""
    return Script(tmp_path)
