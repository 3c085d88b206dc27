"""web.error.info: what a report shows, and what it never holds."""

from __future__ import annotations

import sys
import time
import tracemalloc
from typing import Any

import pytest

from web.error import cookieSecrets, info

SECRET = "s3cr3t-cookie-value"


class Broken(Exception):
    pass


def fail(text: str = "<b>broken</b>") -> None:
    local_secret = "value-of-a-variable"
    assert local_secret
    raise Broken(text)


def caught(text: str = "<b>broken</b>") -> Broken:
    try:
        fail(text)
    except Broken as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("form", ["html", "text"])
@pytest.mark.parametrize("output", ["debug", "traceback", "code"])
def test_each_report(output: str, form: str) -> None:
    report = info(output, form, caught())
    assert "raise Broken(text)" in report
    assert "value-of-a-variable" not in report.replace('local_secret = "value-of-a-variable"', "").replace(
        "local_secret = &quot;value-of-a-variable&quot;", ""
    )
    if output != "code":
        assert ("&lt;b&gt;broken&lt;/b&gt;" if form == "html" else "<b>broken</b>") in report
    if form == "html":
        assert "<b>broken" not in report
        assert report.startswith("<!doctype html>" if output == "debug" else "<pre>")
    if output == "debug":
        assert "local_secret: str" in report
        assert 'local_secret = "value' in report or "local_secret = &quot;value" in report
    if output == "traceback" and form == "text":
        assert report.startswith("Traceback (most recent call last):\n  File ")
        assert report.endswith(f"    raise Broken(text)\n{__name__}.Broken: <b>broken</b>\n")


def test_the_exception_may_be_given_in_three_ways() -> None:
    error = caught("three ways")
    given = info("traceback", "text", error)
    assert info("traceback", "text", (type(error), error, error.__traceback__)) == given
    try:
        raise error.with_traceback(error.__traceback__)
    except Broken:
        assert "three ways" in info("traceback", "text")
        assert "three ways" in info()
        assert "three ways" in info(error=sys.exc_info())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "nothing"}, r"info\(output='nothing'\): use one of 'debug', 'traceback', 'code'"),
        ({"format": "pdf"}, r"info\(format='pdf'\): use one of 'html', 'text'"),
        ({"context": -1}, r"info\(context=-1\)"),
        ({}, "no exception to report"),
        ({"error": (None, None, None)}, "no exception to report"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        info(**arguments)


@pytest.mark.parametrize(("context", "lines"), [(0, 0), (1, 1), (5, 5)])
def test_context_counts_lines(context: int, lines: int) -> None:
    report = info("code", "text", caught(), context=context)
    assert len(report.splitlines()) == lines
    assert lines == 0 or "->" in report


def test_chains_groups_notes_and_recursion() -> None:
    def recurse(depth: int) -> None:
        recurse(depth + 1)

    try:
        try:
            recurse(0)
        except RecursionError as error:
            error.add_note("a note")
            raise ExceptionGroup("some", [Broken("first"), ValueError("second")]) from error
    except ExceptionGroup as group:
        for report in (info("traceback", "text", group), info("debug", "html", group)):
            for text in ("a note", "Broken: first", "ValueError: second", "direct cause", "more frames"):
                assert text in report
            assert len(report) < 200_000
    with pytest.raises(KeyError) as raised:  # noqa: PT012 -- the two errors belong together
        try:
            fail("one")
        except Broken:
            raise KeyError("two")  # noqa: B904 -- the context is what is tested
    assert "During handling of the above exception" in info("traceback", "text", raised.value)
    raised.value.__context__ = raised.value
    assert "two" in info("traceback", "text", raised.value)


def test_an_exception_that_cannot_be_printed() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise LookupError

    assert "Silent" in info("debug", "html", Silent())


@pytest.mark.parametrize(
    ("header", "message", "expected"),
    [
        (f"sid={SECRET}", f"bad {SECRET}", "bad [hidden]"),
        (f'a=1; sid="{SECRET}"', f"bad {SECRET}1 x1 1", "bad [hidden]1 x1 [hidden]"),
        ("sid=a%20b%20c", "bad a b c and a%20b%20c", "bad [hidden] and [hidden]"),
        ("sid=ab\\cd", "bad 'ab\\\\cd'", "bad '[hidden]'"),
        ("", "nothing", "nothing"),
        ("a=;b", "nothing", "nothing"),
    ],
)
def test_cookies_are_hidden(header: str, message: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for output in ("debug", "traceback"):
        assert f"Broken: {expected}\n" in info(output, "text", caught(message), redact=cookieSecrets(header))
    monkeypatch.setenv("HTTP_COOKIE", header)
    assert f"Broken: {expected}\n" in info("traceback", "text", caught(message))


def test_a_secret_is_hidden_where_others_are_parts_of_it_or_of_what_hides_it() -> None:
    for secrets, text, shown in (
        (["abcd", "abcdef", "cdefgh"], "abcdefgh abcd", "[hidden] [hidden]"),
        (["hidden", "[hid", "dden]", "abcd"], "abcd hidden", "[hidden] [hidden]"),
        (["x", "a-b", "xy"], "x xx -a-b- 1a-b xy, x_ (x)", "[hidden] xx -[hidden]- 1a-b [hidden], x_ ([hidden])"),
        (["a.c", ".*", "(("], "abc a.c .* ((", "abc [hidden] [hidden] [hidden]"),
    ):  # fmt: skip
        assert f"Broken: {shown}\n" in info("traceback", "text", caught(text), redact=secrets)


def crowd(number: int) -> str:
    """A Cookie header of about 180 kilobytes, unlike all others."""
    return ";".join(f"k{position}={number:02x}{position:x}x" for position in range(15_000))


def test_a_crowd_of_cookies_takes_neither_time_nor_memory() -> None:
    """Each once left a compiled pattern of 15 000 alternatives in a cache that keeps hundreds."""
    error = caught("what 000x came")
    info("debug", "html", error, redact=cookieSecrets(crowd(0)))
    headers = [crowd(number) for number in range(20)]
    tracemalloc.start()
    begin = time.process_time()
    reports = [info("debug", "html", error, redact=cookieSecrets(header)) for header in headers]
    took = time.process_time() - begin
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 2
    assert left < 2**20
    assert peak < 20 * 2**20
    assert all("what 000x came" not in report and "too long to search" in report for report in reports)


def test_a_long_message_and_many_cookies_take_no_time_together() -> None:
    header = ";".join(f"k{position}={position:x}abc" for position in range(1000))
    for size in (1000, 10_000, 100_000, 10_000_000):
        begin = time.process_time()
        report = info("traceback", "text", caught("a" * size + " 3e7abc"), redact=cookieSecrets(header))
        assert time.process_time() - begin < 1
        assert "3e7abc" not in report
        assert ("a" * size + " [hidden]" in report) or "too long to search" in report
    assert "Broken: " in report
    assert len(report) < 10_000
