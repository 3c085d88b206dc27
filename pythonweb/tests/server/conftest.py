"""A running WSGIServer.py, a real browser, and the page's own program."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "pythonweb" / "scripts" / "WSGIServer.py"
STARTS_WITHIN = 120
STOPS_WITHIN = 120
CHROMIUM_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root, where Chromium has no sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def give_up(reason: str) -> NoReturn:
    """Skip for want of something outside the repository; CI has it all, so there it is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true allows no skipping: {reason}")
    pytest.skip(reason)


@dataclass
class Running:
    """A server process: its address, the folder its programs run in, and what it said on standard error."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    @property
    def errors(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOPS_WITHIN)


@dataclass
class Servers:
    """Starts servers, each in a folder of its own, and stops those that a test left running."""

    tmp_path: Path
    started: list[Running] = field(default_factory=list)

    def __call__(self, *options: str | Path, env: dict[str, str] | None = None) -> Running:
        folder = self.tmp_path / f"server{len(self.started)}"
        folder.mkdir()
        log = self.tmp_path / f"server{len(self.started)}.log"
        command = [sys.executable, SCRIPT, "-p", "0", *options]
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | (env or {})
            )
        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], STARTS_WITHIN)[0]
        line = process.stdout.readline() if ready else ""
        running = Running(process, "", folder, log)
        self.started.append(running)
        found = re.fullmatch(r"Serving on (http://\S+/)\n", line)
        assert found, f"the server said {line!r} and {running.errors!r}"
        running.url = found[1]
        return running

    def end(self) -> None:
        statuses = []
        for running in self.started:
            if running.process.poll() is None:
                try:
                    statuses.append((running.stop(), running.errors))
                except subprocess.TimeoutExpired:
                    running.process.kill()
                    running.process.wait()
                    statuses.append((None, running.errors))
            if running.process.stdout is not None:
                running.process.stdout.close()
        assert all(status == 0 for status, _ in statuses), statuses


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Servers]:
    """A function that starts WSGIServer.py on a free port: ``start_server("--mount", "/x=x.py").url``."""
    servers = Servers(tmp_path)
    yield servers
    servers.end()


@pytest.fixture
def run_server(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs WSGIServer.py to its end, for what ends by itself: help and errors."""

    def run(*options: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, SCRIPT, *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=STARTS_WITHIN)

    return run


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """A function that writes a program to be mounted and returns its file."""

    def write(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One headless Chromium for the whole run."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        give_up("chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver  # noqa: PLC0415  # only those who have a browser need it
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    # Both programs are named, so that Selenium looks for neither and downloads nothing.
    started = webdriver.Chrome(options=options, service=Service(driver, env=os.environ | {"SE_OFFLINE": "true"}))
    try:
        started.set_page_load_timeout(120)
        yield started
    finally:
        started.quit()


@pytest.fixture
def browser(chromium: Chrome) -> Chrome:
    """The browser without cookies: they do not know ports, so one test's server would get another's."""
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    return chromium


@pytest.fixture(scope="session")
def page_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the 2005 page, cut out of the page and not changed by a character."""
    places = [Path(place) for place in (os.environ.get("COATCHECK_SHARED"), ROOT.parent / "shared") if place]
    page = None
    for place in places:
        with contextlib.suppress(FileNotFoundError):
            page = (place / "seed" / "web.wsgi.session.txt").read_text(encoding="utf-8")
            break
    if page is None:
        give_up(f"the page is not at seed/web.wsgi.session.txt under {' or '.join(map(str, places))}")
    start = page.index("from web.wsgi import *")
    text = page[start : page.index("You can test this example", start)].rstrip() + "\n"
    assert text.endswith(")\n")
    file = tmp_path_factory.mktemp("page") / "page.py"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def curl() -> str:
    """The curl program."""
    return shutil.which("curl") or give_up("curl is not installed (Debian: apt-get install curl)")
