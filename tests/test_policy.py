"""The policy: what cannot work is refused when it is made, by name and with the remedy."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from coatcheck import CoatcheckError, ConfigurationError, Policy
from coatcheck.record import NEVER, touch_interval

NAN, INF = float("nan"), float("inf")
SECONDS = "a number of seconds, at least"
WHOLE = "a whole number, at least"
FLAG = "True or False"

# For each field: values that cannot work, and what the message says besides the name of the field.
BAD: dict[str, tuple[str, list[Any]]] = {
    "idle": (
        "at least 1; for no limit use 'never'",
        [0, 0.5, -1, NAN, INF, -INF, None, "", "Never", "forever", "3600", True, NEVER + 1, [3600], b"never", 1j],
    ),
    "absolute": (
        "at least 1; for no limit use 'never'",
        [0, 0.5, -1, NAN, INF, -INF, None, "", "NEVER", "3600", False, NEVER * 2, (3600,)],
    ),
    "rotate_after": ("at least 1; for no limit use 'never'", [0, -5, NAN, INF, None, "", "always", True]),
    "grace": (f"{SECONDS} 0 and at most 3600", [-1, -0.1, 3601, NAN, INF, None, "30", "never", True]),
    "on_conflict": ("one of 'last', 'error'", ["", "first", "LAST", None, True, 0, "merge"]),
    "max_value_bytes": (f"{WHOLE} 1 and at most", [0, -1, 2**30 + 1, 1.5, 1024.0, NAN, None, "1024", True]),
    "cookie_name": ("", ["", "a b", "a;b", None, 5, "__Host-sid"]),
    "path": ("must start with '/'", ["", "x", "/a;b", None, 5]),
    "domain": ("a host name such as 'example.org', or None", ["", ".a.org", "a b", 5, "a;b"]),
    "same_site": ("one of 'Lax', 'Strict', 'None'", [None, "", "lax", "none", True, 0]),
    "partitioned": (FLAG, [1, 0, None, "yes", ""]),
    "persistent": (FLAG, [1, 0, None, "yes", 3600]),
    "insecure_http": (FLAG, [1, 0, None, "yes"]),
    "behind_tls_proxy": (FLAG, [1, 0, None, "https"]),
    "sweep_every": (f"{WHOLE} 0 and at most", [-1, 2**31 + 1, 1.5, None, "100", True]),
    "sweep_limit": (f"{WHOLE} 1 and at most", [0, -1, 100_001, 1.5, None, "100", True]),
}

GOOD: dict[str, list[Any]] = {
    "idle": [1, 1.0, 60, 3600.5, "never", NEVER],
    "absolute": [1, 86400, "never"],
    "rotate_after": [1, 600, "never"],
    "grace": [0, 0.0, 30, 3600],
    "on_conflict": ["last", "error"],
    "max_value_bytes": [1, 2**30],
    "cookie_name": ["s", "SID", "my-app.sid", "a" * 64, "!#$%&'*+.^_`|~-"],
    "path": ["/", "/app", "/app/", "/a%20b"],
    "domain": [None, "localhost", "example.org", "a-b.example.org", "xn--bcher-kva.example", "1.2.3.4"],
    "same_site": ["Lax", "Strict", "None"],
    "partitioned": [True, False],
    "persistent": [True, False],
    "insecure_http": [True, False],
    "behind_tls_proxy": [True, False],
    "sweep_every": [0, 1, 2**31],
    "sweep_limit": [1, 100_000],
}


@pytest.mark.parametrize("settings", [
    {"idle": 3601, "absolute": 3600}, {"idle": 60 * 86400}, {"idle": 31 * 86400.0, "absolute": 30 * 86400},
])  # fmt: skip
def test_an_idle_limit_that_would_never_count_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="idle is longer than absolute"):
        Policy(**settings)


@pytest.mark.parametrize("settings", [
    {"absolute": 3600}, {"idle": "never", "absolute": 3600}, {"idle": 3600, "absolute": 3600},
    {"idle": 60 * 86400, "absolute": "never"},
])  # fmt: skip
def test_an_absolute_limit_alone_may_be_short(settings: dict[str, Any]) -> None:
    assert Policy(**settings)


def test_the_tables_here_know_every_field() -> None:
    names = {field.name for field in fields(Policy)}
    assert set(BAD) == names
    assert set(GOOD) == names


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (_, bad) in BAD.items() for value in bad], ids=str)
def test_what_cannot_work_is_refused_by_name_and_with_the_remedy(name: str, value: object) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError) as caught:
        Policy(**settings)
    assert str(caught.value).startswith(f"Policy({name}=...) ")
    assert BAD[name][0] in str(caught.value)
    assert isinstance(caught.value, CoatcheckError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, good in GOOD.items() for value in good], ids=str)
def test_what_works_is_kept_as_it_is(name: str, value: object) -> None:
    settings: dict[str, Any] = {name: value}
    assert getattr(Policy(**settings), name) == value


@pytest.mark.parametrize("name", [field.name for field in fields(Policy)])
def test_a_policy_is_frozen(name: str) -> None:
    policy = Policy()
    with pytest.raises(FrozenInstanceError):
        setattr(policy, name, getattr(policy, name))


def test_a_policy_takes_no_other_attribute_and_no_positional_argument() -> None:
    with pytest.raises((AttributeError, TypeError)):
        Policy().lifetime = 5  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Policy(3600)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Policy(idel=3600)  # type: ignore[call-arg]


def test_a_changed_copy_is_checked_again() -> None:
    assert replace(Policy(), idle=60).idle == 60
    with pytest.raises(ConfigurationError):
        replace(Policy(), idle=0)


@pytest.mark.parametrize("other", [{"same_site": "None"}, {"partitioned": True}])
def test_attributes_that_need_secure_do_not_go_with_insecure_http(other: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"Policy\(insecure_http=True\) cannot be combined"):
        Policy(insecure_http=True, **other)


@pytest.mark.parametrize(
    ("policy", "idle", "absolute"),
    [
        (Policy(), 7 * 86400, 30 * 86400),
        (Policy.aal2(), 3600, 86400),
        (Policy.aal3(), 900, 43200),
        (Policy(idle="never", absolute="never"), NEVER, NEVER),
    ],
)
def test_presets_and_defaults_are_these(policy: Policy, idle: float, absolute: float) -> None:
    assert (policy.idle_seconds, policy.absolute_seconds) == (idle, absolute)
    assert policy.rotate_after == "never"


def test_no_limit_has_to_be_asked_for_by_name() -> None:
    for name in ("idle", "absolute", "rotate_after"):
        asked: dict[str, Any] = {name: "never"}
        assert getattr(Policy(**asked), name) == "never"
        for other in (None, 0, INF, -1, False):
            wrong: dict[str, Any] = {name: other}
            with pytest.raises(ConfigurationError, match="for no limit use 'never'"):
                Policy(**wrong)


def test_defaults_are_the_strict_ones() -> None:
    policy = Policy()
    assert (policy.cookie_name, policy.path, policy.domain, policy.same_site) == ("sid", "/", None, "Lax")
    assert (policy.partitioned, policy.persistent, policy.insecure_http, policy.behind_tls_proxy) == (
        False, False, False, False,
    )  # fmt: skip
    assert (policy.grace, policy.on_conflict, policy.max_value_bytes) == (30.0, "last", 1048576)
    assert "never" in (inspect.getdoc(Policy) or "")


@pytest.mark.parametrize(
    ("idle", "interval"), [(60, 3), (900, 45), (3600, 180), (18000, 900), (7 * 86400, 900), (NEVER, 900)]
)
def test_the_touch_interval_is_a_twentieth_of_idle_and_never_over_a_quarter_of_an_hour(
    idle: float, interval: float
) -> None:
    assert touch_interval(idle) == interval
