"""The scripts that the server runs: each is one file of Lua behind those that it shares with others."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

__all__ = ["Script", "Scripts"]


class Script:
    """A script.

    Attributes:
        name: The name of its file.
        text: The whole of it.
        sha: What the server knows it by.
    """

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name: Final = name
        self.text: Final = text.encode()
        self.sha: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


class Scripts:
    """The scripts for one server, or for a cluster.

    Args:
        indexed: Whether a session's script may look at the keys of its user: not in a cluster.
    """

    def __init__(self, *, indexed: bool) -> None:
        folder = files(__name__)
        start = f"local INDEXED = {'true' if indexed else 'false'}\n"

        def script(name: str, *shared: str, ahead: tuple[str, ...] = ()) -> Script:
            names = ("_constants", *ahead, "_session", *shared, name)
            parts = [folder.joinpath(f"{part}.lua").read_text("utf-8") for part in names]
            return Script(name, start + "\n".join(parts))

        self.create: Final = script("create", "_users")
        self.commit: Final = script("commit", "_users", "_change", ahead=("_delta", "_fast"))
        self.rotate: Final = script("rotate", "_users", "_change", ahead=("_delta",))
        self.revoke: Final = script("revoke")
        self.load: Final = script("load")
        self.missing: Final = script("missing")
        self.heads: Final = script("heads")
        self.revoke_user: Final = script("revoke_user", "_users")
        self.end_sids: Final = script("end_sids")
        self.sessions_of: Final = script("sessions_of")
        # in a cluster
        self.admit: Final = script("admit", "_users")
        self.fence: Final = script("fence", "_users")
        self.peek: Final = script("peek")
        self.announce: Final = script("announce")
        self.delist: Final = script("delist")
        self.end: Final = script("end")
        self.settle: Final = script("settle")
