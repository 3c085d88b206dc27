"""The command line, and the real servers."""

from __future__ import annotations

from typing import Any

import pytest
from testservers.engines import Engine, params
from typer.testing import CliRunner

from coatcheck import Capability
from coatcheck.cli import app


@pytest.mark.parametrize("engine", params("redis", "memcached", "postgresql", "mariadb"), indirect=True)
def test_check_of_a_server_where_nobody_ran_init(engine: Engine) -> None:
    """Servers with tables need them; the others need nothing, and are tried out."""
    result = run("check", engine)
    if Capability.BORROWED_CONNECTION in engine.open().capabilities:
        assert result.exit_code == 1
        assert "the session tables are missing, or those of an older coatcheck" in result.stderr
        assert run("init", engine).exit_code == 0
        result = run("check", engine)
    assert result.exit_code in {0, 3}, result.output
    assert "a session was created, read, changed and ended" in result.stdout


def run(command: str, engine: Engine) -> Any:
    return CliRunner().invoke(app, [command, engine.url])
