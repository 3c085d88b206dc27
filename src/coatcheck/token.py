"""The secret in the client's cookie, and its digest, the only form of it in storage, logs and indexes."""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from typing import Final, NoReturn

__all__ = ["Token", "new_sid"]

_BYTES: Final = 24
# 24 bytes are exactly 32 base64url characters: no spare bits, so one token has one spelling
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII)


class Token:
    """A token of 192 random bits and its digest. Its repr and str show neither.

    Attributes:
        secret: The 32 base64url characters that go into the cookie and nowhere else.
        digest: SHA-256 of them, 32 bytes. The token is random and long, so a plain hash is enough (ASVS 6.5.2).
    """

    __slots__ = ("digest", "secret")

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.digest = sha256(secret.encode("ascii")).digest()

    @classmethod
    def new(cls) -> Token:
        """Draw a token from the system's random number generator (ASVS 7.2.3). Its failures are errors."""
        return cls(secrets.token_urlsafe(_BYTES))

    @classmethod
    def successor(cls, digest: bytes, bits: int) -> Token:
        """Draw a token whose digest begins with the same *bits* bits as *digest*."""
        wanted = int.from_bytes(digest, "big") >> (256 - bits)
        while True:
            token = cls.new()
            if int.from_bytes(token.digest, "big") >> (256 - bits) == wanted:
                return token

    @classmethod
    def parse(cls, text: str) -> Token | None:
        """Return the token with the spelling *text*, or None if the form is wrong: clients can send anything."""
        return None if _WELL_FORMED.fullmatch(text) is None else cls(text)

    def __repr__(self) -> str:
        return "Token(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is neither pickled nor copied: a copy could outlive its request in a queue or a dump")


def new_sid(digest: bytes, bits: int) -> str:
    """Draw the public name of a new session: 128 random bits as 32 hexadecimal digits.

    Args:
        digest: The digest of the session's token.
        bits: How many leading bits to take from it, so that the engine stores both on one node.
    """
    drawn = secrets.randbits(128 - bits)
    return f"{int.from_bytes(digest, 'big') >> (256 - bits) << (128 - bits) | drawn:032x}"
