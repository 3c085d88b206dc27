"""What the fuzzer works on, and what has to hold for every input."""

from __future__ import annotations

import hashlib
import pickle
import re
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from coatcheck import Codec, Event, EventKind, Policy, Session, SessionManager, UnstorableValue
from coatcheck.codec import Undecodable
from coatcheck.drivers.memory import MemoryDriver
from coatcheck.headers import LOGIN_REFUSED
from coatcheck.token import Token
from coatcheck.wsgi import SessionMiddleware

if TYPE_CHECKING:
    import random

NOW = 1_800_000_000.0
NAME = "__Host-sid"
MAX_PAIRS = 1000  # more are passed over
SLOW = 0.5
"""Seconds of processor time after which four kilobytes took too long: a thousand times what they take."""

_forbidden: list[str] = []
_hooked: list[bool] = []
_DANGERS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
_watching: set[str] = set()


def _watch(event: str, _: object) -> None:
    if _watching and event in _DANGERS:
        _forbidden.append(event)


def watch() -> None:
    """From now on nothing may be unpickled or started in this process, until `unwatch`."""
    if not _hooked:
        sys.addaudithook(_watch)  # for good: Python offers no way to take one off
        _hooked.append(True)
    _watching.add("on")


def unwatch() -> None:
    """Look whether something was, and stop looking."""
    _watching.clear()
    found, _forbidden[:] = list(_forbidden), []
    assert not found, f"stored bytes were run: {found}"


