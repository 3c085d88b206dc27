"""Documents of an older coatcheck are read, and what this one writes is read by the older one.

Both may run side by side. The bytes are those that the first version stored, before a session had a note.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
from first_documents import DIGEST, ENDED, POINTER, SESSION, SID, first_record

from coatcheck.drivers._document import Document, Ended, Pointer, encoded, pointer_in, session_in, to_create
from coatcheck.drivers.filesystem import FilesystemDriver
from coatcheck.drivers.filesystem.sessions import session_name
from coatcheck.record import Delta, Value
from coatcheck.testing.helpers import START, committed, loaded


class FirstDocument(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """`Document` as the first version had it."""

    sid: str
    created: float
    seen: float
    deadline: float
    idle: float
    absolute: float
    user: str | None
    auth_time: float | None
    digest: bytes
    rotated: float
    prior: bytes | None = None
    prior_until: float = 0.0
    grace: float = 0.0
    version: int = 1
    past: tuple[tuple[bytes, float], ...] = ()
    values: bytes | int = b"\x90"


def test_documents_of_the_first_version_are_read() -> None:
    document = session_in(SESSION)
    assert isinstance(document, Document)
    assert (document.sid, document.digest, document.user, document.note) == (SID, DIGEST, "ann", b"")
    assert pointer_in(POINTER) == Pointer(SID)
    assert session_in(ENDED) == Ended(START + 60, (DIGEST,))


def test_the_first_version_reads_documents_with_a_note() -> None:
    document, _ = to_create(replace(first_record(), note=b"phone"))
    found = msgspec.msgpack.decode(encoded(document), type=FirstDocument)
    assert msgspec.structs.asdict(found) == {
        name: value for name, value in msgspec.structs.asdict(document).items() if name != "note"
    }


def test_a_folder_of_the_first_version_goes_on(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path / "sessions", timeout=60)
    driver.setup()
    name = session_name(SID)
    for kind, file, data in (("session", name, SESSION), ("digest", DIGEST.hex(), POINTER)):
        path = tmp_path / "sessions" / kind / file[:2] / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    found = loaded(driver, DIGEST, START)
    assert replace(found, values={}) == replace(first_record(), values={})
    assert dict(found.values) == {("", "n"): Value(7, 1)}
    committed(driver.commit(DIGEST, Delta(note=b"phone", increments={("", "n"): 1}), START))
    found = loaded(driver, DIGEST, START)
    assert (found.note, found.values["", "n"].data) == (b"phone", 8)
    assert driver.is_set_up()
    driver.close()
