"""web.database: connecting, and what is said when that fails."""

# ruff: noqa: ANN001, ARG005 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from web_databases import fork

from web import database


@pytest.mark.parametrize("adapter", ["sqlite", "snakesql", "SQLite"])
def test_a_file_is_made_where_auto_create_is_true(adapter: str, file: str) -> None:
    with pytest.raises(
        database.ConnectionFailed, match=r"shop\.db': there is no such file: create it with autoCreate=True"
    ):
        database.connect(adapter, file)
    assert not Path(file).exists()
    old = os.umask(0)
    try:
        connection = database.connect(adapter, file, autoCreate=1)
        connection.cursor().execute("CREATE TABLE t (a)")
        for name in ("shop.db", "shop.db-wal", "shop.db-shm"):
            assert stat.S_IMODE((Path(file).parent / name).stat().st_mode) == 0o600, name
    finally:
        os.umask(old)
    assert connection.baseConnection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.baseConnection.execute("PRAGMA busy_timeout").fetchone() == (5000,)
    assert connection.adapter == adapter.lower()
    connection.close()
    database.connect(adapter, file).close()


def test_a_relative_path_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database.connect("sqlite", "wsgi-session", autoCreate=True).close()
    database.connect("sqlite", Path("wsgi-session")).close()  # type: ignore[arg-type]
    assert (tmp_path / "wsgi-session").is_file()


@pytest.mark.parametrize(
    ("make", "path", "message"),
    [
        (lambda p: None, "missing/shop.db", "the folder '.*/missing' does not exist: create it"),
        (lambda p: (p / "file").write_text("x"), "file/shop.db", "'.*/file' is not a folder"),
        (lambda p: (p / "dir").mkdir(), "dir", "it is a folder: name a file"),
        (lambda p: (p / "junk").write_bytes(b"no database " * 99), "junk", "file is not a database; name another"),
        (lambda p: (p / "link").symlink_to(p / "gone"), "link", "a link to a file that does not exist"),
        (lambda p: os.mkfifo(p / "fifo"), "fifo", "not a regular file"),
        (lambda p: None, "/dev/null", "not a regular file"),
        (lambda p: None, "/proc/self/shop.db", "cannot be created: .*; let this process write to the folder"),
        (lambda p: None, "x" * 300, "File name too long; name another"),
    ],
)
def test_a_file_that_cannot_be_a_database(make, path: str, message: str, tmp_path: Path) -> None:
    make(tmp_path)
    whole = str(tmp_path / path)
    with pytest.raises(database.ConnectionFailed, match=message) as raised:
        database.connect("sqlite", whole, autoCreate=True)
    assert whole in str(raised.value)
    assert (raised.value.adapter, raised.value.database) == ("sqlite", whole)


ON_READ_ONLY = """
import subprocess, sys
from web import database

def mount(*options):
    subprocess.run(["mount", *options, sys.argv[1]], check=True)

mount("-t", "tmpfs", "-o", "size=16m", "tmpfs")
database.connect("sqlite", sys.argv[1] + "/shop.db", autoCreate=True).close()
mount("-o", "remount,ro")
for name in ("shop.db", "new.db"):
    try:
        database.connect("sqlite", f"{sys.argv[1]}/{name}", autoCreate=True)
    except database.ConnectionFailed as error:
        print(error)
"""


def test_a_database_on_a_read_only_file_system(tmp_path: Path) -> None:
    """A real one, in a mount namespace of the child's own: root may make one, and most others one of their own."""
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("this machine lets nobody mount anything")
    command = [*namespace, sys.executable, "-c", ON_READ_ONLY, str(tmp_path)]
    there, new = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "shop.db' cannot be written: let this process write to it" in there
    assert "the file cannot be created: Read-only file system; let this process write to the folder" in new


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "message"),
    [
        (0o444, 0o777, "the file '.*/shop.db' cannot be written: let this process write to it"),
        (0o666, 0o555, "the folder '.*' cannot be written: let this process write to it"),
        (None, 0o555, "cannot be created: Permission denied; let this process write to the folder"),
        (0o666, 0o000, "cannot be reached: Permission denied"),
    ],
)
def test_a_file_or_folder_that_cannot_be_written(file_mode: int | None, folder_mode: int, message: str) -> None:
    """Permissions do not stop root, so a child process tries it as somebody else."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        file = Path(folder) / "shop.db"
        if file_mode is not None:
            database.connect("sqlite", str(file), autoCreate=True).close()
            file.chmod(file_mode)
        Path(folder).chmod(folder_mode)
        reader, writer = os.pipe()
        child = fork()
        if child == 0:
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)
                database.connect("sqlite", str(file), autoCreate=True)
            except BaseException as error:  # noqa: BLE001 -- the parent judges it
                os.write(writer, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as told:
            text = told.read()
        Path(folder).chmod(0o777)
    assert text.startswith(f"ConnectionFailed: sqlite database '{file}'")
    assert re.search(message, text)


def test_a_locked_database_says_so(file: str) -> None:
    database.connect("sqlite", file, autoCreate=True).close()
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("PRAGMA journal_mode=DELETE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(database.ConnectionFailed, match="locked; end the program that keeps it locked"):
        database.connect("sqlite", file, timeout=0.05)
    holder.close()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            ("oracle", "x"),
            database.UnknownAdapter,
            "no adapter 'oracle': use one of mysql, postgresql, snakesql, sqlite",
        ),
        (("", "x"), database.UnknownAdapter, "no adapter ''"),
        (("sqlite", ""), database.ParameterError, "database='' is empty"),
        (("sqlite", None), database.ParameterError, "database=None is"),
        (("sqlite", "a\0b"), database.ParameterError, "is not the path of a file"),
        (("postgresql", ""), database.ParameterError, "the name of the database"),
        (("sqlite", "x", "me"), database.ParameterError, "takes no user: it opens a file, so omit user"),
        (("sqlite", "x", "", "pw-secret"), database.ParameterError, "takes no password"),
        (("sqlite", "x", "", "", "h"), database.ParameterError, "takes no host"),
        (("sqlite", "x", "", "", "", 5), database.ParameterError, "takes no port"),
        (("sqlite", "x", "", "", "", None, "s"), database.ParameterError, "takes no socket"),
    ],
)
def test_wrong_parameters(arguments: tuple[Any, ...], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as raised:
        database.connect(*arguments)
    assert isinstance(raised.value, database.DatabaseError)
    assert isinstance(raised.value, ValueError)
    assert "pw-secret" not in str(raised.value)


def test_unknown_parameter() -> None:
    with pytest.raises(database.ParameterError, match="knows no parameter 'pool': it takes timeout"):
        database.connect("sqlite", "x", pool=5)


@pytest.mark.parametrize(
    ("adapter", "package", "command"),
    [("postgresql", "psycopg", r"pip install 'psycopg\[binary\]'"), ("mysql", "pymysql", "pip install pymysql")],
)
def test_a_missing_package_is_named(adapter: str, package: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(database.MissingPackage, match=command) as raised:
        database.connect(adapter, "x")
    assert isinstance(raised.value, ImportError)