class Bomb:
    """What nobody may ever unpickle."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (eval, ("__import__('os').system('echo pickled')",))


VALUES: list[object] = [
    None, True, 0, -1, 2**63, 2**64, -(2**70), 1.5, "text", "\u20ac" * 20, b"bytes", bytearray(b"x"), [], [1, [2, [3]]],
    {"a": 1, "b": {"c": [1, 2, 3]}}, {1: 2, (3, 4): frozenset({5})}, (1, (2,)), {1, 2, 3}, frozenset("ab"),
    Decimal("1.50"), Fraction(3, 4), 1 + 2j, range(1, 10, 3), UUID(int=5), datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Paris")), datetime(2026, 1, 2).date(), timedelta(1, 2, 3),  # noqa: DTZ001
    Counter("aab"), datetime(2026, 1, 2).time(), [["x" * 50] * 10] * 3, "x" * 1000,  # noqa: DTZ001
]  # fmt: skip
BOMBS: list[bytes] = [
    pickle.dumps(Bomb()),
    pickle.dumps(Bomb(), protocol=0),
    pickle.dumps({"user": "admin"}),
    b"\x91" * 4000,
    b"\x81\xa1a" * 1300,
    b"\xc7\xff\x02" + b"\x91" * 255,
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x02",
    b"\xdc\xff\xff" + b"\xc0" * 100,
    b"\xd6\xff\0\0\0\0",
    b"\xc7\x0c\xff\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xc7\x09\x071E9999999",
    b"\xc7\x0b\x0fZ../../etc/",
    b'{"json": true}',
    b"x\x9c\x03\0\0\0\0\x01",
]


class Site:
    """An application that answers with what its session holds, on one engine."""

    def __init__(self, url: str) -> None:
        self.events: list[Event] = []
        self.handler: Callable[[Session], object] = dict
        self.result: object = None
        policy = Policy(sweep_every=0)
        self.manager = SessionManager(url, policy, listeners=[self.events.append], clock=lambda: NOW)
        self._middleware = SessionMiddleware(self._app, self.manager)

    def _app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.result = self.handler(environ["coatcheck.session"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    def send(self, cookie: str | None, handler: Callable[[Session], object]) -> str | None:
        """Send a request, return the Set-Cookie of its answer, which has to be 200, or 409 for a refused log-in."""
        self.handler = handler
        self.events.clear()
        environ: dict[str, Any] = {"wsgi.url_scheme": "https", "REQUEST_METHOD": "GET"}
        if cookie is not None:
            environ["HTTP_COOKIE"] = cookie
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        body = self._middleware(environ, lambda *answer: answers.append(answer[:2]))  # type: ignore[arg-type]
        ((status, headers),) = answers
        # a log-in is refused where the row of a revocation says so, and the answer says that
        assert (status, list(body)) in (("200 OK", [b"done"]), ("409 Conflict", [LOGIN_REFUSED]))
        cookies = [value for name, value in headers if name == "Set-Cookie"]
        assert all("; Max-Age=0;" in cookie for cookie in cookies[:-1])  # deletions of others of the name go before it
        return cookies[-1] if cookies else None

    def new(self, **values: object) -> str:
        """Start a session; give its token."""
        cookie = self.send(None, lambda session: session.update(values))
        assert cookie is not None
        return cookie.partition(";")[0].partition("=")[2]

    def digests(self) -> set[bytes]:
        """All digests under which something is stored."""
        driver = self.manager.driver
        if isinstance(driver, MemoryDriver):
            return set(driver._digests)
        with closing(sqlite3.connect(driver.path)) as raw:  # type: ignore[attr-defined]
            return {row[0] for row in raw.execute("SELECT digest FROM coatcheck_session")}


class Cookies:
    """Cookie headers, on memory and SQLite: only the one right cookie opens a session, and nothing takes on a token."""

    def __init__(self, folder: Path) -> None:
        self.sites = [Site("memory:"), Site(f"sqlite:///{folder}/sessions.db")]
        self.live = [site.new(who=f"ada {n}") for n, site in enumerate(self.sites)]
        self.issued = [{hashlib.sha256(live.encode()).digest()} for live in self.live]
        token = "A" * 32
        forms = [
            f"{NAME}=%s", f"a=b; {NAME}=%s; c=d", f"{NAME}=%s; {NAME}=%s", f"{NAME}=%s; {NAME}={token}",
            f"{NAME}={token}", f"{NAME} = %s", f'{NAME}="%s"', f"={NAME}=%s", "__host-sid=%s", "sid=%s", f"{NAME}=",
            f"$Version=1; {NAME}=%s; $Path=/", f'a="x; {NAME}=%s"', f"bad[=1; {NAME}=%s", f"{NAME}=%s,{NAME}=%s",
            "%%5F%%5FHost-sid=%s", f"x={NAME}=%s", ";;;=;", f"\t{NAME}\t=\t%s\t", f"{NAME}=%s;" + "a=b;" * 300,
            "\\" * 500, f"{NAME}={token[1:]}\u2003",
        ]  # fmt: skip
        self.corpus = [form.replace("%s", live).encode() for form in forms for live in self.live]
        self.corpus += [blank + self.corpus[0] for blank in (b"\xa0", b"\x85", b"\x0b", b"\x0c", b"\x1c")]
        own = rf"(?:^|;)[ \t]*{re.escape(NAME)}[ \t]*=[ \t]*%s[ \t]*(?:;|$)"
        self._right = [re.compile(own % re.escape(live)) for live in self.live]
        any_value = rf"(?:^|;)[ \t]*{re.escape(NAME)}[ \t]*=([^;]*)"
        self._values = re.compile(any_value)
        self._turn = 0

    def run(self, data: bytes, chance: random.Random) -> object:
        header = data.decode("latin-1")  # what WSGI makes of any header
        self._turn = 1 - self._turn
        site, live = self.sites[self._turn], self.live[self._turn]
        values = {value.strip(" \t") for value in self._values.findall(header)}
        expected = values == {live} and header.count(";") < MAX_PAIRS
        answer = site.send(header, lambda session: (session.get("who"), len(session)))
        assert answer is None, "a read sets no cookie"
        assert site.result == ((f"ada {self._turn}", 1) if expected else (None, 0)), site.result
        assert not expected or self._right[self._turn].search(header)
        kinds = tuple(event.kind.value for event in site.events)
        if chance.random() < 0.05:
            self._write(site, header, expected=expected)
        return expected, kinds, min(len(values), 3)

    def _write(self, site: Site, header: str, *, expected: bool) -> None:
        def write(session: Session) -> None:
            session["mine"] = 1

        answer = site.send(header, write)
        if expected:
            assert answer is None
            site.send(header, lambda session: session.pop("mine"))
            return
        assert answer is not None
        secret = answer.partition(";")[0].partition("=")[2]
        assert Token.parse(secret) is not None
        assert secret not in header, "stored under a token that the client chose"
        self.issued[self._turn].add(hashlib.sha256(secret.encode()).digest())

    def close(self) -> None:
        for site, issued in zip(self.sites, self.issued, strict=True):
            assert site.digests() == issued, "something is stored under a token that was never issued"
            site.manager.close()


class Bodies:
    """What a client sends and the application puts into its session as it is: it comes back exactly, or is refused."""

    def __init__(self, folder: Path) -> None:
        self.sites = [Site("memory:"), Site(f"sqlite:///{folder}/sessions.db")]
        self.cookies = [f"{NAME}={site.new(other='kept')}" for site in self.sites]
        self.corpus = [
            b"key=value",
            b"name\0=x",
            b"\xed\xa0\x80=\xff",
            b"=",
            b"a=" + b"b" * 600,
            b"k" * 300 + b"=1",
            *BOMBS,
        ]
        self._turn = 0

    def run(self, data: bytes, chance: random.Random) -> object:
        self._turn = 1 - self._turn
        site, cookie = self.sites[self._turn], self.cookies[self._turn]
        raw_key, _, rest = data.partition(b"=")
        key = raw_key.decode(chance.choice(("latin-1", "utf-8")), "surrogateescape")
        errors = chance.choice(("replace", "surrogateescape"))
        value = rest if chance.random() < 0.5 else rest.decode("utf-8", errors)

        def post(session: Session) -> str:
            try:
                session[key] = value
            except UnstorableValue:
                return "refused"
            return "stored"

        assert site.send(cookie, post) is None
        outcome = site.result
        site.send(cookie, dict)
        expected = {"other": "kept"} | ({key: value} if outcome == "stored" else {})
        assert site.result == expected
        assert outcome == "stored" or not 0 < len(key) <= 255 or "\0" in key or _has_surrogate(key + str(value))
        site.send(cookie, lambda session: (session.pop(key, None), session.update(other="kept")))
        return outcome, type(value).__name__, min(len(key), 3)

    def close(self) -> None:
        for site in self.sites:
            site.manager.close()


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


class Planted:
    """A session on SQLite, and a connection past the driver to plant things with."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(f"sqlite:///{folder}/sessions.db")
        self.cookie = f"{NAME}={self.site.new(good='unharmed', bad='to be spoilt')}"
        self.raw = sqlite3.connect(folder / "sessions.db", isolation_level=None)
        self.raw.execute("PRAGMA synchronous=OFF")
        codec = Codec()
        self.corpus = [codec.encode(value) for value in VALUES] + BOMBS

    def close(self) -> None:
        assert self.raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        self.raw.close()
        self.site.manager.close()


