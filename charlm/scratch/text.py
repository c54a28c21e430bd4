"""A text as numbers. Every character that occurs in it has a number, from 0 to V - 1."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from charlm.scratch import Ids


class Text:
    """The characters of a text, its numbers, and what is held out.

    Attributes:
        chars: (V,), all characters that occur, sorted; the number of a character is its place here.
        V: how many there are.
        ids: (N,), the text.
        train: the first nine tenths of ids, to train on.
        rest: the last tenth, which is held out to measure the loss.
    """

    def __init__(self, text: str) -> None:
        self.chars = sorted(set(text))
        self.V = len(self.chars)
        self.number = {char: i for i, char in enumerate(self.chars)}
        self.ids = self.encode(text)
        self.train, self.rest = np.split(self.ids, [len(text) * 9 // 10])

    @classmethod
    def read(cls, path: str) -> Text:
        """The text of a file in UTF-8."""
        return cls(Path(path).read_text(encoding="utf-8"))

    def encode(self, text: str) -> Ids:
        """The numbers (N,) of N characters that occur in the text."""
        return np.array([self.number[char] for char in text])

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of numbers."""
        return "".join(self.chars[i] for i in ids)
