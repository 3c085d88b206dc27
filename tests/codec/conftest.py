"""A codec that knows an application's types."""

import pytest
from codec_values import Color, Frozen, Level, Line, Old, Point, Right

from coatcheck.codec import Codec


@pytest.fixture
def codec() -> Codec:
    codec = Codec()
    for cls in (Color, Level, Right, Point, Old, Line, Frozen):
        codec.register(cls)
    return codec