class StoredValues(Planted):
    """Any bytes in the place of a value: a value or missing with an event; the others unharmed, the bytes untouched."""

    def run(self, data: bytes, chance: random.Random) -> object:
        site = self.site
        self.raw.execute("UPDATE coatcheck_value SET data = ? WHERE key = 'bad'", (data,))
        watch()
        try:
            assert site.send(self.cookie, lambda session: (session["good"], session.get("bad", site))) is None
        finally:
            unwatch()
        good, bad = site.result  # type: ignore[misc]
        assert good == "unharmed"
        told = [event.kind for event in site.events]
        assert told == ([EventKind.UNREADABLE] if bad is site else []), told
        ((held,),) = self.raw.execute("SELECT data FROM coatcheck_value WHERE key = 'bad'").fetchall()
        assert held == data, "reading changed what is stored"
        if chance.random() < 0.1:
            site.send(self.cookie, lambda session: (len(session), session.update(bad=1, good="unharmed")))
            site.send(self.cookie, lambda session: session["bad"])
            assert site.result == 1
        return bad is site, type(bad).__name__


COLUMNS = {
    "session": (
        "sid", "digest", "created", "seen", "deadline", "idle", "absolute", "user", "auth_time", "rotated", "prior",
        "prior_until", "grace",
    ),
    "value": ("session", "app", "key", "version", "data"),
    "ended": ("digest", "reason", "until", "sid"),
    "fence": ("user", "at"),
}  # fmt: skip


