#!/usr/bin/env python3
"""Serve the demo programs, and any WSGI program of yours, at http://127.0.0.1:8000/.

Each program is a Python file with a WSGI callable named ``application``. Ctrl-C or SIGTERM ends the server once the
requests in flight are answered.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import html
import importlib.util
import logging
import os
import re
import select
import signal
import socket
import sys
import threading
import time
import traceback
import webbrowser
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import FrameType, ModuleType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

try:
    from waitress.server import create_server  # type: ignore[import-untyped]
except ModuleNotFoundError:
    sys.stderr.write("WSGIServer.py: waitress is not installed: pip install 'waitress>=3.0.2'\n")
    raise SystemExit(2) from None

DEMO = Path(__file__).resolve().parent / "demo"
DEFAULT_MOUNTS = {
    "/session": DEMO / "session.py",
    "/cgi": DEMO / "forms.py",
    "/environment": DEMO / "environment.py",
    "/error": DEMO / "error.py",
}
_MOUNT_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_MAX_PORT = 65535
_PAGE = Template((DEMO / "page.html").read_text(encoding="utf-8"))


class ServerError(Exception):
    """The server cannot start; the message names the thing and the remedy.

    Attributes:
        details: A traceback, where a program that is to be served failed.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


# The programs that are served


@dataclass(frozen=True, slots=True)
class Mount:
    """One program: where it is served, the file it came from, and what it calls itself."""

    path: str
    file: Path
    title: str
    application: WSGIApplication


def parse_mount(text: str) -> tuple[str, Path]:
    """Read one ``/path=file.py`` of the command line.

    Raises:
        argparse.ArgumentTypeError: The text is no such pair, or the path cannot be served.
    """
    path, equals, file = text.partition("=")
    if not equals or not file:
        raise argparse.ArgumentTypeError(f"{text!r} is not /path=file.py, as in --mount /hello=hello.py")
    path = path.rstrip("/") or "/"
    if path == "/":
        raise argparse.ArgumentTypeError(f"{text!r}: / is the index page; choose a path such as /hello={file}")
    if not _MOUNT_PATH.fullmatch(path):
        raise argparse.ArgumentTypeError(
            f"{text!r}: the path must begin with / and hold only letters, digits and . _ ~ - in each part"
        )
    return path, Path(file)


