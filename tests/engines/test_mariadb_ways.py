"""How MariaDB is reached, what it refuses, and how that is told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest
from testservers import Fault, FaultProxy, MariaDBServer
from testservers.fixtures import OPENSSL, need

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.mariadb import AsyncMariaDBDriver, MariaDBDriver
from coatcheck.drivers.mariadb.dialect import MariaDBDialect
from coatcheck.drivers.mariadb.wire import check_version
from coatcheck.errors import ConfigurationError, CounterOverflow, DriverUnavailable
from coatcheck.record import COUNTER_MAX, Delta, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, digest, loaded, puts, started

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")
N: ValueKey = ("", "n")

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def url(mariadb_server: MariaDBServer) -> str:
    return mariadb_server.create_database("special")


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest, url: str) -> str:
    with closing(open_driver(url)) as driver:
        driver.setup()
    way: str = request.param
    return way


def opened(url: str, way: str) -> Driver:
    return open_driver(url) if way == "sync" else Blocking(open_async_driver(url))


def test_a_password_with_letters_of_all_kinds(mariadb_server: MariaDBServer, way: str) -> None:
    mariadb_server.create_user("odd@127.0.0.1", "pä€s:/@?#", "special")
    login = "odd:p%C3%A4%E2%82%ACs%3A%2F%40%3F%23"
    with closing(opened(f"mysql://{login}@{mariadb_server.address}/special", way)) as driver:
        driver.setup()


def test_a_unix_socket(mariadb_server: MariaDBServer, url: str, way: str) -> None:
    mariadb_server.create_user("local@localhost", "x", "special")
    socket = mariadb_server.folder / "mariadb.sock"
    with closing(opened(f"mariadb://local:x@/special?socket={socket}", way)) as driver:
        started(driver)
    with pytest.raises(ConfigurationError, match="names one server"):
        open_driver(f"{url}?socket={socket}")


def test_a_login_that_is_refused(mariadb_server: MariaDBServer, url: str, way: str) -> None:
    """The message helps, and repeats no password."""
    with (
        closing(opened(url.replace(":secret@", ":hush-hush@"), way)) as driver,
        pytest.raises(DriverUnavailable, match=r"check user, password and tls= in the URL \(error 1045\)") as caught,
    ):
        driver.load(digest(), START)
    assert "hush" not in str(caught.value)
    with (
        closing(opened(mariadb_server.url_of("nowhere"), way)) as driver,
        pytest.raises(DriverUnavailable, match=r"error 10(44|49)"),
    ):
        driver.load(digest(), START)


def test_a_server_that_is_read_only(mariadb_server: MariaDBServer, url: str, way: str) -> None:
    with closing(opened(url, way)) as driver:
        record = started(driver)
        mariadb_server.sql("SET GLOBAL read_only = 1")
        try:
            with pytest.raises(DriverUnavailable, match="read-only: name the primary") as caught:
                driver.commit(record.digest, puts({A: b"x"}), START)
            assert not caught.value.outcome_unknown
            loaded(driver, record.digest, START)
        finally:
            mariadb_server.sql("SET GLOBAL read_only = 0")
        committed(driver.commit(record.digest, puts({A: b"x"}), START))


def test_whatever_the_server_is_set_to(mariadb_server: MariaDBServer, url: str, way: str) -> None:
    """Our own connections have the modes that they need."""
    odd = "SET GLOBAL sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH', GLOBAL autocommit = 0"
    mode = mariadb_server.sql("SELECT @@GLOBAL.sql_mode").strip()
    mariadb_server.sql(odd)
    try:
        with closing(opened(url, way)) as driver:
            record = started(driver, values={A: b"\\'\0\xff", N: COUNTER_MAX})
            with pytest.raises(CounterOverflow):
                driver.commit(record.digest, Delta(increments={N: 1}), START)
            committed(driver.commit(record.digest, puts({B: b"\\'\0\xff"}), START))
            assert loaded(driver, record.digest, START).values[A].data == b"\\'\0\xff"
    finally:
        mariadb_server.sql(f"SET GLOBAL sql_mode = '{mode}', GLOBAL autocommit = 1")


class TLSServer(MariaDBServer):
    """A server that speaks TLS with who wants to."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        super().__init__(folder, extra=["--loose-ssl", f"--ssl-cert={self.certificate}", f"--ssl-key={self.key}"])

    def prepare(self) -> None:
        super().prepare()
        made = ("-keyout", str(self.key), "-out", str(self.certificate), "-subj", "/CN=localhost")
        names = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "keyUsage=digitalSignature,keyCertSign")
        self.run_tool("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *made, *names)


@pytest.fixture(scope="module")
def tls_server(server_folder: Path) -> Iterator[TLSServer]:
    """A server that lets its user in with TLS only."""
    need(MariaDBServer, OPENSSL)
    with TLSServer(server_folder / "mariadb-tls") as server:
        server.sql(f"ALTER USER {server.user}@{server.host} REQUIRE SSL")
        yield server


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("tls=unverified", None),
        ("tls=verified&ca={ca}", None),
        ("tls=verified", "no TLS connection comes about"),
        ("tls=off", "check user, password and tls="),
    ],
)
def test_tls(tls_server: TLSServer, way: str, options: str, problem: str | None) -> None:
    """A certificate is looked at where that is asked for."""
    where = f"{tls_server.url}?{options.format(ca=tls_server.certificate)}"
    with closing(opened(where, way)) as driver:
        if problem is None:
            driver.setup()
            started(driver)
        else:
            with pytest.raises(DriverUnavailable, match=problem):
                driver.setup()


