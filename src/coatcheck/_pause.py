"""How long to wait before something is tried again: drawn, so that those who were in each other's way part."""

from __future__ import annotations

import random

__all__ = ["drawn"]


def drawn(longest: float) -> float:
    """Draw a pause of up to *longest* seconds. Not for secrets: those come from `secrets`."""
    return random.uniform(0.0, longest)  # noqa: S311 (no secret)