def collect_mounts(given: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """Put the mounts of the command line over the default ones; two for one path are an error."""
    chosen: dict[str, Path] = {}
    for path, file in given:
        if path in chosen:
            raise ServerError(f"--mount {path} is given twice ({chosen[path]} and {file}): give each path once")
        chosen[path] = file
    return {path: file.resolve() for path, file in (DEFAULT_MOUNTS | chosen).items()}


def load_program(path: str, file: Path, number: int) -> Mount:
    """Import a file under a module name of its own and take its ``application``.

    Args:
        path: Where it will be served.
        file: The Python file.
        number: Makes the module's name unique: two mounted files may have one name, or the name of a library.

    Raises:
        ServerError: There is no such file, it fails while it is imported, or it has no ``application``.
    """
    if not file.is_file():
        raise ServerError(f"--mount {path}: there is no file {file}: check the name")
    name = f"wsgiserver_mount_{number}_{re.sub(r'[^A-Za-z0-9_]', '_', file.stem)}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ServerError(f"--mount {path}: {file} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as failure:
        raise _import_failure(path, file, failure) from failure
    application = getattr(module, "application", None)
    if not callable(application):
        lacks = "has no `application`" if application is None else "has an `application` that cannot be called"
        raise ServerError(f"--mount {path}: {file} {lacks}: name its WSGI callable so, as in application = MyApp()")
    return Mount(path, file, _title(module, file), application)


def _import_failure(path: str, file: Path, failure: BaseException) -> ServerError:
    # Only the program's own frames help its author; those of this script and of importlib come before them.
    trace = failure.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(file):
        trace = trace.tb_next
    details = "".join(traceback.format_exception(type(failure), failure, trace))
    message = f"--mount {path}: {file} fails while it is imported: {type(failure).__name__}: {failure}"
    if isinstance(failure, ModuleNotFoundError) and failure.name in {"web", "coatcheck"}:
        message += " (install both distributions: pip install . ./pythonweb)"
    elif isinstance(failure, ModuleNotFoundError) and (file.parent / f"{failure.name}.py").exists():
        message += f" (start the server with PYTHONPATH={file.parent})"
    return ServerError(message, details)


def _title(module: ModuleType, file: Path) -> str:
    lines = (module.__doc__ or "").strip().splitlines()
    return lines[0].rstrip(".") if lines else file.stem


class Site:
    """The WSGI application of the whole server: it hands each request to the program with the longest fitting path."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self.mounts = {mount.path: mount for mount in mounts}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = environ.get("PATH_INFO", "")
        prefix = path
        while prefix:
            # Whole segments only: /session serves /session/x and never /sessions.
            mount = self.mounts.get(prefix)
            if mount is not None:
                environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
                environ["PATH_INFO"] = path[len(prefix) :]
                body = mount.application(environ, start_response)
                return _headers_only(body) if environ["REQUEST_METHOD"] == "HEAD" else body
            prefix = prefix.rpartition("/")[0]
        if path in {"", "/"}:
            return self._answer(environ, start_response, "200 OK", "Programs of this server", self._list())
        shown = html.escape(environ.get("SCRIPT_NAME", "") + path.encode("latin-1").decode("utf-8", "replace"))
        text = f"<p>Nothing is mounted at <code>{shown}</code>.</p>\n{self._list()}"
        return self._answer(environ, start_response, "404 Not Found", "Not found", text)

    def _list(self) -> str:
        rows = (
            f'<tr><td><a href="{html.escape(mount.path)}">{html.escape(mount.path)}</a></td>'
            f'<td>{html.escape(mount.title)}</td><td class="quiet">{html.escape(mount.file.name)}</td></tr>'
            for mount in sorted(self.mounts.values(), key=lambda mount: mount.path)
        )
        return "<table>\n<tr><th>Path</th><th>Program</th><th>File</th></tr>\n" + "\n".join(rows) + "\n</table>"

    @staticmethod
    def _answer(
        environ: WSGIEnvironment, start_response: StartResponse, status: str, title: str, body: str
    ) -> Iterable[bytes]:
        page = _PAGE.substitute(title=title, body=body).encode()
        start_response(status, [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(page)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [page]


def _headers_only(body: Iterable[bytes]) -> Iterator[bytes]:
    # waitress sends whatever body a program returns, also to HEAD. The first step is taken because a program may call
    # start_response there.
    try:
        for _ in body:
            break
        yield b""
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


# The server


class Server:
    """waitress with an orderly end: what has begun is answered, and its last byte sent, before the process goes."""

    def __init__(self, application: WSGIApplication, host: str, port: int, threads: int) -> None:
        listener = _listen(host, port)
        self.host, self.port = listener.getsockname()[:2]
        self._map: dict[int, Any] = {}
        self._waitress = create_server(
            application, map=self._map, sockets=[listener], threads=threads, ident="WSGIServer", server_name=self.host
        )
        self._stopping = False

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def run(self) -> None:
        """Serve until ``ask_to_stop``."""
        while not self._stopping:
            self._poll(timeout=1)

    def ask_to_stop(self) -> None:
        """Make ``run`` return; safe to call from a signal handler."""
        self._stopping = True
        self._waitress.pull_trigger()

    def finish(self, grace: float) -> int:
        """Stop accepting, answer the requests in flight and close every connection.

        Args:
            grace: How many seconds the requests may take.

        Returns:
            How many requests had not been answered by then.
        """
        deadline = time.monotonic() + grace
        server = self._waitress
        self._take_waiting_connections()
        # Not server.close(): that closes the pipe as well through which the working threads wake this one.
        server.asyncore.dispatcher.close(server)
        while True:
            for channel in list(server.active_channels.values()):
                _close_when_idle(channel)
            left = deadline - time.monotonic()
            if not server.active_channels or left <= 0:
                break
            self._poll(timeout=min(left, 0.2))
        unanswered = self.in_flight()
        if not unanswered:
            # A program whose client went away may still be at work: let it end in its own way too.
            server.task_dispatcher.shutdown(cancel_pending=False, timeout=max(0.0, left))
            unanswered = len(server.task_dispatcher.threads)
        if not unanswered:
            server.asyncore.close_all(self._map)
        return unanswered

    def in_flight(self) -> int:
        """How many connections have a request that is being received or answered."""
        return sum(not _idle(channel) for channel in list(self._waitress.active_channels.values()))

    def _poll(self, timeout: float) -> None:
        self._waitress.asyncore.loop(timeout=timeout, map=self._map, count=1)

    def _take_waiting_connections(self) -> None:
        # The kernel has accepted these for us already; closing the listener would reset them.
        for _ in range(self._waitress.adj.backlog):
            if not select.select([self._waitress.socket], [], [], 0)[0]:
                break
            self._waitress.handle_accept()
        self._poll(timeout=0)


def _idle(channel: Any) -> bool:
    # In this order: a working thread fills the output before it takes its request off the list.
    return not channel.requests and channel.request is None and not channel.total_outbufs_len


def _close_when_idle(channel: Any) -> None:
    # Under waitress's own lock, and never with a request on the list: between two chunks of a streamed body the output
    # is empty for a moment, and the flag would cut the body off there.
    with channel.requests_lock:
        if not channel.requests and channel.request is None:
            channel.close_when_flushed = True


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # "localhost" has two addresses, and with -p 0 they would get two ports: one address is served, IPv4 first.
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family)
    except socket.gaierror as failure:
        raise ServerError(f"--host {host}: no such address ({failure.strerror}): try 127.0.0.1") from failure
    except OSError as failure:
        remedies = {
            errno.EADDRINUSE: f"port {port} on {host} is in use: stop what listens there, or choose another port "
            "with -p, or PORT= for make demo (0 takes a free one)",
            errno.EACCES: f"port {port} on {host} is not allowed for this user: choose a port over 1023 with -p",
            errno.EADDRNOTAVAIL: f"--host {host} is no address of this machine: try 127.0.0.1",
        }
        message = remedies.get(failure.errno or 0, f"cannot listen on {host} port {port}: {failure.strerror}")
        raise ServerError(message) from failure


# The command line


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to {_MAX_PORT}")
    return int(text)


def _threads(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads: give 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) < threading.TIMEOUT_MAX:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds: give 0 or more")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a bad one ends the process with status 2."""
    parser = argparse.ArgumentParser(prog="WSGIServer.py", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("-p", "--port", type=_port, default=8000, help="the port; 0 takes a free one (default: 8000)")
    add("--host", default="127.0.0.1", help="the address; 0.0.0.0 lets other machines in (default: 127.0.0.1)")
    add("-l", "--launch", action="store_true", help="open the index page in a browser")
    add(
        "--mount",
        metavar="/PATH=FILE.py",
        type=parse_mount,
        action="append",
        default=[],
        help="serve the `application` of a file; may be given several times, and replaces a demo of the same path",
    )
    add("--threads", metavar="N", type=_threads, default=8, help="requests answered at one time (default: 8)")
    add(
        "--data",
        metavar="DIR",
        type=Path,
        help="the folder the programs run in, made if missing: their databases lie there (default: this folder)",
    )
    add(
        "--grace",
        metavar="SECONDS",
        type=_seconds,
        default=30.0,
        help="how long requests in flight may take when the server is told to end (default: 30)",
    )
    return parser.parse_args(arguments)


def _enter(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
    except OSError as failure:
        raise ServerError(f"--data {folder}: {failure.strerror}: name a folder to make or to enter") from failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server.

    Returns:
        The exit status: 0 after an orderly end, 1 where requests were cut off, 2 where it could not start.
    """
    options = parse_arguments(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a short queue is no news on a demo server
    try:
        files = collect_mounts(options.mount)
        if options.data is not None:
            _enter(options.data)
        site = Site([load_program(path, file, number) for number, (path, file) in enumerate(files.items(), 1)])
        server = Server(site, options.host, options.port, options.threads)
    except ServerError as failure:
        sys.stderr.write(f"{failure.details}WSGIServer.py: {failure}\n")
        return 2

    def stop(number: int, _frame: FrameType | None) -> None:
        if signal.SIGINT in asked and number == signal.SIGINT:
            os._exit(128 + signal.SIGINT)  # the second Ctrl-C: whatever still runs is left where it is
        asked.add(number)
        server.ask_to_stop()

    asked: set[int] = set()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    sys.stdout.write(f"Serving on {server.url}\n")
    sys.stdout.flush()
    if options.launch:
        # A browser that runs in the terminal would keep this thread from serving it.
        threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
    server.run()
    if waiting := server.in_flight():
        sys.stderr.write(f"Finishing {waiting} request(s), {options.grace:g} s at most; Ctrl-C ends it at once\n")
    if cut := server.finish(options.grace):
        sys.stderr.write(f"{cut} request(s) had no answer after {options.grace:g} s and were cut off\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