def test_an_answer_that_comes_in_drops(mariadb_server: MariaDBServer, url: str, way: str) -> None:
    """The limit is for all of it, not for each of its pieces."""
    with (
        FaultProxy(mariadb_server.port) as proxy,
        closing(opened(f"{url.replace(mariadb_server.address, proxy.address)}?timeout=1", way)) as driver,
    ):
        record = started(driver, values={A: bytes(5000)})
        proxy.inject(Fault.DRIP, seconds=0.1)
        began = time.monotonic()
        with pytest.raises(DriverUnavailable, match=r"no answer from .* within 1 s"):
            driver.load(record.digest, START)
        assert time.monotonic() - began < 8  # and not the ten that the pieces take
        proxy.heal()


def test_a_server_that_cuts_answers_short(mariadb_server: MariaDBServer, url: str, way: str) -> None:
    """Our own connections read everything, whatever its `sql_select_limit` and `max_join_size` are."""
    mariadb_server.sql("SET GLOBAL sql_select_limit = 1, GLOBAL max_join_size = 1, GLOBAL sql_big_selects = 0")
    try:
        with closing(opened(url, way)) as driver:
            records = [started(driver, user=f"few-{way}", values={A: b"a", B: b"b"}) for _ in range(3)]
            assert len(loaded(driver, records[0].digest, START).values) == 2
            assert driver.missing([record.sid for record in records], START) == set()
            assert driver.revoke_user(f"few-{way}", START) == 3
    finally:
        mariadb_server.sql(
            "SET GLOBAL sql_select_limit = DEFAULT, GLOBAL max_join_size = DEFAULT, GLOBAL sql_big_selects = DEFAULT"
        )


def test_tls_is_not_left_out_because_the_server_has_none(mariadb_server: MariaDBServer, url: str, way: str) -> None:
    if mariadb_server.is_mysql:
        pytest.skip("MySQL always has TLS")
    with (
        closing(opened(f"{url}?tls=unverified", way)) as driver,
        pytest.raises(DriverUnavailable, match="no TLS connection comes about"),
    ):
        driver.load(digest(), START)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("10.6.0-MariaDB", None),
        ("5.5.5-10.11.6-MariaDB-0+deb12u1", None),
        ("11.8.2-MariaDB-log", None),
        ("8.0.36", None),
        ("9.1.0-commercial", None),
        ("10.5.23-MariaDB", "the server is MariaDB 10.5.23-MariaDB; sessions need 10.6 or later"),
        ("5.5.5-10.3.39-MariaDB", "10.6 or later"),
        ("5.7.44-log", "the server is MySQL 5.7.44-log; sessions need 8.0 or later"),
        ("unheard of", "8.0 or later"),
    ],
)
def test_versions(said: str, problem: str | None) -> None:
    if problem is None:
        check_version(said)
    else:
        with pytest.raises(ConfigurationError, match=problem):
            check_version(said)


def test_no_message_of_the_servers_is_repeated(mariadb_server: MariaDBServer) -> None:
    """Its messages may have values in them."""
    server = mariadb_server
    login = {"user": server.user, "password": server.password, "database": "special"}
    with (
        closing(pymysql.connect(host=server.host, port=server.port, **login)) as connection,
        closing(connection.cursor()) as cursor,
    ):
        for statement in ("SELECT secret FROM nowhere", "SELECT 'secret", "SELECT CAST('secret' AS DATE) + secret()"):
            with pytest.raises(pymysql.Error) as caught:
                cursor.execute(statement)
            assert "secret" not in MariaDBDialect("").said(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mariadb://u:p@h", "needs a user and a database"),
        ("mariadb://h/d", "needs a user and a database"),
        ("mariadb://u:p@h,i/d", "names one server"),
        ("mariadb://u:p@h/d/e", "names one server"),
        ("mariadb://u:p@h/d?tls=maybe", "tls must be one of off, unverified, verified"),
        ("mariadb://u:p@h/d?ca=x", "with tls=verified only"),
        ("mariadb://u:p@/d?socket=/s&tls=verified", "exclude each other"),
        ("mariadb://u:p@h/d?max_connections=0", "max_connections must be"),
        ("mariadb://u:p@h/d?timeout=0", "timeout must be"),
        ("mariadb://u:p@h/d?prefix=a-b", "table prefix"),
        ("mariadb://u:p@h/d?pool=3", "unknown option 'pool'"),
    ],
)
@pytest.mark.parametrize("kind", [MariaDBDriver, AsyncMariaDBDriver])
def test_urls_that_cannot_work(kind: Any, url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        kind.from_url(url)


def test_settings_that_endanger_sessions(mariadb_server: MariaDBServer, url: str, way: str) -> None:
    """The servers of these tests do not write to the disk at each commit."""
    with closing(opened(url, way)) as driver:
        driver.load(digest(), START)
        inner = driver.driver if isinstance(driver, Blocking) else driver
        assert inner.at_risk is not None
        assert "innodb_flush_log_at_trx_commit is 2" in inner.at_risk
    dialect = MariaDBDialect("")
    assert dialect.advice((1, 0, 0, 16 << 20)) == []
    assert len(dialect.advice((0, 1, 0, 1 << 20))) == 3


@pytest.mark.parametrize("package", ["aiomysql", "pymysql"])
def test_a_package_that_is_missing(package: str) -> None:
    """The message says what to install."""
    program = f"import sys; sys.modules[{package!r}] = None; import coatcheck; coatcheck.driver('mysql://u:p@h/d')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert "MissingExtra: MariaDB needs a package that is missing: pip install 'coatcheck[mariadb]'" in done.stderr
