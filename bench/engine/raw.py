"""What an engine's client library needs by itself: the units in which everything else is measured.

Each function opens one connection (redis-py: a client with its pool, as it comes) and gives four actions:

- `get`: a small value by its key, in the form in which that engine would hold a session that is one blob;
- `set`: the same value again, and committed;
- `set_big`: 1 KB of 100 that belong together, where the engine can write that alone, else all 100 KB;
- `close`: give the connection back.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from rivals.common import SMALL, big_values

HOST: Final = "127.0.0.1"
CASES: Final = ("get", "set", "set_big")
_KEYS: Final = [hashlib.sha256(str(number).encode()).digest() for number in range(500)]
_WANTED: Final = _KEYS[250]
_DATA: Final = json.dumps(SMALL).encode()
_TWO: Final = (_DATA, _DATA[::-1])
_BIG: Final[dict[Any, bytes]] = {key: text.encode() for key, text in big_values().items()}
_BIG_TWO: Final = (_BIG["key050"], _BIG["key050"][::-1])
_WHOLE_TWO: Final = (b"".join(_BIG.values()), b"".join(_BIG.values())[::-1])


class Raw(NamedTuple):
    """The actions of a client library; coroutine functions where `asynchronous`."""

    asynchronous: bool
    get: Callable[[], Any]
    set: Callable[[], Any]
    set_big: Callable[[], Any]
    close: Callable[[], Any]


class _Turns:
    """Gives two things in turns, so that no write writes what is there already."""

    def __init__(self, two: tuple[bytes, bytes]) -> None:
        self._two = two
        self._turn = False

    def __call__(self) -> bytes:
        self._turn = not self._turn
        return self._two[self._turn]


# -- Redis ------------------------------------------------------------------------------------------------------------


def redis_sync(where: dict[str, Any]) -> Raw:
    """redis-py's GET, SET and HSET, through its pool."""
    import redis  # noqa: PLC0415 (each engine needs its own library only)

    client = redis.Redis(**where)
    client.set("raw:small", _DATA)
    client.hset("raw:big", mapping=_BIG)
    small, big = _Turns(_TWO), _Turns(_BIG_TWO)
    return Raw(
        asynchronous=False,
        get=lambda: client.get("raw:small"),
        set=lambda: client.set("raw:small", small()),
        set_big=lambda: client.hset("raw:big", "key050", big()),
        close=client.close,
    )


async def redis_async(where: dict[str, Any]) -> Raw:
    """The same with `redis.asyncio`."""
    import redis.asyncio as redis  # noqa: PLC0415

    client = redis.Redis(**where)
    await client.set("raw:small", _DATA)
    await client.hset("raw:big", mapping=_BIG)
    small, big = _Turns(_TWO), _Turns(_BIG_TWO)
    return Raw(
        asynchronous=True,
        get=lambda: client.get("raw:small"),
        set=lambda: client.set("raw:small", small()),
        set_big=lambda: client.hset("raw:big", "key050", big()),
        close=client.aclose,
    )


# -- the databases on servers -----------------------------------------------------------------------------------------

_SELECT: Final = "SELECT data FROM raw_small WHERE id = %s"
_UPDATE: Final = "UPDATE raw_small SET data = %s WHERE id = %s"
_UPDATE_BIG: Final = "UPDATE raw_big SET data = %s WHERE session = %s AND name = %s"


def _tables(blob: str, key: str) -> list[str]:
    return [
        "DROP TABLE IF EXISTS raw_small",
        "DROP TABLE IF EXISTS raw_big",
        f"CREATE TABLE raw_small (id {key} PRIMARY KEY, data {blob} NOT NULL)",
        f"CREATE TABLE raw_big (session integer, name varchar(50), data {blob} NOT NULL, PRIMARY KEY (session, name))",
    ]


def _filled(execute: Callable[..., Any], blob: str, key: str) -> None:
    for statement in _tables(blob, key):
        execute(statement)
    for digest in _KEYS:
        execute("INSERT INTO raw_small VALUES (%s, %s)", (digest, _DATA))
    for name, data in _BIG.items():
        execute("INSERT INTO raw_big VALUES (%s, %s, %s)", (1, name, data))


def postgresql_sync(url: str, *, prepares: bool) -> Raw:
    """The SELECT and UPDATE by primary key of psycopg, in autocommit mode.

    Args:
        url: Where the database is.
        prepares: Whether psycopg may prepare statements, as it does by itself; PgBouncer did not bear it before 1.21.
    """
    import psycopg  # noqa: PLC0415

    connection = psycopg.connect(url, autocommit=True, prepare_threshold=5 if prepares else None)
    _filled(connection.execute, "bytea", "bytea")
    small, big = _Turns(_TWO), _Turns(_BIG_TWO)
    return Raw(
        asynchronous=False,
        get=lambda: connection.execute(_SELECT, (_WANTED,)).fetchone(),
        set=lambda: connection.execute(_UPDATE, (small(), _WANTED)),
        set_big=lambda: connection.execute(_UPDATE_BIG, (big(), 1, "key050")),
        close=connection.close,
    )


async def postgresql_async(url: str, *, prepares: bool) -> Raw:
    """The same with `psycopg.AsyncConnection`, on the tables that `postgresql_sync` made."""
    import psycopg  # noqa: PLC0415

    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=5 if prepares else None)
    small, big = _Turns(_TWO), _Turns(_BIG_TWO)

    async def get() -> object:
        return await (await connection.execute(_SELECT, (_WANTED,))).fetchone()

    return Raw(
        asynchronous=True,
        get=get,
        set=lambda: connection.execute(_UPDATE, (small(), _WANTED)),
        set_big=lambda: connection.execute(_UPDATE_BIG, (big(), 1, "key050")),
        close=connection.close,
    )


