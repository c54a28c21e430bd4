"""The pictures of attention: each pixel of a tile has the colour of one weight."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from charlm.insight.pictures import GAP, LABEL, TILE, attention_pictures


@pytest.mark.parametrize(("H", "T"), [(1, 1), (2, 7), (4, 64), (5, 128), (3, 300)])
def test_brightness_grows_with_the_weight_and_keys_after_the_query_are_grey(H: int, T: int) -> None:
    weights = np.tril(np.random.default_rng(H).random((2, H, T, T), np.float32))
    pictures = list(attention_pictures(weights))
    assert len(pictures) == 2
    columns = next(n for n in range(1, H + 1) if n * n >= H)
    for layer, png in enumerate(pictures):
        rgb = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int).sum(2)
        width, height = rgb.shape[1] // columns, rgb.shape[0] // -(-H // columns)
        size = width - GAP
        assert size >= TILE
        assert size % T == 0
        step = size // T
        for head in range(H):
            x, y = head % columns * width, head // columns * height
            assert (rgb[y : y + LABEL, x : x + size] == 0).any()  # there is a label
            tile = rgb[y + LABEL : y + LABEL + size, x : x + size]
            middle = tile[step // 2 :: step, step // 2 :: step]
            assert (tile == middle.repeat(step, 0).repeat(step, 1)).all()
            assert (middle[np.triu_indices(T, 1)] == 600).all()
            order = np.argsort(weights[layer, head][np.tril_indices(T)])
            assert (np.diff(middle[np.tril_indices(T)][order]) >= 0).all()


def test_small_weights_can_be_told_apart() -> None:
    """The square root: 0.01 is a tenth of the scale, and not a hundredth."""
    (png,) = attention_pictures(np.array([[[[0.0, 0.0], [0.01, 0.99]]]]))
    grey = Image.open(io.BytesIO(png)).getpixel((TILE // 4, LABEL + 3 * TILE // 4))
    assert grey == 3 + round(0.1 * 252)
