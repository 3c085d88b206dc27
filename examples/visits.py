"""The shortest use: a WSGI application that counts each visitor's visits. Run it, then open http://localhost:8000/."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from coatcheck import Policy
from coatcheck.wsgi import SessionMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def visits(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Count a visit: exact, however many requests of one visitor come at once."""
    session = environ["coatcheck.session"]
    session.increment("visits")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"visit {session['visits']}\n".encode()]


# Run as a program, this is http for development: not every client keeps a Secure cookie then, not even on this machine.
application = SessionMiddleware(visits, "sqlite:///sessions.db", Policy(insecure_http=__name__ == "__main__"))

if __name__ == "__main__":
    import sys
    from wsgiref.simple_server import make_server

    port = int(sys.argv[1]) if sys.argv[1:] else 8000  # python examples/visits.py 8001 takes another
    with make_server("127.0.0.1", port, application) as server:
        print(f"Serving on http://localhost:{server.server_port}/", flush=True)
        server.serve_forever()