def _mariadb_place(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "host": parts.hostname,
        "port": parts.port,
        "user": parts.username,
        "password": parts.password,
        "autocommit": True,
    }


def mariadb_sync(url: str) -> Raw:
    """PyMySQL's SELECT and UPDATE by primary key, in autocommit mode."""
    import pymysql  # noqa: PLC0415

    connection = pymysql.connect(**_mariadb_place(url), database=urlsplit(url).path[1:])
    cursor = connection.cursor()
    _filled(cursor.execute, "mediumblob", "binary(32)")
    small, big = _Turns(_TWO), _Turns(_BIG_TWO)

    def get() -> object:
        with connection.cursor() as cursor:
            cursor.execute(_SELECT, (_WANTED,))
            return cursor.fetchone()

    def update(text: str, *parameters: object) -> object:
        with connection.cursor() as cursor:
            return cursor.execute(text, parameters)

    return Raw(
        asynchronous=False,
        get=get,
        set=lambda: update(_UPDATE, small(), _WANTED),
        set_big=lambda: update(_UPDATE_BIG, big(), 1, "key050"),
        close=connection.close,
    )


async def mariadb_async(url: str) -> Raw:
    """The same with aiomysql, on the tables that `mariadb_sync` made.

    aiomysql 0.3 cannot send bytes with PyMySQL 1.2, so it is given text.
    """
    import aiomysql  # type: ignore[import-untyped]  # noqa: PLC0415

    connection = await aiomysql.connect(**_mariadb_place(url), db=urlsplit(url).path[1:])
    small, big = _Turns(_TWO), _Turns(_BIG_TWO)

    async def get() -> object:
        async with connection.cursor() as cursor:
            await cursor.execute(_SELECT.replace("%s", "UNHEX(%s)"), (_WANTED.hex(),))
            return await cursor.fetchone()

    async def update(text: str, *parameters: object) -> object:
        async with connection.cursor() as cursor:
            return await cursor.execute(text, parameters)

    async def close() -> None:
        connection.close()

    return Raw(
        asynchronous=True,
        get=get,
        set=lambda: update(_UPDATE.replace("id = %s", "id = UNHEX(%s)"), small().decode(), _WANTED.hex()),
        set_big=lambda: update(_UPDATE_BIG, big().decode(), 1, "key050"),
        close=close,
    )


# -- memcached --------------------------------------------------------------------------------------------------------


def memcached_sync(port: int) -> Raw:
    """The get and set of pymemcache."""
    from pymemcache.client.base import Client  # type: ignore[import-untyped]  # noqa: PLC0415

    client = Client((HOST, port), default_noreply=False, no_delay=True)
    client.set("raw_small", _DATA)
    small, whole = _Turns(_TWO), _Turns(_WHOLE_TWO)
    return Raw(
        asynchronous=False,
        get=lambda: client.get("raw_small"),
        set=lambda: client.set("raw_small", small()),
        set_big=lambda: client.set("raw_big", whole()),
        close=client.close,
    )


async def memcached_async(port: int) -> Raw:
    """The get and set of aiomcache."""
    import aiomcache  # noqa: PLC0415

    client = aiomcache.Client(HOST, port)
    await client.set(b"raw_small", _DATA)
    small, whole = _Turns(_TWO), _Turns(_WHOLE_TWO)
    return Raw(
        asynchronous=True,
        get=lambda: client.get(b"raw_small"),
        set=lambda: client.set(b"raw_small", small()),
        set_big=lambda: client.set(b"raw_big", whole()),
        close=client.close,
    )


# -- files ------------------------------------------------------------------------------------------------------------


def filesystem_sync(folder: Path) -> Raw:
    """A file that is opened, read and closed; a new one that is written, closed and renamed. Nothing is fsynced."""
    folder.mkdir(exist_ok=True)
    small, whole = _Turns(_TWO), _Turns(_WHOLE_TWO)
    path, big_path, fresh = str(folder / "small"), str(folder / "big"), str(folder / "new")

    def get() -> bytes:
        with open(path, "rb") as file:  # noqa: PTH123 (a Path takes longer, and the unit is to be a hard one)
            return file.read()

    def put(data: bytes, path: str) -> None:
        with open(fresh, "wb") as file:  # noqa: PTH123
            file.write(data)
        os.replace(fresh, path)  # noqa: PTH105

    put(small(), path)
    return Raw(
        asynchronous=False,
        get=get,
        set=lambda: put(small(), path),
        set_big=lambda: put(whole(), big_path),
        close=lambda: None,
    )


def sqlite_sync(folder: Path) -> Raw:
    """sqlite3's SELECT and UPDATE by primary key, in autocommit mode, with WAL and synchronous=NORMAL."""
    folder.mkdir(exist_ok=True)
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("BEGIN")
    _filled(lambda text, parameters=(): connection.execute(text.replace("%s", "?"), parameters), "blob", "blob")
    connection.execute("COMMIT")
    select, update, update_big = (text.replace("%s", "?") for text in (_SELECT, _UPDATE, _UPDATE_BIG))
    small, big = _Turns(_TWO), _Turns(_BIG_TWO)
    return Raw(
        asynchronous=False,
        get=lambda: connection.execute(select, (_WANTED,)).fetchone(),
        set=lambda: connection.execute(update, (small(), _WANTED)),
        set_big=lambda: connection.execute(update_big, (big(), 1, "key050")),
        close=connection.close,
    )
