"""What a session adds to the headers of a response, for every protocol the same."""

from __future__ import annotations

from typing import Final

from coatcheck.saved import Saved

__all__ = ["LOGIN_REFUSED", "UNAVAILABLE", "with_session"]

LOGIN_REFUSED: Final = b"Your sessions were ended while you were logging in. Please log in again.\n"
"""The body of the answer if a log-in was refused: the application's own would say that the user is logged in."""

UNAVAILABLE: Final = b"The service is temporarily unavailable. Please try again in a moment.\n"
"""The body of the answer where session storage is down: nothing about keys, tokens or servers (ASVS 16.5.1)."""


def with_session(headers: list[tuple[str, str]], saved: Saved) -> list[tuple[str, str]]:
    """Return *headers* with the session's added.

    ``Vary: Cookie`` wherever the response depends on the session, so that no cache serves one user's page to another
    (CVE-2023-30861), merged with what is there. With a cookie goes ``Cache-Control: no-store`` in place of whatever
    the application said: a cached Set-Cookie logs people in as each other (CVE-2024-26144).
    """
    if saved.vary:
        for name, _ in headers:
            if len(name) == len("vary") and name.lower() == "vary":
                headers = _with_cookie_in_vary(headers)
                break
        else:
            headers = [*headers, ("Vary", "Cookie")]
    if saved.set_cookie is not None:
        headers = [header for header in headers if header[0].lower() not in ("cache-control", "expires", "pragma")]
        headers.append(("Cache-Control", "no-store"))
        headers.extend(("Set-Cookie", cookie) for cookie in (*saved.deletions, saved.set_cookie))
    return headers


def _with_cookie_in_vary(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    said = [value for name, value in headers if name.lower() == "vary"]
    fields = [field.strip() for value in said for field in value.split(",") if field.strip()]
    if "*" in fields or "cookie" in (field.lower() for field in fields):
        return headers
    kept = [header for header in headers if header[0].lower() != "vary"]
    return [*kept, ("Vary", ", ".join([*fields, "Cookie"]))]
