"""A browser's cookies, by the rules of RFC 6265bis and CHIPS: which are the same, and which go with a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["Jar"]

_SUFFIXES = frozenset({"org", "com", "net", "localhost"})


@dataclass(frozen=True)
class _Identity:
    """What makes two cookies the same one."""

    name: str
    domain: str
    host_only: bool
    path: str
    partitioned: bool


@dataclass
class Jar:
    """The cookies of one browser.

    Attributes:
        held: What each cookie holds, the oldest first.
        partitions: False for a browser that does not know Partitioned.
    """

    held: dict[_Identity, str] = field(default_factory=dict)
    partitions: bool = True
    _secure: set[_Identity] = field(default_factory=set)

    def take(self, url: str, *set_cookies: str) -> None:
        """Take the Set-Cookie headers of a response, in their order."""
        for line in set_cookies:
            self._take(url, line)

    def _take(self, url: str, line: str) -> None:
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        said = {each.partition("=")[0].lower(): each.partition("=")[2] for each in attributes}
        target = urlsplit(url)
        host = target.hostname or ""
        trusted = target.scheme == "https" or host in ("localhost", "127.0.0.1")
        domain = said.get("domain", "").lower().lstrip(".")
        if domain and not (host == domain or host.endswith("." + domain)):
            return
        if domain in _SUFFIXES and domain != host:
            return
        if "secure" in said and not trusted:
            return
        if name.startswith("__Host-") and ("secure" not in said or domain or said.get("path") != "/"):
            return
        if name.startswith("__Secure-") and "secure" not in said:
            return
        path = said.get("path", "")
        if not path.startswith("/"):
            path = target.path.rpartition("/")[0] or "/"
        one = _Identity(name, domain or host, not domain, path, self.partitions and "partitioned" in said)
        if (
            "secure" not in said
            and target.scheme != "https"
            and any(each.name == name and _covers(each, host, path) for each in self._secure)
        ):
            return  # leave Secure cookies alone
        if said.get("max-age") == "0":
            self.held.pop(one, None)
            self._secure.discard(one)
            return
        self.held[one] = value
        if "secure" in said:
            self._secure.add(one)

    def header(self, url: str) -> str | None:
        """Write the Cookie header of a request: longer paths first, then older cookies."""
        target = urlsplit(url)
        host, path = target.hostname or "", target.path or "/"
        trusted = target.scheme == "https" or host in ("localhost", "127.0.0.1")
        sent = [one for one in self.held if _covers(one, host, path) and (trusted or one not in self._secure)]
        sent.sort(key=lambda one: -len(one.path))
        return "; ".join(f"{one.name}={self.held[one]}" for one in sent) or None


def _covers(one: _Identity, host: str, path: str) -> bool:
    if not (host == one.domain or (not one.host_only and host.endswith("." + one.domain))):
        return False
    return path == one.path or (path.startswith(one.path) and (one.path.endswith("/") or path[len(one.path)] == "/"))
