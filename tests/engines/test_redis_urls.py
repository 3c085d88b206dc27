"""The URLs of Redis."""

from __future__ import annotations

import pytest

from coatcheck.drivers.redis import RedisDriver
from coatcheck.drivers.redis.places import settings_from
from coatcheck.drivers.redis.requests import Address
from coatcheck.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "kind", "seeds", "more"),
    [
        ("redis://", "", [("localhost", 6379)], {}),
        ("redis://h/2?timeout=0.5", "", [("h", 6379)], {"db": 2, "timeout": 0.5}),
        ("valkey://u:p%40@[::1]:7", "", [("::1", 7)], {"username": "u", "password": "p@"}),
        ("redis://:p@h", "", [("h", 6379)], {"username": None, "password": "p"}),
        ("rediss://h?ca=/x.pem", "", [("h", 6379)], {"is_encrypted": True, "ca": "/x.pem"}),
        ("redis+unix:///run/r.sock?db=3", "unix", [("/run/r.sock", 0)], {"db": 3}),
        ("redis+sentinel://a,b:7/main/1", "sentinel", [("a", 26379), ("b", 7)], {"service": "main", "db": 1}),
        ("rediss+cluster://a:1,b", "cluster", [("a", 1), ("b", 6379)], {"is_encrypted": True}),
        ("redis://h?durable=replicas:2&max_connections=3&prefix=x_1", "", [("h", 6379)],
         {"replicas": 2, "max_connections": 3, "prefix": "x_1"}),
    ],
)  # fmt: skip
def test_urls(url: str, kind: str, seeds: list[tuple[str, int]], more: dict[str, object]) -> None:
    settings = settings_from(url)
    assert settings.kind == kind
    assert list(settings.seeds) == [Address(host, port, kind == "sentinel") for host, port in seeds]
    assert {name: getattr(settings, name) for name in more} == more
    assert "p@" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "redis://a,b",
        "redis://h/one",
        "redis://h?db=1",
        "redis://h?ca=/x.pem",
        "redis://h?durable=yes",
        "redis://h?durable=replicas:0",
        "redis://h?prefix=a:b",
        "redis://h?prefix=",
        "redis://h?timeout=0",
        "redis://h?max_connections=0",
        "redis://h?unknown=1",
        "redis+unix://",
        "redis+unix://host/x",
        "redis+unix:///x?db=one",
        "redis+sentinel://a:1",
        "redis+sentinel:///service",
        "redis+cluster://a/1",
        "redis+cluster://",
    ],
)
def test_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigurationError):
        RedisDriver.from_url(url)
