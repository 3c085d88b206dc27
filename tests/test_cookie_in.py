"""The cookie that comes in is user input: malformed, doubled, look-alike, endless (checklist A8 and section D)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import EventKind, Policy, SessionManager
from coatcheck.cookie import Channel, channel_of, cookie_name, find
from coatcheck.token import Token

if TYPE_CHECKING:
    from tests.conftest import House, Site

SECRET = "abcdefghijklmnopqrstuvwxyz_-0123"
OTHER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_-0123"


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    """A manager whose cookie has a prefix over https and none over http."""
    return build(Policy(insecure_http=True))


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
@pytest.mark.parametrize("channel", [Channel.SECURE, Channel.PLAIN])
def test_a_malformed_value_never_reaches_storage(house: House, value: str, channel: Channel) -> None:
    name = cookie_name(house.manager.policy, channel)
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
    assert house.kinds() == {EventKind.DUPLICATES: 1}


# One Cookie header made of several by commas, as gunicorn (",") and waitress (", ") do
JOINED = [
    "__Host-sid={a},a=b", "__Host-sid={a}, a=b", "a=b,__Host-sid={a}", "a=b, __Host-sid={a}", "x, __Host-sid={a}",
    "a=b; c=d, __Host-sid={a}", "a=b, __Host-sid={a}; c=d", "a=b, __Host-sid={a}, c=d", "__Host-sid={a},__Host-sid={a}",
]  # fmt: skip


@pytest.mark.parametrize("header", JOINED)
def test_a_cookie_beside_a_comma_is_refused_and_an_event_says_why(house: House, header: str) -> None:
    one = house.visitor(who="one")
    session = house.manager.open([header.format(a=one.secret)])
    assert dict(session) == {}
    assert house.driver.asked == []
    (event,) = house.events
    assert event.kind is EventKind.JOINED
    assert "joined by commas" in str(event.why)
    assert one.secret not in repr(event)


@pytest.mark.parametrize("header", ["a=b, c=d", "a=b, x__Host-sid=1", "a=b, c=__Host-sid", "a=1,2; b=__Host-sid=, 3"])
def test_a_comma_elsewhere_is_nobodys_concern(house: House, header: str) -> None:
    one = house.visitor(who="one")
    assert dict(house.manager.open([header])) == {}
    assert house.manager.open([f"{header}; {one.cookie}"])["who"] == "one"
    assert house.events == []


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
    client = house.client(Channel.PLAIN)
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
    session = house.manager.open(headers, Channel.PLAIN)
    assert session["who"] == "me"
    session["who"] = "still me"
    assert house.manager.save(session).set_cookie is None
    assert house.kinds()[EventKind.DUPLICATES] == 1
    again = house.manager.open(headers, Channel.PLAIN)
    assert again["who"] == "still me"


def test_a_blind_write_under_duplicates_goes_to_the_only_live_one(house: House) -> None:
    cookies = f"sid={Token.new().secret}; sid={_plain(house, who='me')}"
    session = house.manager.open([cookies], Channel.PLAIN)
    session["new"] = 1
    assert house.manager.save(session).set_cookie is None
    assert dict(house.manager.open([cookies], Channel.PLAIN)) == {"who": "me", "new": 1}
    assert house.driver.stored == 1


@pytest.mark.parametrize("live", [0, 2])
def test_of_duplicates_under_a_plain_name_two_live_or_none_are_anonymous_and_an_event(house: House, live: int) -> None:
    secrets_ = [_plain(house, who=str(n)) for n in range(live)] + [Token.new().secret for _ in range(2)]
    house.forget()
    session = house.manager.open(["; ".join(f"sid={secret}" for secret in secrets_)], Channel.PLAIN)
    assert dict(session) == {}
    assert house.kinds()[EventKind.DUPLICATES] == 1


def test_more_than_four_under_a_plain_name_are_not_even_looked_up(house: House) -> None:
    cookies = [f"sid={_plain(house, who='me')}", *(f"sid={Token.new().secret}" for _ in range(4))]
    house.forget()
    session = house.manager.open(["; ".join(cookies)], Channel.PLAIN)
    assert dict(session) == {}
    assert house.driver.asked == []
    assert house.kinds()[EventKind.DUPLICATES] == 1


def test_over_https_the_plain_name_is_never_read_and_over_insecure_http_the_prefixed_one(house: House) -> None:
    plain = _plain(house, who="me")
    assert dict(house.manager.open([f"sid={plain}"], Channel.SECURE)) == {}
    assert dict(house.manager.open([f"__Host-sid={plain}"], Channel.PLAIN)) == {}
    strict = SessionManager(house.driver)
    assert dict(strict.open([f"sid={plain}"], Channel.PLAIN)) == {}


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

S, P = Channel.SECURE, Channel.PLAIN
CHANNELS: list[tuple[Policy, str, Channel]] = [
    (Policy(), "https", S),
    (Policy(), "http", P),
    (Policy(), "", P),
    (Policy(), "HTTPS", P),
    (Policy(behind_tls_proxy=True), "http", S),
    (Policy(behind_tls_proxy=True), "https", S),
    (Policy(insecure_http=True), "http", P),
    (Policy(insecure_http=True), "https", S),
    (Policy(insecure_http=True, behind_tls_proxy=True), "http", S),
]


@pytest.mark.parametrize(("policy", "scheme", "channel"), CHANNELS)
def test_how_a_request_came_is_told_so(policy: Policy, scheme: str, channel: Channel) -> None:
    assert channel_of(policy, scheme) is channel


# What a request says of client, host and proxies. None of it makes the cookie weaker: a proxy that adds no header and
# asks for a loopback host passes its visitors off as a browser on this machine.
NEVER_WEAKER: list[dict[str, str]] = [
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8000", "SERVER_PROTOCOL": "HTTP/1.0"},  # nginx's default
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8000", "SERVER_PROTOCOL": "HTTP/1.1"},
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost"},
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "LOCALHOST:8000"},
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost."},
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "app.localhost"},
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "0.0.0.0:8000"},
    {"REMOTE_ADDR": "::1", "HTTP_HOST": "[::1]:8000"},
    {"REMOTE_ADDR": "::ffff:127.0.0.1", "HTTP_HOST": "127.0.0.1"},
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost", "HTTP_SEC_FETCH_SITE": "same-origin"},
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost", "HTTP_ORIGIN": "http://localhost"},
    {"REMOTE_ADDR": "203.0.113.5", "HTTP_HOST": "example.org"},
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "example.org", "HTTP_X_FORWARDED_PROTO": "http"},
    {},
]


@pytest.mark.parametrize("environ", NEVER_WEAKER, ids=str)
def test_no_sign_of_development_makes_the_cookie_weaker(
    build: Callable[..., House], site: Callable[..., Site], environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    server = site(build(), _writing)
    for _ in range(2):
        cookie = server.get(**{"wsgi.url_scheme": "http", **environ}).cookie
        assert cookie is not None
        assert cookie.startswith("__Host-sid=")
        assert "; Secure; " in cookie
    # What it says is true for every one of them: of the client's place it says nothing.
    (warning,) = [record for record in caplog.records if "plain http" in record.getMessage()]
    assert "Policy(insecure_http=True)" in warning.getMessage()
    assert "behind_tls_proxy=True" in warning.getMessage()
    assert "http://localhost or http://127.0.0.1" in warning.getMessage()


@pytest.mark.parametrize("environ", NEVER_WEAKER, ids=str)
def test_what_is_asked_for_is_done_with_one_warning(
    build: Callable[..., House], site: Callable[..., Site], environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    server = site(build(Policy(insecure_http=True)), _writing)
    for _ in range(2):
        cookie = server.get(**{"wsgi.url_scheme": "http", **environ}).cookie
        assert cookie is not None
        assert cookie.startswith("sid=")
        assert "Secure" not in cookie
    (warning,) = [record for record in caplog.records if "plain http" in record.getMessage()]
    assert "without Secure" in warning.getMessage()
    assert "behind_tls_proxy=True" in warning.getMessage()


@pytest.mark.parametrize(
    ("policy", "scheme"),
    [(Policy(), "https"), (Policy(insecure_http=True), "https"), (Policy(behind_tls_proxy=True), "http")],
)
def test_over_https_nobody_is_warned(
    build: Callable[..., House],
    site: Callable[..., Site],
    policy: Policy,
    scheme: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cookie = site(build(policy), _writing).get(**{"wsgi.url_scheme": scheme}).cookie
    assert (cookie or "").startswith("__Host-sid=")
    assert [record for record in caplog.records if "plain http" in record.getMessage()] == []


def _writing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    environ["coatcheck.session"]["a"] = 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]
