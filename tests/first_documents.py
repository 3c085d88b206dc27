"""What the first version of coatcheck stored of a session, before a session had a note: on files and on memcached."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from coatcheck.record import Record
from coatcheck.testing import make_record

SID: Final = "00000000000000000000000000000001"
DIGEST: Final = b"\x01" * 32
SESSION: Final = bytes.fromhex(
    "dc001101d9203030303030303030303030303030303030303030303030303030303030303031cb41dad27480000000cb41dad27480000000cb42"
    "4d7ffa20c00000cb4082c00000000000cb40e1940000000000a3616e6ecb41dad27480000000c420010101010101010101010101010101010101"
    "0101010101010101010101010101cb41dad27480000000c0cb0000000000000000cb00000000000000000190c4079194a0a16e0701"
)
"""The document of `first_record`."""

POINTER: Final = bytes.fromhex("9203d9203030303030303030303030303030303030303030303030303030303030303031")
"""What stood under its digest."""

ENDED: Final = bytes.fromhex(
    "9302cb41dad2748f00000091c4200101010101010101010101010101010101010101010101010101010101010101"
)
"""What was left of it after it was revoked at `START`."""


def first_record() -> Record:
    """Return the record of that session."""
    record = make_record(digest_=DIGEST, sid_=SID, user="ann", values={("", "n"): 7})
    return replace(record, digest=DIGEST)
