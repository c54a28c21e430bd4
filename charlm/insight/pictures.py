"""Pictures of attention for TensorBoard."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from charlm.insight.record import Array

TILE, GAP, LABEL, FONT = 256, 8, 32, 24  # pixels: the least size of a tile, and the space around it
PAPER, INK, NO_KEY = 0, 1, 2  # colours; the others, from LEAST to 255, are weights
LEAST = 3
_STOPS = ((10, 10, 40), (110, 30, 150), (215, 70, 90), (250, 165, 40), (255, 255, 200))  # 0 to 1


def attention_pictures(attention: Array) -> Iterator[bytes]:
    """A PNG file for each layer of attention (L, H, T, T), with a labelled tile for each head.

    A tile has a row for each query and a column for each key. The colour of a weight is dark for 0
    and light for 1. It shows the square root, as most weights are small. The keys after a query,
    which it cannot attend to, are grey.
    """
    L, H, T, _ = attention.shape
    scale = -(-TILE // T)
    colours = LEAST + np.sqrt(attention) * (255 - LEAST)
    pixels = np.where(np.tri(T, dtype=np.bool_), colours, NO_KEY).round().astype(np.uint8)
    pixels = pixels.repeat(scale, 2).repeat(scale, 3)  # (L, H, scale * T, scale * T)
    columns = math.ceil(math.sqrt(H))
    width, height = scale * T + GAP, LABEL + scale * T + GAP
    for layer in range(L):
        picture = Image.new("P", (columns * width, -(-H // columns) * height), PAPER)
        picture.putpalette(_palette())
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)
        for head in range(H):
            x, y = head % columns * width, head // columns * height
            draw.text((x, y), f"layer {layer + 1}, head {head + 1}", fill=INK, font=font)
            picture.paste(Image.fromarray(pixels[layer, head]), (x, y + LABEL))
        file = io.BytesIO()
        picture.save(file, "PNG")
        yield file.getvalue()


def _palette() -> bytes:
    """The 256 colours, 3 bytes each."""
    fractions = np.linspace(0, len(_STOPS) - 1, 256 - LEAST)
    parts = [np.interp(fractions, range(len(_STOPS)), part) for part in zip(*_STOPS, strict=True)]
    fixed = [(255, 255, 255), (0, 0, 0), (200, 200, 200)]  # PAPER, INK, NO_KEY
    return np.concatenate([fixed, np.stack(parts, 1)]).astype(np.uint8).tobytes()
