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
    axes = Axes(picture, (70, 50, 650, 260), (-4, 1), (0.58, 0.82))
    xs = np.linspace(-4, 1, 51)
    axes.frame(
        {x: f"{x}" for x in range(-4, 2)},
        {y / 100: f"{y / 100:.2f}" for y in range(58, 83, 4)},
        "w_1, the weight of “it is a vowel” (the other weights are 0)",
        "loss",
    )
    axes.curve(xs, [loss(np.array([x, 0]), 0) for x in xs], "a")
    w = np.zeros(2)
    for step in range(7):
        height, slope = loss(w, 0), gradient(w, 0)[0][0]
        if step == 0:
            ends = (-0.9, 0.6)
            axes.curve(ends, [height + slope * end for end in ends], "b", dash="5 4")
            picture.text(axes.x(0.65), axes.y(height + slope * 0.6) + 4, f"slope {slope:.2f}", "start", "b")
        picture.circle(axes.x(w[0]), axes.y(height), 5, "b", "paper")
        picture.text(axes.x(w[0]), axes.y(height) - 12, f"{step}", "small middle", "b")
        w = w - [8 * slope, 0]
    return str(picture)


def network(names: Names) -> str:
    """The network for the pair h -> e: a and δ of every neuron, and the gradients."""
    chars, N = names["chars"], names["N"]
    activity = [names[name][0] for name in ("x", "a1", "a2")]  # (V,), (F,), (V,)
    errors = [N * names[name][0] for name in ("delta1", "delta2")]  # (F,), (V,)
    picture = Drawing("4, 3 and 4 neurons, with a and δ of each", 760, 430)
    places = [
        [(x, 245 + 85 * (i - (len(a) - 1) / 2)) for i in range(len(a))]
        for x, a in zip((130, 380, 630), activity, strict=True)
    ]
    for left, right, a, delta in zip(places, places[1:], activity, errors, strict=False):
        for i, end in enumerate(right):
            for j, start in enumerate(left):
                gradient = delta[i] * a[j]  # equation 4
                colour = "grid" if abs(gradient) < 5e-4 else "b" if gradient > 0 else "a"
                picture.line([start, end], colour, 1 + 25 * abs(gradient))
    for column, a in zip(places, activity, strict=True):
        for (x, y), value in zip(column, a, strict=True):
            picture.circle(x, y, 26, "paper", "ink")
            picture.text(x, y + 5, f"{value:.2f}", "middle")
    for column, delta in zip(places[1:], errors, strict=True):
        for (x, y), value in zip(column, delta, strict=True):
            colour = "b" if value > 0 else "a"
            picture.text(x, y + 42, f"δ {value:+.2f}", "small middle", colour)
    for i, char in enumerate(chars):
        picture.text(85, places[0][i][1] + 5, char, "mono end")
        picture.text(670, places[2][i][1] + 5, char, "mono start")
    for x, name in (130, "input: h"), (380, "layer 1: a"), (630, "layer 2: p"):
        picture.text(x, 40, name, "middle")
    for x, name in (255, "W1"), (505, "W2"):
        picture.text(x, 62, f"gradient of {name}", "small middle", "soft")
    legend = "blue: the loss falls if the value rises; orange: it falls if the value falls"
    picture.text(380, 418, legend, "small middle", "soft")
    return str(picture)


PICTURES: dict[str, Callable[[Names], str]] = {
    "1-neuron": neuron,
    "2-backpropagation": network,
}
