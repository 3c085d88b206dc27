"""The command line: `coatcheck init URL` creates the tables or folders, `coatcheck check URL` tests the storage.

The environment variable COATCHECK_URL can hold the URL instead, so that other users of the machine do not see it.

Exit status: 0, everything is fine; 1, the storage cannot be used; 2, the command line is invalid; 3, the storage can be
used, but something should be changed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Annotated, Any, Final, NoReturn

from coatcheck import __version__
from coatcheck.drivers import open_driver
from coatcheck.drivers.base import Capability, Driver
from coatcheck.errors import CoatcheckError, DriverUnavailable
from coatcheck.record import Committed, Delta, Put, Record, Value
from coatcheck.token import Token, new_sid

try:
    import typer
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as error:
    sys.exit(f"the command line needs the package {error.name!r}: pip install 'coatcheck[cli]'")

__all__ = ["app"]

CANNOT_BE_USED: Final = 1
SHOULD_BE_CHANGED: Final = 3
_SCOPE: Final = "scope: "

# Without rich's boxes, which wrap lines even when a program reads them.
app: Final = typer.Typer(
    help="Set up and check the storage of web sessions.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        envvar="COATCHECK_URL",
        show_envvar=True,
        help="The storage, as in sqlite:///sessions.db or redis://localhost.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write the findings as one JSON object, errors included.")]


def _show_version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"coatcheck {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Set up and check the storage of web sessions."""


@app.command()
def init(url: Url) -> None:
    """Create what the storage needs, or update what an older coatcheck created. Existing data is kept."""
    with _Storage(url) as driver:
        was_there = driver.is_set_up()
        driver.setup()
        typer.echo(f"{driver.name}: {'already set up' if was_there else 'ready'}")


@app.command()
def check(url: Url, *, as_json: AsJson = False) -> None:
    """Test the storage with a session of its own, and report what it promises and what should be changed.

    Exit status: 0, everything is fine; 1, it cannot be used; 3, it can be used, but something should be changed.
    """
    report = _JsonReport() if as_json else _TextReport()
    with _Storage(url, report) as driver:
        begun = time.perf_counter()
        is_set_up = driver.is_set_up()
        taken = time.perf_counter() - begun
        if not is_set_up and (remedy := _remedy(driver)) is not None:
            raise CoatcheckError(f"{driver.name}: {remedy}")
        report.reached(driver, taken)
        advice = driver.advice()  # reported first: it may explain why the trial fails
        report.advised(advice)
        _try_out(driver)
        report.tried(driver)
    if advice:
        raise typer.Exit(SHOULD_BE_CHANGED)


def _remedy(driver: Driver) -> str | None:
    """Return what to do about storage that is not set up, or None if it needs no setup."""
    if Capability.SCOPE_SHARED not in driver.capabilities:
        return (
            "nothing is stored there yet, or only by an older coatcheck: check the path. The first program that uses"
            " the storage creates or updates it, if its folder exists, and so does `coatcheck init` with the same URL"
        )
    if Capability.BORROWED_CONNECTION in driver.capabilities:
        return (
            "the session tables are missing, or those of an older coatcheck: create or update them with"
            " `coatcheck init` and the same URL"
        )
    return None


class _TextReport:
    """Findings for people: with colours and a table on a terminal, and as plain lines elsewhere."""

    def __init__(self) -> None:
        self._out: Final = Console(soft_wrap=True)

    def reached(self, driver: Driver, seconds: float) -> None:
        self._out.print(f"{driver.name}: reached in {seconds * 1000:.1f} ms")

    def advised(self, advice: list[str]) -> None:
        for sentence in advice:
            self._out.print(Text.assemble(("advice:", "yellow"), f" {sentence}"))

    def tried(self, driver: Driver) -> None:
        self._out.print("a session was created, read, changed and ended")
        promises = [("sessions are shared by", _scope(driver))]
        kept = [capability for capability in Capability if not capability.startswith(_SCOPE)]
        promises += [(str(capability), "yes" if capability in driver.capabilities else "no") for capability in kept]
        if not self._out.is_terminal:
            for name, said in promises:
                self._out.print(Text(f"{name}: {said}"))
            return
        table = Table(title="what it promises", title_justify="left", show_header=False)
        for name, said in promises:
            table.add_row(name, Text(said, "green" if said == "yes" else ""))
        self._out.print(table, soft_wrap=False)

    def gave_up(self, why: str) -> None:
        # as Text, because it may contain brackets
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("coatcheck:", "red"), f" {why}"))


class _JsonReport:
    """Findings for programs: one object on standard output, also after an error."""

    def __init__(self) -> None:
        self._found: Final[dict[str, Any]] = {"error": None, "advice": [], "promises": None}

    def reached(self, driver: Driver, seconds: float) -> None:
        self._found.update(driver=driver.name, reached_in_ms=round(seconds * 1000, 1))

    def advised(self, advice: list[str]) -> None:
        self._found["advice"] = advice

    def tried(self, driver: Driver) -> None:
        promises = {capability.name.lower(): capability in driver.capabilities for capability in Capability}
        self._found["promises"] = promises
        self._write()

    def gave_up(self, why: str) -> None:
        self._found["error"] = why
        self._write()

    def _write(self) -> None:
        typer.echo(json.dumps(self._found, indent=2, ensure_ascii=False))


_Report = _TextReport | _JsonReport


class _Storage:
    """A driver for the duration of a command. An error of the driver ends the command with one line."""

    def __init__(self, url: str, report: _Report | None = None) -> None:
        self._url = url
        self._report = report or _TextReport()
        self._driver: Driver | None = None

    def __enter__(self) -> Driver:
        try:
            self._driver = open_driver(self._url)
        except CoatcheckError as error:
            self._give_up(error)
        return self._driver

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._driver is not None:
            self._driver.close()
        if isinstance(error, CoatcheckError):
            self._give_up(error)

    def _give_up(self, error: CoatcheckError) -> NoReturn:
        # The name of the failed operation means nothing to those who run a command.
        why = f"{error.driver}: {error.why}" if isinstance(error, DriverUnavailable) else str(error)
        self._report.gave_up(why)
        raise typer.Exit(CANNOT_BE_USED) from error


def _try_out(driver: Driver) -> None:
    """Create, read, change and end a session.

    Raises:
        CoatcheckError: The storage failed, or did not return what was written.
    """
    now, token = time.time(), Token.new()
    name = ("", "trial")
    record = Record(
        sid=new_sid(token.digest, driver.rotation_bits),
        digest=token.digest,
        created=now,
        seen=now,
        idle=60.0,
        absolute=60.0,
        rotated=now,
        values={name: Value(os.urandom(16), 0)},
    )
    answers = [driver.create(record, now), driver.commit(token.digest, Delta(puts={name: Put(7)}), now)]
    found = driver.load(token.digest, now)
    ended = driver.revoke(token.digest, now)
    is_right = isinstance(found, Record) and found.values[name].data == 7  # noqa: PLR2004 (the value that was written above)
    if not (is_right and ended and all(isinstance(answer, Committed) for answer in answers)):
        raise CoatcheckError("the storage responds, but did not return what was just written to it")


def _scope(driver: Driver) -> str:
    scopes = [capability for capability in Capability if capability.startswith(_SCOPE)]
    return ", ".join(scope.removeprefix(_SCOPE) for scope in scopes if scope in driver.capabilities)


if __name__ == "__main__":
    app(prog_name="coatcheck")
