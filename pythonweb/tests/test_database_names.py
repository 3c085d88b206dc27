"""The names and spellings that the reference of 2005 has for adapters, parameters and statements."""

from __future__ import annotations

import socketserver
import struct
import sys
import threading
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from web import database
from web.wsgi.base import BaseApplication
from web.wsgi.database import Database


@pytest.mark.parametrize("adapter", ["PySQLite", "pysqlite", "sqlite", "snakesql", "SnakeSQL"])
def test_older_names_of_the_embedded_database(adapter: str, tmp_path: Path) -> None:
    connection = database.connect(adapter=adapter, database=str(tmp_path / "shop.db"), autoCreate=1)
    cursor = connection.cursor()
    cursor.execute(sql="CREATE TABLE hat (colour TEXT, size INTEGER)")
    cursor.executemany(sql="INSERT INTO hat VALUES (?, ?)", parameters=[("red", 1), ("blue", 2)])
    cursor.execute(sql="SELECT colour FROM hat WHERE size = ?", parameters=[2])
    assert cursor.fetchall() == [("blue",)]
    assert connection.adapter in ("sqlite", "snakesql")
    connection.close()


@pytest.mark.parametrize("adapter", ["MySQLdb", "mysqldb", "mysql"])
def test_older_names_of_mysql(adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(database.MissingPackage, match=r"needs the package 'pymysql', .*: pip install pymysql"):
        database.connect(adapter, "shop")


class Select(BaseApplication):
    def start(self) -> None:
        cursor = self.environ["web.database.cursor"]
        self.output(cursor.execute(sql="SELECT ? + 1", parameters=[1]).fetchone()[0])


@pytest.mark.parametrize("spelling", [{"type": "PySQLite"}, {"adapter": "sqlite"}, {"adapter": "x", "type": "x"}])
def test_type_is_an_older_spelling_of_adapter(spelling: dict[str, str], tmp_path: Path) -> None:
    given = {name: value.replace("x", "snakesql") for name, value in spelling.items()}
    middleware = Database(Select(), database=str(tmp_path / "shop.db"), autoCreate=1, **given)  # type: ignore[arg-type]
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body = middleware(environ, lambda *_: print)
    assert list(body) == [b"2"]
    body.close()  # type: ignore[attr-defined]
    middleware.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"names no adapter: add for example adapter='sqlite'"),
        ({"adapter": "sqlite", "type": "mysql"}, "both mean the same, so pass only one of them"),
        ({"type": "oracle"}, "no adapter 'oracle'"),
        ({"adapter": "sqlite", "database": ""}, "database='' is empty"),
    ],
)
def test_what_is_missing_or_contradicts_itself(given: dict[str, str], message: str) -> None:
    with pytest.raises(database.DatabaseError, match=message):
        Database(Select(), **{"database": "shop.db", **given})  # type: ignore[arg-type]


def _packet(number: int, payload: bytes) -> bytes:
    return struct.pack("<I", len(payload))[:3] + bytes([number]) + payload


class _AsksForALogin(socketserver.StreamRequestHandler):
    """Begins as a MySQL server does that keeps passwords in its present form: it asks for the whole login."""

    def handle(self) -> None:
        wants = 0x200 | 0x8000 | 0x80000  # protocol 4.1, its passwords, and names of kinds of login
        low, high = struct.pack("<H", wants & 0xFFFF), struct.pack("<H", wants >> 16)
        greeting = b"\x0a8.4.0\0" + struct.pack("<I", 1) + b"a" * 8 + b"\0" + low + b"\x2d\x02\0" + high + b"\x15"
        self.send(0, greeting + bytes(10) + b"b" * 12 + b"\0caching_sha2_password\0")
        self.receive()
        self.send(2, b"\x01\x04")
        self.receive()
        self.send(4, b"\x01-----BEGIN PUBLIC KEY-----\n")

    def send(self, number: int, payload: bytes) -> None:
        self.wfile.write(_packet(number, payload))

    def receive(self) -> None:
        self.rfile.read(int.from_bytes(self.rfile.read(4)[:3], "little"))


def test_the_package_for_a_kind_of_login_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pymysql._auth._have_cryptography", False)  # as where it is not installed
    with socketserver.TCPServer(("127.0.0.1", 0), _AsksForALogin) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(
            database.MissingPackage, match=r"'cryptography' for the authentication .*: pip install cryptography"
        ):
            database.connect("MySQLdb", "shop", "me", "secret", *server.server_address)
        thread.join()
