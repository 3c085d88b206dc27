"""The cookie that goes out, and its deletion: exactly so, for every policy and channel (checklist section C)."""

from __future__ import annotations

import re
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.request import Request

import pytest

from coatcheck import ConfigurationError, EventKind, Policy
from coatcheck.cookie import Channel, cookie_name, deletion, set_cookie

if TYPE_CHECKING:
    from tests.conftest import House

SECRET = "abcdefghijklmnopqrstuvwxyz_-0123"
OTHER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_-0123"


# -- C. the cookie out ----------------------------------------------------------------------------------------------

LAX = "HttpOnly; SameSite=Lax"

OUT: dict[str, tuple[Policy, Channel, str]] = {
    "https": (Policy(), Channel.SECURE, f"__Host-sid={SECRET}; Path=/; Secure; {LAX}"),
    "plain http": (Policy(), Channel.PLAIN, f"__Host-sid={SECRET}; Path=/; Secure; {LAX}"),
    "plain http, allowed": (Policy(insecure_http=True), Channel.PLAIN, f"sid={SECRET}; Path=/; {LAX}"),
    "https, http allowed": (
        Policy(insecure_http=True), Channel.SECURE, f"__Host-sid={SECRET}; Path=/; Secure; {LAX}",
    ),
    "name": (Policy(cookie_name="id"), Channel.SECURE, f"__Host-id={SECRET}; Path=/; Secure; {LAX}"),
    "path": (Policy(path="/app"), Channel.SECURE, f"__Secure-sid={SECRET}; Path=/app; Secure; {LAX}"),
    "path, plain http, allowed": (
        Policy(path="/app", insecure_http=True), Channel.PLAIN, f"sid={SECRET}; Path=/app; {LAX}",
    ),
    "domain": (
        Policy(domain="example.org"), Channel.SECURE,
        f"__Secure-sid={SECRET}; Path=/; Domain=example.org; Secure; {LAX}",
    ),
    "strict": (
        Policy(same_site="Strict"), Channel.SECURE, f"__Host-sid={SECRET}; Path=/; Secure; HttpOnly; SameSite=Strict",
    ),
    "none": (
        Policy(same_site="None"), Channel.SECURE, f"__Host-sid={SECRET}; Path=/; Secure; HttpOnly; SameSite=None",
    ),
    "none, plain http": (
        Policy(same_site="None"), Channel.PLAIN, f"__Host-sid={SECRET}; Path=/; Secure; HttpOnly; SameSite=None",
    ),
    "partitioned": (
        Policy(partitioned=True), Channel.SECURE, f"__Host-sid={SECRET}; Path=/; Secure; {LAX}; Partitioned",
    ),
    "partitioned, plain http": (
        Policy(partitioned=True), Channel.PLAIN, f"__Host-sid={SECRET}; Path=/; Secure; {LAX}; Partitioned",
    ),
    "lower case": (
        Policy(cookie_name="SID", path="/A", domain="EXAMPLE.org"), Channel.SECURE,
        f"__Secure-SID={SECRET}; Path=/A; Domain=EXAMPLE.org; Secure; {LAX}",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("policy", "channel", "expected"), OUT.values(), ids=OUT)
def test_the_cookie_is_written_exactly_so(policy: Policy, channel: Channel, expected: str) -> None:
    assert set_cookie(policy, channel, SECRET, None) == expected


@pytest.mark.parametrize(("policy", "channel", "expected"), OUT.values(), ids=OUT)
def test_the_deletion_differs_in_value_and_lifetime_alone(policy: Policy, channel: Channel, expected: str) -> None:
    gone = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    assert deletion(policy, channel) == expected.replace(SECRET, gone)


@pytest.mark.parametrize(
    ("lifetime", "written"),
    [(0.0, 0), (-5.0, 0), (0.2, 1), (59.0, 59), (59.001, 60), (400 * 86400.0, 34560000), (1e12, 34560000)],
)
def test_max_age_is_whole_seconds_and_never_over_400_days(lifetime: float, written: int) -> None:
    header = set_cookie(Policy(persistent=True), Channel.SECURE, SECRET, lifetime)
    assert header == f"__Host-sid={SECRET}; Max-Age={written}; Path=/; Secure; {LAX}"


def test_by_default_the_cookie_ends_with_the_browser(house: House) -> None:
    client = house.visitor(a=1)
    (header,) = client.replies
    assert header == f"__Host-sid={client.secret}; Path=/; Secure; {LAX}"


def test_a_cookie_that_a_client_keeps_for_ever_ends_on_the_server_all_the_same(house: House) -> None:
    client = house.visitor(a=1)
    house.clock.advance(7 * 86400 + 1)
    assert client.read() == {}
    assert house.kinds()[EventKind.EXPIRED] == 1


# Whatever ends up in the header is refused where it would break out of its place (C8), or break a rule of browsers.
BAD_HEADER = [
    "\r",
    "\n",
    "\r\nSet-Cookie: a=b",
    "\0",
    ";",
    "; Domain=evil.example",
    " ",
    "\t",
    "é",
    "\u2000",
    "\x7f",
    "\x80",
]
ROUTES: dict[str, Callable[[str], dict[str, Any]]] = {
    "cookie_name": lambda bad: {"cookie_name": f"sid{bad}"},
    "cookie_name, start": lambda bad: {"cookie_name": f"{bad}sid"},
    "path": lambda bad: {"path": f"/app{bad}"},
    "domain": lambda bad: {"domain": f"example.org{bad}"},
    "domain, start": lambda bad: {"domain": f"{bad}example.org"},
    "same_site": lambda bad: {"same_site": f"Lax{bad}"},
    "behind_tls_proxy": lambda bad: {"behind_tls_proxy": f"https{bad}"},
    "persistent": lambda bad: {"persistent": f"1{bad}"},
    "partitioned": lambda bad: {"partitioned": f"1{bad}"},
}


@pytest.mark.parametrize("bad", BAD_HEADER, ids=ascii)
@pytest.mark.parametrize("route", ROUTES)
def test_nothing_that_breaks_out_of_the_header_gets_into_a_policy(route: str, bad: str) -> None:
    with pytest.raises(ConfigurationError, match=route.partition(",")[0]):
        Policy(**ROUTES[route](bad))


@pytest.mark.parametrize(
    "settings",
    [
        {"cookie_name": ""}, {"cookie_name": "a,b"}, {"cookie_name": "a=b"}, {"cookie_name": 'a"b'},
        {"cookie_name": "a/b"}, {"cookie_name": "__Host-sid"}, {"cookie_name": "__host-sid"},
        {"cookie_name": "__Secure-sid"}, {"cookie_name": "__Http-sid"}, {"cookie_name": "__Host-Http-sid"},
        {"cookie_name": "x" * 65}, {"cookie_name": b"sid"},
        {"path": ""}, {"path": "app"}, {"path": None}, {"path": "/a b"},
        {"domain": ""}, {"domain": ".example.org"}, {"domain": "example..org"}, {"domain": "-a.org"},
        {"domain": "a" * 254}, {"domain": "a" * 64 + ".org"}, {"domain": "exa,mple.org"}, {"domain": 5},
        {"same_site": None}, {"same_site": "lax"}, {"same_site": ""},
        {"same_site": "None", "insecure_http": True}, {"partitioned": True, "insecure_http": True},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_browsers_would_not_take_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(next(iter(settings)))):
        Policy(**settings)


@pytest.mark.parametrize(
    "spelling", ["httponly", "HttpOnly", "http_only", "Secure", "secure", "max_age", "Domain", "Path"]
)
def test_there_is_no_other_way_into_the_attributes(spelling: str) -> None:
    with pytest.raises(TypeError):
        Policy(**{spelling: False})  # type: ignore[arg-type]


# -- C10. deletion, as a browser sees it ----------------------------------------------------------------------------


class _Answer:
    """What http.cookiejar wants of a response."""

    def __init__(self, *set_cookies: str) -> None:
        from email.message import Message  # noqa: PLC0415 (for this one method)

        self._headers = Message()
        for header in set_cookies:
            self._headers["Set-Cookie"] = header

    def info(self) -> Any:
        return self._headers


def _jar_after(url: str, *set_cookies: str) -> dict[str, str | None]:
    jar = CookieJar(DefaultCookiePolicy(secure_protocols=("https",)))
    for header in set_cookies:
        jar.extract_cookies(_Answer(header), Request(url))  # type: ignore[arg-type]
    return {cookie.name: cookie.value for cookie in jar}


@pytest.mark.parametrize(("policy", "channel", "_expected"), OUT.values(), ids=OUT)
def test_a_deletion_removes_the_cookie_from_a_jar(policy: Policy, channel: Channel, _expected: str) -> None:
    url = "http://127.0.0.1/app/x" if channel is not Channel.SECURE else "https://www.example.org/app/x"
    url = url.replace("/app", "/A") if policy.path == "/A" else url
    if policy.domain is not None:
        policy = Policy(cookie_name=policy.cookie_name, path=policy.path, domain=policy.domain.lower())
    coming, going = set_cookie(policy, channel, SECRET, None), deletion(policy, channel)
    assert _jar_after(url, coming) == {cookie_name(policy, channel): SECRET}
    assert _jar_after(url, coming, going) == {}
    # A deletion for another place would leave it, so the jar is a witness.
    elsewhere = going.replace(f"Path={policy.path}", "Path=/elsewhere")
    assert _jar_after(url, coming, elsewhere) != {}


@pytest.mark.parametrize(("policy", "channel", "_expected"), OUT.values(), ids=OUT)
def test_a_deletion_keeps_the_rules_of_its_prefix_and_every_attribute(
    policy: Policy, channel: Channel, _expected: str
) -> None:
    def attributes(header: str) -> set[str]:
        named = {part.strip() for part in header.split(";")[1:]}
        return {part for part in named if not part.startswith(("Max-Age", "Expires"))}

    coming, going = set_cookie(policy, channel, SECRET, None), deletion(policy, channel)
    assert attributes(coming) == attributes(going)
    assert coming.partition("=")[0] == going.partition("=")[0]
    for header in (coming, going):
        if header.startswith(("__Host-", "__Secure-")):
            assert "Secure" in attributes(header)
        if header.startswith("__Host-"):
            assert "Path=/" in attributes(header)
            assert not any(part.startswith("Domain") for part in attributes(header))
        names = [part.partition("=")[0].strip().lower() for part in header.split(";")[1:]]
        assert len(names) == len(set(names))  # no attribute twice
