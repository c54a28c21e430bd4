"""Neural networks from nothing: numpy, float64, and every derivative written out.

These files are for readers. Read them in this order:

    functions.py    sigmoid, softmax, the loss, a linear layer, and their derivatives
    mlp.py          a network that sees the last N characters
    sgd.py          how a gradient changes the weights: SGD, Adagrad, RMSProp, Adam
    rnn.py          a network with a memory, and its gradient through time
    lstm.py gru.py  other cells for the same network
    parts.py        attention, layer norm, GELU
    gpt.py          a network that looks back, made of these parts
    text.py         a text as numbers
    trainer.py      reads a text in batches, and samples from what was learned

`python -m charlm.scratch rnn book.txt` trains one of them. The tests compare every gradient with
numeric slopes and with PyTorch, and the models in charlm.models with these. The weights have the
names and shapes of charlm.models, so the weights of a checkpoint can be used here.

Shapes: B sequences side by side, T characters of each, V characters in the vocabulary, D width,
L layers, G gates of a cell, H heads, K = D / H width of a head, F width of a hidden layer, N what
the docstring says. d_y is the gradient of the loss with respect to y, and has the shape of y.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Weights = dict[str, Array]
State = tuple[npt.NDArray[Any], ...]  # what a model remembers of the characters before
