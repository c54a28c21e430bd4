"""The figures of the lessons, drawn from the variables that the code of a lesson leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from svg import Axes, Drawing

Names = dict[str, Any]


def neuron(names: Names) -> str:
    """The loss over w_1, with the first steps of gradient descent."""
    loss, gradient = names["loss"], names["gradient"]
    picture = Drawing("Loss over a weight: a valley, and six steps down into it", 760, 380)
    axes = Axes(picture, (70, 50, 650, 260), (-4, 2), (0.6, 0.84))
    xs = np.linspace(-4, 2, 61)
    axes.frame(
        {x: f"{x}" for x in range(-4, 3)},
        {y / 100: f"{y / 100:.2f}" for y in range(60, 85, 4)},
        "w_1, the weight of “it is a vowel” (the other weights are 0)",
        "loss",
    )
    axes.curve(xs, [loss(np.array([x, 0]), 0) for x in xs], "a")
    w = np.zeros(2)
    for step in range(7):
        height, slope = loss(w, 0), gradient(w, 0)[0][0]
        if step == 0:
            ends = (-0.9, 0.9)
            axes.curve(ends, [height + slope * end for end in ends], "b", dash="5 4")
            picture.text(axes.x(0.95), axes.y(height + slope * 0.9), f"slope {slope:.2f}", "start", "b")
        picture.circle(axes.x(w[0]), axes.y(height), 5, "b", "paper")
        picture.text(axes.x(w[0]), axes.y(height) - 12, f"{step}", "small middle", "b")
        w = w - [8 * slope, 0]
    return str(picture)


PICTURES: dict[str, Callable[[Names], str]] = {
    "1-neuron": neuron,
}
