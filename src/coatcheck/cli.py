"""The command line: `coatcheck init URL` makes what storage needs, `coatcheck check URL` looks whether it serves.

The URL may stand in the environment variable COATCHECK_URL instead, where other users of the machine do not see it.

Exit status: 0, all is well; 1, the storage cannot be used; 2, the command was not understood; 3, it can be used, and
something about it should be mended.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated, Final, NoReturn

from coatcheck.drivers import open_driver
from coatcheck.drivers.base import Capability, Driver
from coatcheck.errors import CoatcheckError
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
SHOULD_BE_MENDED: Final = 3
_SCOPE: Final = "scope: "

app: Final = typer.Typer(
    help="Set up and check the storage of web sessions.", no_args_is_help=True, add_completion=False
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


@app.command()
def init(url: Url) -> None:
    """Create what the storage needs: tables, folders, a version. What is there already stays as it is."""
    out = Console()
    with _Storage(url) as driver:
        was_there = driver.is_set_up()
        driver.setup()
        out.print(f"{driver.name}: {'everything was there already' if was_there else 'ready'}")


@app.command()
def check(url: Url) -> None:
    """Reach the storage, try it out with a session of its own, and say what it promises and what should be mended.

    Exit status: 0, all is well; 1, it cannot be used; 3, it can be used, and something should be mended.
    """
    out = Console()
    with _Storage(url) as driver:
        begun = time.perf_counter()
        is_set_up = driver.is_set_up()
        taken = time.perf_counter() - begun
        if not is_set_up:
            raise CoatcheckError(f"{driver.name}: it is not set up: run coatcheck init with the same URL")
        out.print(f"{driver.name}: reached in {taken * 1000:.1f} ms")
        advice = driver.advice()  # told first: it may say why the trial fails
        for sentence in advice:
            out.print(Text.assemble(("to mend:", "yellow"), f" {sentence}"))
        _try_out(driver)
        out.print("a session was written, read, changed and ended")
        out.print(_promises(driver))
    if advice:
        raise typer.Exit(SHOULD_BE_MENDED)


class _Storage:
    """A driver for the length of a command; what it raises ends the command with one line."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._driver: Driver | None = None

    def __enter__(self) -> Driver:
        try:
            self._driver = open_driver(self._url)
        except CoatcheckError as error:
            _give_up(error)
        return self._driver

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._driver is not None:
            self._driver.close()
        if isinstance(error, CoatcheckError):
            _give_up(error)


def _give_up(error: CoatcheckError) -> NoReturn:
    Console(stderr=True).print(Text.assemble(("coatcheck:", "red"), f" {error}"))  # text: it may have brackets in it
    raise typer.Exit(CANNOT_BE_USED) from error


def _try_out(driver: Driver) -> None:
    """Write, read, change and end a session of our own.

    Raises:
        CoatcheckError: The storage failed, or did not give back what was written.
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
    is_right = isinstance(found, Record) and found.values[name].data == 7  # noqa: PLR2004 (as written above)
    if not (is_right and ended and all(isinstance(answer, Committed) for answer in answers)):
        raise CoatcheckError("it answers, and did not give back what was written a moment before")


def _promises(driver: Driver) -> Table:
    table = Table(title="what it promises", title_justify="left", show_header=False)
    scopes = [capability for capability in Capability if capability.startswith(_SCOPE)]
    shared = [scope.removeprefix(_SCOPE) for scope in scopes if scope in driver.capabilities]
    table.add_row("sessions are shared by", ", ".join(shared))
    for capability in Capability:
        if capability not in scopes:
            table.add_row(capability, "[green]yes[/green]" if capability in driver.capabilities else "no")
    return table


if __name__ == "__main__":
    app(prog_name="coatcheck")
