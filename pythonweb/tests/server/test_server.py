"""WSGIServer.py as a user meets it: a process with a command line and programs that it serves."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pythonweb.tests.server.conftest import Running, Servers

    Program = Callable[[str, str], Path]
    Connect = Callable[["Running"], http.client.HTTPConnection]
    BeginSlow = Callable[..., tuple["Running", http.client.HTTPResponse]]
    Run = Callable[..., subprocess.CompletedProcess[str]]
from web_servers import DEMO, ECHO, get, wait_for


def test_the_index_lists_what_is_mounted_and_escapes_it(start_server: Servers, program: Program) -> None:
    server = start_server("--mount", f"/echo={program('a & <b>.py', ECHO)}")
    status, page = get(server.url)
    assert status == 200
    for path in ("/cgi", "/echo", "/environment", "/error", "/session"):
        assert f'<a href="{path}">{path}</a>' in page
    assert "Echo &lt;b&gt;bold&lt;/b&gt; &amp; co" in page
    assert '<td class="quiet">a &amp; &lt;b&gt;.py</td>' in page
    assert "<b>" not in page


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 (for a moment)
def test_no_page_of_the_server_tells_where_its_files_lie(start_server: Servers, program: Program, host: str) -> None:
    server = start_server("--host", host, "--mount", f"/echo={program('echo.py', ECHO)}")
    for path in ("", "nowhere"):
        _, page = get(f"http://127.0.0.1:{server.port}/{path}")
        assert '<td class="quiet">echo.py</td>' in page
        assert '<td class="quiet">session.py</td>' in page
        assert str(server.folder.parent) not in page
        assert str(DEMO) not in page


@pytest.mark.parametrize("path", ["/session", "/cgi", "/environment", "/error"])
def test_the_demo_programs_are_there_by_default(start_server: Servers, path: str) -> None:
    status, page = get(start_server().url.rstrip("/") + path)
    assert status == 200
    assert page.startswith("<!DOCTYPE html>")


def test_a_mount_may_replace_a_demo(start_server: Servers, program: Program) -> None:
    server = start_server("--mount", f"/session={program('echo.py', ECHO)}")
    assert get(server.url + "session") == (200, "/session||")


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("a", "outer:/a|"),
        ("a/", "outer:/a|/"),
        ("a/x/y", "outer:/a|/x/y"),
        ("a/b", "inner:/a/b|"),
        ("a/b/", "inner:/a/b|/"),
        ("a/b/c%20d", "inner:/a/b|/c d"),
        ("a/bc", "outer:/a|/bc"),
        ("a//b", "outer:/a|//b"),
        ("ab", None),
        ("A", None),
        ("b", None),
    ],
)
def test_the_longest_path_of_whole_segments_wins(
    start_server: Servers, program: Program, path: str, seen: str | None
) -> None:
    text = ECHO.replace('f"{environ', 'f"WHO:{environ').replace("|{environ['QUERY_STRING']}", "")
    outer = program("outer.py", text.replace("WHO", "outer"))
    inner = program("inner.py", text.replace("WHO", "inner"))
    status, page = get(start_server("--mount", f"/a={outer}", "--mount", f"/a/b={inner}").url + path)
    if seen is None:
        assert status == 404
    else:
        assert (status, page) == (200, seen)


def test_elsewhere_is_a_404_that_shows_the_way_and_escapes(start_server: Servers) -> None:
    status, page = get(start_server().url + "%3Cscript%3E/%C3%A9?x=1")
    assert status == 404
    assert "/&lt;script&gt;/é" in page
    assert "<script>" not in page
    assert 'href="/session"' in page


@pytest.mark.parametrize("path", ["/", "/nowhere", "/echo"])
def test_head_has_the_headers_and_no_body(start_server: Servers, program: Program, path: str) -> None:
    server = start_server("--mount", f"/echo={program('echo.py', ECHO)}")
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as raw:
        raw.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        received = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Type: text/" in head
    assert body == b""


def test_files_of_one_name_and_of_a_librarys_name_are_kept_apart(start_server: Servers, program: Program) -> None:
    text = "import json\n" + ECHO.replace("return [f", 'return [json.dumps("WHO").encode(), f')
    one = program("one/json.py", text.replace("WHO", "one"))
    two = program("two/json.py", text.replace("WHO", "two"))
    server = start_server("--mount", f"/one={one}", "--mount", f"/two={two}")
    assert get(server.url + "one") == (200, '"one"/one||')
    assert get(server.url + "two") == (200, '"two"/two||')


def test_a_program_that_raises_costs_its_own_request_only(start_server: Servers, program: Program) -> None:
    server = start_server("--mount", f"/bad={program('bad.py', 'def application(e, s): raise ValueError(42)')}")
    status, page = get(server.url + "bad")
    assert status == 500
    assert "42" not in page
    assert get(server.url)[0] == 200
    assert "ValueError: 42" in server.errors


def test_programs_run_in_the_data_folder_and_their_files_are_found_from_here(
    start_server: Servers, program: Program, tmp_path: Path
) -> None:
    program(
        "server0.py",
        "import os\ndef application(e, s):\n    s('200 OK', [])\n    return [os.getcwd().encode()]\n",
    )
    server = start_server("--mount", "/where=../server0.py", "--data", "new/folder")
    assert get(server.url + "where") == (200, str(tmp_path / "server0" / "new" / "folder"))


# The command line


def test_help_names_every_option(run_server: Run) -> None:
    done = run_server("-h")
    assert done.returncode == 0
    for option in ("-h, --help", "--port", "--host", "-l, --launch", "--mount", "--threads", "--data", "--grace"):
        assert option in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mount", "hello.py"], "'hello.py' is not /path=file.py"),
        (["--mount", "/hello="], "is not /path=file.py"),
        (["--mount", "hello=hello.py"], "the path must begin with /"),
        (["--mount", "/a/../b=hello.py"], "the path must begin with /"),
        (["--mount", "/a b=hello.py"], "hold only letters"),
        (["--mount", "/=hello.py"], "/ is the index page"),
        (["--mount", "/x=no.py"], "--mount /x: there is no file"),
        (["--mount", "/x=hello.py", "--mount", "/x/=other.py"], "--mount /x is given twice"),
        (["-p", "http"], "'http' is not a port"),
        (["-p", "65536"], "'65536' is not a port"),
        (["--threads", "0"], "'0' is not a number of threads"),
        (["--grace", "-1"], "'-1' is not a number of seconds"),
        (["--grace", "nan"], "'nan' is not a number of seconds"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: no such address"),
        (["--host", "192.0.2.1", "-p", "0"], "--host 192.0.2.1 is no address of this machine"),
        (["--data", "hello.py"], "--data hello.py:"),
        (["--mound", "/x=hello.py"], "unrecognized arguments"),
    ],
)
def test_a_bad_command_line_is_named_and_ends_with_2(
    run_server: Run, program: Program, options: list[str], message: str
) -> None:
    program("hello.py", ECHO)
    done = run_server(*options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = x / 0\napplication = None\n", r"ZeroDivisionError: division by zero"),
        ("def broken(:\n", r"SyntaxError: invalid syntax"),
        ("raise SystemExit('not today')\n", r"SystemExit: not today"),
        ("import no_such_module_here\n", r"No module named 'no_such_module_here'"),
        ("x = 1\n", r"has no `application`: name its WSGI callable so"),
        ("application = 'hello'\n", r"has an `application` that cannot be called"),
        ("import beside\n", r"start the server with PYTHONPATH=/"),
    ],
)
def test_a_program_that_cannot_be_loaded_is_named(run_server: Run, program: Program, text: str, message: str) -> None:
    program("beside.py", "")
    file = program("faulty.py", text)
    done = run_server("-p", "0", "--mount", f"/x={file}")
    assert done.returncode == 2
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"WSGIServer.py: --mount /x: {file}")
    assert message in last
    assert "importlib" not in done.stderr


def test_a_failing_program_is_shown_with_its_line(run_server: Run, program: Program) -> None:
    file = program("faulty.py", "x = 1\ny = x / 0\n")
    assert f'File "{file}", line 2' in run_server("--mount", f"/x={file}").stderr


def test_a_port_in_use_is_one_clear_line(start_server: Servers, run_server: Run) -> None:
    server = start_server()
    done = run_server("-p", str(server.port))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"WSGIServer.py: port {server.port} on 127.0.0.1 is in use: stop what listens there, "
        "or choose another port with -p, or PORT= for make demo (0 takes a free one)\n"
    )


def test_it_says_where_it_listens_and_listens_there(start_server: Servers) -> None:
    server = start_server("--host", "localhost")
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/", server.url)
    assert get(server.url)[0] == 200


def test_ipv6(start_server: Servers) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    server = start_server("--host", "::1")
    assert server.url.startswith("http://[::1]:")
    assert get(server.url)[0] == 200


def test_launch_opens_a_browser_at_the_index(start_server: Servers, program: Program, tmp_path: Path) -> None:
    note = tmp_path / "opened"
    script = program("browser.sh", f'#!/bin/sh\necho "$1" > {note}.new && mv {note}.new {note}\n')
    script.chmod(0o755)
    server = start_server("--launch", env={"BROWSER": f"{script} %s"})
    wait_for(note.exists, "the browser")
    assert note.read_text(encoding="utf-8") == f"{server.url}\n"