class StoredRows(Planted):
    """Any value of any type in any column: no exception, no 500, and the next visitor is served."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.site.manager.driver.setup()
        self.ended = f"{NAME}={self.site.new(gone=1)}"
        self.site.send(self.ended, lambda session: session.logout())
        self.site.manager.revoke_user("ada")
        self.neighbour = f"{NAME}={self.site.new(mine='unharmed')}"
        self._restore = {}
        for table, columns in COLUMNS.items():
            listed = ",".join(("id", *columns) if table == "session" else columns)
            rows = self.raw.execute(f"SELECT {listed} FROM coatcheck_{table}").fetchall()  # noqa: S608
            marks = ",".join("?" * (listed.count(",") + 1))
            self._restore[table] = (f"INSERT INTO coatcheck_{table} ({listed}) VALUES ({marks})", rows)  # noqa: S608

    def _repair(self) -> None:
        self.raw.execute("BEGIN IMMEDIATE")
        for table, (text, rows) in self._restore.items():
            self.raw.execute(f"DELETE FROM coatcheck_{table}")  # noqa: S608
            self.raw.executemany(text, rows)
        self.raw.execute("COMMIT")

    def _any(self, data: bytes, chance: random.Random) -> tuple[str, object]:
        """Give an SQL expression and its parameter: NULL, a number, text (also such as is no UTF-8), bytes."""
        what = chance.randrange(7)
        if what == 0:
            return "?", None
        if what == 1:
            return "?", chance.choice((0, 1, -1, 2**63 - 1, -(2**63), chance.getrandbits(40)))
        if what == 2:
            return "?", chance.choice((0.0, -1.0, 1e308, float("inf"), float("-inf"), NOW, NOW + 1, chance.random()))
        if what == 3:
            return "CAST(? AS TEXT)", data  # most of it no UTF-8
        if what == 4:
            return "?", data.decode("latin-1")
        return "?", data

    def run(self, data: bytes, chance: random.Random) -> object:
        self._repair()
        table = chance.choice(tuple(COLUMNS))
        column = chance.choice(COLUMNS[table])
        expression, parameter = self._any(data, chance)
        only = "WHERE key = 'bad'" if table == "value" else "WHERE id = 1" if table == "session" else ""
        try:
            text = f"UPDATE coatcheck_{table} SET {column} = {expression} {only}"  # noqa: S608
            assert self.raw.execute(text, (parameter,)).rowcount > 0
        except (sqlite3.IntegrityError, OverflowError):
            return "refused by SQLite"
        handler = chance.choice(HANDLERS)
        self.site.send(chance.choice((self.cookie, self.cookie, self.ended)), handler)
        told = tuple(event.kind.value for event in self.site.events)
        self.site.manager.sessions_of("ada")
        if chance.random() < 0.1:
            self.site.manager.revoke_user("ada")
            self.site.manager.driver.missing(["x"], NOW)
            assert self.site.manager.sweep() >= 0
        self.site.send(self.neighbour, dict)
        if table != "value" or column != "session":  # a value that is given to another session is that one's
            assert self.site.result == {"mine": "unharmed"}
        return table, column, handler.__name__, told


def _read_all(session: Session) -> object:
    return dict(session), session.user, session.expires


def _put(session: Session) -> object:
    session["good"] = "changed"
    return None


def _change(session: Session) -> object:
    session["good"] = str(session.get("good")) + "!"
    return None


def _count(session: Session) -> object:
    session.increment("n")
    return None


def _many(session: Session) -> object:
    session.update(a=1, b=2)
    session.pop("bad", None)
    return None


def _rotate(session: Session) -> object:
    return session.rotate()


def _login(session: Session) -> object:
    return session.login("ada", keep=["good"])


def _logout(session: Session) -> object:
    return session.logout()


HANDLERS = (_read_all, _put, _change, _count, _many, _rotate, _login, _logout)


class Encodings:
    """Any bytes for the codec: a value that is encoded and decoded again as the same, or `Undecodable`, and soon."""

    def __init__(self, folder: Path) -> None:
        del folder
        self.codec = Codec()
        self.corpus = [self.codec.encode(value) for value in VALUES] + BOMBS

    def run(self, data: bytes, chance: random.Random) -> object:
        begin = time.process_time()
        watch()
        try:
            value = self.codec.decode(data)
        except Undecodable as error:
            outcome: object = str(error)
        else:
            again = self.codec.encode(value)
            assert self.codec.encode(self.codec.decode(again)) == again
            outcome = type(value).__name__
        finally:
            unwatch()
        assert time.process_time() - begin < SLOW, "too slow"
        return outcome

    def close(self) -> None:
        pass


TARGETS: dict[str, Callable[[Path], Any]] = {
    "cookies": Cookies,
    "bodies": Bodies,
    "values": StoredValues,
    "rows": StoredRows,
    "encodings": Encodings,
}
