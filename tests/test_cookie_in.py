"""The cookie that comes in is user input: malformed, doubled, look-alike, endless (checklist A8 and section D)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import Kind, Policy
from coatcheck.cookie import Channel, channel_of, cookie_name, find
from coatcheck.token import Token

if TYPE_CHECKING:
    from tests.conftest import House

SECRET = "abcdefghijklmnopqrstuvwxyz_-0123"
OTHER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_-0123"


MALFORMED = {
    "empty": "",
    "short": SECRET[:-1],
    "long": SECRET + "A",
    "a megabyte": "A" * 2**20,
    "NUL": SECRET[:-1] + "\0",
    "NUL after": SECRET + "\0",
    "CRLF": SECRET[:-2] + "\r\n",
    "CRLF after": SECRET + "\r\n",
    "line feed after": SECRET + "\n",
    "non-ASCII": SECRET[:-1] + "é",
    "digits of another script": "\u0661" * 32,
    "letters of another width": "\uff21" * 32,
    "U+2000 before": "\u2000" + SECRET,
    "U+2000 inside": "\u2000" + SECRET[1:],
    "no-break space": "\xa0" + SECRET,
    "a path": "../x",
    "a path of the right length": "../" * 10 + "xx",
    "quoted": f'"{SECRET}"',
    "a quote": '"' + SECRET[1:],
    "None": "None",
    "null": "null",
    "percent": "%41" + SECRET[3:],
    "plain base64": "+/" + SECRET[2:],
    "padding": SECRET[:-1] + "=",
    "a comma": SECRET + "," + OTHER,
    "a space": SECRET[:16] + " " + SECRET[17:],
    "a lone surrogate": SECRET[:-1] + "\udcff",
    "JSON": '{"user":"admin"}' * 2,
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("channel", [Channel.SECURE, Channel.LOOPBACK])
def test_a_malformed_value_never_reaches_storage(house: House, value: str, channel: Channel) -> None:
    name = cookie_name(Policy(), channel)
    client = house.client(channel)
    client.cookie = f"{name}={value}"
    session = client.open()
    assert session.get("cart") is None
    assert session.is_new
    assert session.available
    assert session.sid is None
    saved = house.manager.save(session)
    assert saved.set_cookie is None
    assert house.driver.asked == []
    # And a write does not go under what the client sent.
    with client.request() as session:
        session["x"] = 1
    assert house.driver.asked == ["create"]
    assert client.secret != value


# -- D. the cookie in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        ["__Host-sid={a}; __Host-sid={b}"],
        ["__Host-sid={b}; __Host-sid={a}"],
        ["__Host-sid={a}", "__Host-sid={b}"],
        ["__Host-sid={b}", "x=y; __Host-sid={a}"],
        ["__Host-sid={a}; __Host-sid="],
        ["__Host-sid={a}; __Host-sid=not-a-token"],
    ],
)
def test_differing_duplicates_of_a_prefixed_name_are_anonymous_and_an_event(house: House, headers: list[str]) -> None:
    one, two = house.visitor(who="one"), house.visitor(who="two")
    house.forget()
    session = house.manager.open([header.format(a=one.secret, b=two.secret) for header in headers])
    assert dict(session) == {}
    saved = house.manager.save(session)
    assert saved.set_cookie is None
    assert house.driver.asked == []
    assert house.kinds() == {Kind.DUPLICATES: 1}


@pytest.mark.parametrize("headers", [["__Host-sid={a}; __Host-sid={a}"], ["__Host-sid={a}", "__Host-sid={a}"]])
def test_identical_duplicates_are_one_cookie(house: House, headers: list[str]) -> None:
    one = house.visitor(who="one")
    session = house.manager.open([header.format(a=one.secret) for header in headers])
    assert session["who"] == "one"
    assert house.events == []


def test_several_cookie_headers_are_read(house: House) -> None:
    one = house.visitor(who="one")
    assert one.cookie is not None
    for headers in ([one.cookie, "a=b"], ["a=b", one.cookie], ["a=b", f"c=d; {one.cookie}; e=f", "g=h"]):
        assert house.manager.open(headers)["who"] == "one"


def _plain(house: House, **values: Any) -> str:
    client = house.client(Channel.LOOPBACK)
    with client.request() as session:
        session.update(values)
    return client.secret


@pytest.mark.parametrize("live_at", range(4))
@pytest.mark.parametrize("split", [False, True], ids=["one header", "several headers"])
def test_of_up_to_four_under_a_plain_name_the_only_live_one_is_used(house: House, live_at: int, split: bool) -> None:  # noqa: FBT001
    cookies = [f"sid={Token.new().secret}" for _ in range(3)]
    cookies.insert(live_at, f"sid={_plain(house, who='me')}")
    house.forget()
    headers = cookies if split else ["; ".join(cookies)]
    session = house.manager.open(headers, Channel.LOOPBACK)
    assert session["who"] == "me"
    session["who"] = "still me"
    assert house.manager.save(session).set_cookie is None
    assert house.kinds()[Kind.DUPLICATES] == 1
    again = house.manager.open(headers, Channel.LOOPBACK)
    assert again["who"] == "still me"


def test_a_blind_write_under_duplicates_goes_to_the_only_live_one(house: House) -> None:
    cookies = f"sid={Token.new().secret}; sid={_plain(house, who='me')}"
    session = house.manager.open([cookies], Channel.LOOPBACK)
    session["new"] = 1
    assert house.manager.save(session).set_cookie is None
    assert dict(house.manager.open([cookies], Channel.LOOPBACK)) == {"who": "me", "new": 1}
    assert house.driver.stored == 1


@pytest.mark.parametrize("live", [0, 2])
def test_of_duplicates_under_a_plain_name_two_live_or_none_are_anonymous_and_an_event(house: House, live: int) -> None:
    secrets_ = [_plain(house, who=str(n)) for n in range(live)] + [Token.new().secret for _ in range(2)]
    house.forget()
    session = house.manager.open(["; ".join(f"sid={secret}" for secret in secrets_)], Channel.LOOPBACK)
    assert dict(session) == {}
    assert house.kinds()[Kind.DUPLICATES] == 1


def test_more_than_four_under_a_plain_name_are_not_even_looked_up(house: House) -> None:
    cookies = [f"sid={_plain(house, who='me')}", *(f"sid={Token.new().secret}" for _ in range(4))]
    house.forget()
    session = house.manager.open(["; ".join(cookies)], Channel.LOOPBACK)
    assert dict(session) == {}
    assert house.driver.asked == []
    assert house.kinds()[Kind.DUPLICATES] == 1


def test_over_https_the_plain_name_is_never_read_and_over_loopback_the_prefixed_one(house: House) -> None:
    plain = _plain(house, who="me")
    assert dict(house.manager.open([f"sid={plain}"], Channel.SECURE)) == {}
    assert dict(house.manager.open([f"sid={plain}"], Channel.PLAIN)) == {}
    assert dict(house.manager.open([f"__Host-sid={plain}"], Channel.LOOPBACK)) == {}


# What a Cookie header holds under the name "__Host-sid". T and U stand for well-formed tokens. A frozen table: a line
# that changes is a change of what this parser promises.
T, U = SECRET, OTHER
FROZEN: list[tuple[str, list[str]]] = [
    ("", []),
    (f"__Host-sid={T}", [T]),
    (f"a=b; __Host-sid={T}; c=d", [T]),
    (f"a=b;__Host-sid={T};c=d", [T]),
    (f" \t__Host-sid\t = \t{T} \t", [T]),
    (f"bad[=1; __Host-sid={T}", [T]),
    (f"]; __Host-sid={T}", [T]),
    (f",; __Host-sid={T}", [T]),
    (f";;;; ; =; ==; __Host-sid={T};;", [T]),
    (f"novalue; __Host-sid={T}", [T]),
    (f"$Version=1; __Host-sid={T}; $Path=/", [T]),
    (f'a="x; __Host-sid={T}"', [T + '"']),
    (f'a="x; __Host-sid={T}; b=y"', [T]),
    (f'"; __Host-sid={T}', [T]),
    (f"a=\\; __Host-sid={T}", [T]),
    (f"__Host-sid={T}, __Host-sid={U}", [f"{T}, __Host-sid={U}"]),
    (f"a=b, __Host-sid={T}", []),
    (f"__Host-sid={T}; __Host-sid={T}", [T]),
    (f"__Host-sid={T}; __Host-sid={U}", [T, U]),
    (f"__Host-sid={U}; __Host-sid={T}", [U, T]),
    ("__Host-sid=", [""]),
    ("__Host-sid", []),
    (f'__Host-sid="{T}"', [f'"{T}"']),
    (f"__Host-sid={T}=", [T + "="]),
    (f"__Host-sid=a={T}", [f"a={T}"]),
    # D3: the name as it stands, and nothing like it
    (f"__HOST-sid={T}", []),
    (f"__host-sid={T}", []),
    (f"__Host-SID={T}", []),
    (f"%5F%5FHost-sid={T}", []),
    (f"__Host%2Dsid={T}", []),
    (f"=__Host-sid={T}", []),
    (f"==__Host-sid={T}", []),
    (f"..Host-sid={T}", []),
    (f"_[Host-sid={T}", []),
    (f"\u2000__Host-sid={T}", []),
    (f"\xa0__Host-sid={T}", []),
    (f"\x85__Host-sid={T}", []),
    (f"\x0b__Host-sid={T}", []),
    (f"\x0c__Host-sid={T}", []),
    (f"\r__Host-sid={T}", []),
    (f"\n__Host-sid={T}", []),
    (f"\0__Host-sid={T}", []),
    (f"__Host-sid\0={T}", []),
    (f"__Host-sid\u2000={T}", []),
    (f'"__Host-sid"={T}', []),
    (f"x__Host-sid={T}", []),
    (f"__Host-sidx={T}", []),
    (f"sid={T}", []),
    (f"a=__Host-sid={T}", []),
    (f"\u2000={T}; __Host-sid={U}", [U]),
    (f"__Host-sid=\u2000{T}", [f"\u2000{T}"]),
]


@pytest.mark.parametrize(("header", "values"), FROZEN, ids=[ascii(header)[:60] for header, _ in FROZEN])
def test_the_cookie_header_is_read_exactly_so(header: str, values: list[str]) -> None:
    assert find([header], "__Host-sid") == values


def test_reading_takes_time_in_line_with_the_length() -> None:
    hard = ["\\" * 65536, '"' * 65536, "a=" + '"\\' * 32000, "; " * 499 + "\\" * 60000, "=" * 65536, " " * 65000 + ";"]
    for filling in hard:
        header = filling[: 65536 - 13] + "; __Host-sid="
        started = time.process_time()
        find([header], "__Host-sid")
        assert time.process_time() - started < 0.05


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("a=" + "b" * (65536 - 15 - len(T)) + f"; __Host-sid={T}", True),
        ("a=" + "b" * (65537 - 15 - len(T)) + f"; __Host-sid={T}", False),
        ("a=b; " * 999 + f"__Host-sid={T}", True),
        ("a=b; " * 1000 + f"__Host-sid={T}", False),
    ],
    ids=["64 KiB", "one over", "1,000 pairs", "1,001 pairs"],
)
def test_a_header_beyond_all_measure_is_passed_over_without_error(header: str, found: bool) -> None:  # noqa: FBT001
    assert find([header], "__Host-sid") == ([T] if found else [])
    assert find([header, f"__Host-sid={U}"], "__Host-sid") == ([T, U] if found else [U])


def test_a_client_that_lost_its_cookie_is_plainly_anonymous(house: House) -> None:
    client = house.visitor(a=1)
    client.cookie = None
    assert client.read() == {}
    assert house.events == []
    assert house.driver.asked == []


# -- how the request came -------------------------------------------------------------------------------------------

S, L, P = Channel.SECURE, Channel.LOOPBACK, Channel.PLAIN
CHANNELS: list[tuple[Policy, str, str, str, bool, Channel]] = [
    (Policy(), "https", "203.0.113.5", "example.org", False, S),
    (Policy(), "https", "127.0.0.1", "localhost", False, S),
    (Policy(), "https", "203.0.113.5", "example.org", True, S),
    (Policy(), "http", "203.0.113.5", "example.org", False, P),
    (Policy(), "http", "127.0.0.1", "localhost", False, L),
    (Policy(), "http", "127.0.0.1", "localhost:8000", False, L),
    (Policy(), "http", "127.0.0.1", "127.0.0.1:8000", False, L),
    (Policy(), "http", "127.9.9.9", "127.0.0.1", False, L),
    (Policy(), "http", "127.0.0.1", "app.localhost:8000", False, L),
    (Policy(), "http", "::1", "[::1]:8000", False, L),
    (Policy(), "http", "::1", "[::1]", False, L),
    (Policy(), "http", "127.0.0.1", "example.org", False, P),
    (Policy(), "http", "127.0.0.1", "localhost.evil.com", False, P),
    (Policy(), "http", "127.0.0.1", "evil-localhost", False, P),
    (Policy(), "http", "127.0.0.1", "127.0.0.1.evil.com", False, P),
    (Policy(), "http", "127.0.0.1", "", False, P),
    (Policy(), "http", "127.0.0.1", "[", False, P),
    (Policy(), "http", "127.0.0.1", "[2001:db8::1]:80", False, P),
    (Policy(), "http", "192.168.1.5", "localhost", False, P),
    (Policy(), "http", "", "localhost", False, P),
    (Policy(), "http", "localhost.evil.com", "localhost", False, P),
    # A proxy on this machine: the client is somewhere else, whatever the address says.
    (Policy(), "http", "127.0.0.1", "localhost", True, P),
    (Policy(), "http", "127.0.0.1", "localhost:8000", True, P),
    (Policy(trusted_scheme="https"), "http", "127.0.0.1", "example.org", True, S),
    (Policy(trusted_scheme="https"), "http", "203.0.113.5", "example.org", False, S),
    (Policy(insecure_http=True), "http", "203.0.113.5", "example.org", False, P),
    (Policy(insecure_http=True), "https", "203.0.113.5", "example.org", False, S),
    (Policy(), "HTTPS", "203.0.113.5", "example.org", False, P),
]


@pytest.mark.parametrize(("policy", "scheme", "client", "host", "forwarded", "channel"), CHANNELS)
def test_how_a_request_came_is_told_so(
    policy: Policy,
    scheme: str,
    client: str,
    host: str,
    forwarded: bool,  # noqa: FBT001 (as the function says it)
    channel: Channel,
) -> None:
    assert channel_of(policy, scheme, client, host, forwarded=forwarded) is channel


def test_plain_http_is_warned_of_once_and_names_the_remedy(house: House, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        house.manager.open([], Channel.PLAIN).get("a")
        house.manager.open([], Channel.LOOPBACK).get("a")
    (record,) = caplog.records
    assert "Policy(insecure_http=True)" in record.getMessage()
    assert "trusted_scheme='https'" in record.getMessage()


def test_plain_http_that_was_allowed_is_not_warned_of(
    build: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    build(Policy(insecure_http=True)).manager.open([], Channel.PLAIN).get("a")
    assert caplog.records == []
