"""Eight clients at a time on the threaded server: nobody sees anything of another's request or session."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pythonweb.tests.server.conftest import Servers

THREADS = 8
CLIENTS = 25  # of each thread, each with cookies of its own
VISITS = 10  # of each client
COOKIE = "testEnv"

# One shared instance answers everybody, as the page's program does. It keeps the client's name in the session at the
# first visit, and says at each what it finds: in the session, in the environ, and on itself.
PROBE = """import hashlib, json, time
from web.wsgi import base, cgi, database, environment, error, session
class Probe(base.BaseApplication):
    def start(self):
        manager, store = self.environ["web.session.manager"], self.environ["web.session.store"]
        client = self.environ["web.cgi"].getfirst("client")
        created = manager.created
        if created:
            store["client"] = client
        elif client.endswith("5"):
            store["visits"] = store.get("visits", 0) + 1 if store.has_key("visits") else 1
        self.headers.append(("X-Client", client))
        self.headers.append(("Set-Cookie", "mine=" + client + "; Path=/"))
        self.status = "200 " + client
        time.sleep(0.001)  # hands over to another thread between what is put on self and what is read back
        self.output(json.dumps({
            "created": created,
            "stored": store["client"],
            "cookies": self.environ.get("HTTP_COOKIE", ""),
            "header": self.environ["HTTP_X_CLIENT"],
            "query": self.environ["QUERY_STRING"],
            "digest": hashlib.sha256(manager.sessionID.encode()).hexdigest(),
        }))
        self.environ["web.database.connection"].commit()
application = error.Error(database.Database(environment.Environment(
    session.Session(cgi.CGI(Probe()), app="testApp", expire=600, setupEnvironment=True),
    name="testEnv", storage="database"), adapter="sqlite", database="wsgi-session", autoCreate=True))
"""


class Client:
    """One visitor with a cookie of its own and, after its first visit, a session."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.token = ""

    def visit(self, connection: http.client.HTTPConnection) -> None:
        cookies = f"who={self.name}" + (f"; {COOKIE}={self.token}" if self.token else "")
        headers = {"Cookie": cookies, "X-Client": self.name}
        connection.request("GET", f"/probe?client={self.name}", headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        assert (answer.status, answer.reason) == (200, self.name), body
        assert answer.headers.get_all("X-Client") == [self.name]
        sent = dict(header.split(";")[0].split("=", 1) for header in answer.headers.get_all("Set-Cookie", []))
        assert len(sent) == len(answer.headers.get_all("Set-Cookie", [])), "a cookie was set twice"
        assert sent.pop("mine") == self.name
        new = not self.token
        if new:
            self.token = sent.pop(COOKIE)
        # Nothing moves the end of the session, so no other visit has a reason to send its cookie.
        assert sent == {}
        assert json.loads(body) == {
            "created": new,
            "stored": self.name,
            "cookies": cookies,
            "header": self.name,
            "query": f"client={self.name}",
            "digest": hashlib.sha256(self.token.encode()).hexdigest(),
        }


@pytest.mark.timeout(110)
def test_two_thousand_requests_of_two_hundred_clients_never_mix(
    start_server: Servers, program: Callable[[str, str], Path]
) -> None:
    server = start_server("--mount", f"/probe={program('probe.py', PROBE)}", "--threads", str(THREADS))

    def work(thread: int) -> list[Client]:
        clients = [Client(f"client-{thread}-{number}") for number in range(CLIENTS)]
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        try:
            for _ in range(VISITS):
                for client in clients:
                    client.visit(connection)
        finally:
            connection.close()
        return clients

    with ThreadPoolExecutor(THREADS) as pool:
        clients = [client for batch in pool.map(work, range(THREADS)) for client in batch]
    assert len(clients) * VISITS == 2000
    assert len({client.token for client in clients}) == len(clients)
    assert [line for line in server.errors.splitlines() if "plain http" not in line] == []
