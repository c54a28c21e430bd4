"""The figures of the lessons, drawn from the variables that the code of a lesson leaves."""

from __future__ import annotations

import math
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
            picture.text(
                axes.x(0.65), axes.y(height + slope * 0.6) + 4, f"slope {slope:.2f}", "start", "b"
            )
        picture.circle(axes.x(w[0]), axes.y(height), 5, "b", "paper")
        picture.text(axes.x(w[0]), axes.y(height) - 12, f"{step}", "small middle", "b")
        w = w - [8 * slope, 0]
    return str(picture)


def network(names: Names) -> str:
    """The network for the pair h -> e: a and δ of every neuron, and the gradients."""
    chars, T = names["chars"], names["T"]
    activity = [names[name][0] for name in ("x", "a1", "p")]  # (V,), (F,), (V,)
    errors = [T * names[name][0] for name in ("delta1", "delta2")]  # (F,), (V,), of one pair
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
    for x, name in (130, "input: h"), (380, "layer 1: a1"), (630, "layer 2: p"):
        picture.text(x, 40, name, "middle")
    for x, name in (255, "W1"), (505, "W2"):
        picture.text(x, 62, f"gradient of {name}", "small middle", "soft")
    legend = "orange: a positive derivative of the loss; blue: a negative one"
    picture.text(330, 418, legend, "small middle", "soft")
    return str(picture)


def embedding(names: Names) -> str:
    """The two numbers of the embeddings of all frequent characters."""
    E, chars = names["E"], names["text"].chars
    points = [(*E[i], chars[i]) for i in names["frequent"]]
    picture = Drawing("Embeddings of frequent characters in two dimensions", 760, 500)
    ends = [(min(it) - 0.3, max(it) + 0.3) for it in list(zip(*points, strict=True))[:2]]
    axes = Axes(picture, (40, 40, 680, 390), *ends)
    xs, ys = ({x: f"{x}" for x in range(-9, 10) if low < x < high} for low, high in ends)
    for x in xs:
        picture.line([(axes.x(x), 40), (axes.x(x), 430)], "grid")
    axes.frame(xs, ys, "first number of the embedding", "second number")
    for x, y, char in points:
        colour = "b" if char.lower() in "aeiou" else "a" if char.isalpha() else "c"
        label = {" ": "space", "\n": "line end"}.get(char, char)
        picture.text(axes.x(x), axes.y(y) + 5, label, "mono big middle", colour)
    for x, label, colour in (500, "vowels", "b"), (590, "consonants", "a"), (680, "others", "c"):
        picture.text(x, 28, label, "middle", colour)
    return str(picture)


def reach(names: Names) -> str:
    """The length of the gradient over the distance, for several networks."""
    ks, reaches = names["ks"], names["reaches"]
    picture = Drawing("Length of the gradient over the distance in characters", 760, 440)
    axes = Axes(picture, (70, 50, 560, 320), (0, 60), (1e-12, 1e6), math.log10)
    ticks = {10.0**e: "1" if e == 0 else f"1e{e}" for e in range(-12, 7, 3)}
    axes.frame(
        {k: f"{k}" for k in range(0, 61, 10)},
        ticks,
        "characters back",
        "length of the gradient of h",
    )
    for (name, lengths), colour in zip(reaches.items(), ("a", "c", "d", "b", "ink"), strict=True):
        kept = [(k, length) for k, length in zip(ks, lengths, strict=True) if length > 1e-12]
        axes.curve(*zip(*kept, strict=True), colour, 3 if name == "trained" else 2)
        k, length = kept[-1]
        picture.text(axes.x(k) + 8, axes.y(length) + 4, name, "start", colour)
    return str(picture)


def gates(names: Names) -> str:
    """The forget gates of ten units over a piece of text."""
    f, chars = names["f"], names["text"].chars
    start, length, size = 400, 56, 12
    picture = Drawing("Forget gates of ten units over a piece of text", 760, 270)
    piece = [chars[i] for i in names["seen"][start : start + length]]
    for t, char in enumerate(piece):
        x = 80 + size * t
        label = {" ": "·", "\n": "↵"}.get(char, char)
        picture.text(x + size / 2, 40, label, "mono middle", "soft" if char in " \n" else "ink")
        for group, units, top in ("c", names["keepers"], 55), ("a", names["resets"], 145):
            for row, unit in enumerate(units):
                strength = f[start + t, unit]
                if strength > 0.05:
                    y = top + 15 * row
                    picture.rect(x, y, size - 1, 14, group, strength)
    for units, top in (names["keepers"], 55), (names["resets"], 145):
        for row, unit in enumerate(units):
            picture.text(70, top + 15 * row + 12, f"unit {unit}", "small end", "soft")
    picture.text(
        80, 250, "filled: f = 1, the unit keeps its c; empty: f = 0, it forgets", "small", "soft"
    )
    return str(picture)


def temperatures(names: Names) -> str:
    """The probabilities of the likeliest next characters at three temperatures."""
    logits, chars, softmax = names["logits"], names["text"].chars, names["softmax"]
    picture = Drawing("Probabilities of the next character at three temperatures", 760, 330)
    axes = Axes(picture, (60, 40, 680, 220), (0, 12), (0, 1))
    ticks = {y / 4: f"{y / 4:.2f}" for y in range(5)}
    axes.frame({}, ticks, "the twelve likeliest next characters", "probability")
    order = np.argsort(-logits)[:12]
    for shift, (tau, colour) in enumerate(((0.3, "a"), (1.0, "c"), (2.0, "b"))):
        p = softmax(logits / tau)
        for place, i in enumerate(order):
            x, y = axes.x(place + 0.14 + 0.24 * shift), axes.y(p[i])
            picture.rect(x, y, 13, axes.y(0) - y, colour)
        picture.text(440 + 100 * shift, 60, f"τ = {tau}", "start", colour)
    for place, i in enumerate(order):
        label = {" ": "space", "\n": "line end"}.get(chars[i], chars[i])
        picture.text(axes.x(place + 0.5), 278, label, "mono middle")
    return str(picture)


def matrix(picture: Drawing, a: Any, sentence: str, x: float, y: float, size: float) -> None:
    """Attention (T, T) as squares, with the characters above and on the left."""
    for t, char in enumerate(sentence):
        label = "·" if char == " " else char
        picture.text(x + size * (t + 0.5), y - 6, label, "mono middle")
        picture.text(x - 12, y + size * (t + 0.7), label, "mono middle")
        for s in range(t + 1):
            box = (x + size * s, y + size * t, size - 1, size - 1)
            picture.rect(*box, "grid", 0.35)
            if a[t, s] > 0.02:
                picture.rect(*box, "a", a[t, s])


def attention(names: Names) -> str:
    """Where each of the twelve characters looks."""
    picture = Drawing("Attention of twelve characters", 760, 480)
    matrix(picture, names["a"], names["sentence"], 190, 60, 33)
    picture.text(388, 24, "is looked at (key)", "middle", "soft")
    picture.text(150, 260, "looks (query)", "end", "soft")
    picture.text(570, 120, "masked:", "middle", "soft")
    picture.text(570, 142, "the future", "middle", "soft")
    return str(picture)


def heads(names: Names) -> str:
    """The attention of four heads for the twelve characters."""
    picture = Drawing("Attention of four heads", 760, 250)
    for head, a in enumerate(names["a"]):
        x = 30 + 185 * head
        matrix(picture, a, "Oh dear! Oh ", x, 60, 13)
        picture.text(x + 78, 28, f"head {head}", "middle")
    return str(picture)


def overfitting(names: Names) -> str:
    """The losses over the steps, seen and held out, for a short and a long text."""
    picture = Drawing("Losses of a GPT that read little and of one that read much", 760, 400)
    axes = Axes(picture, (60, 60, 500, 280), (0, 300), (0, 6))
    ticks = {y: f"{y}" for y in range(7)}
    axes.frame(
        {x: f"{x}" for x in range(0, 301, 100)}, ticks, "steps", "loss in nats per character"
    )
    for (name, losses), colour in zip(names["curves"].items(), ("b", "a"), strict=True):
        steps, seen, held_out = zip(*losses, strict=True)
        axes.curve(steps, seen, colour, dash="6 4")
        axes.curve(steps, held_out, colour, 3)
        for label, y in ("held out", held_out[-1]), ("seen", seen[-1]):
            if (name, label) != ("41,291 characters", "seen"):
                both = "held out and seen" if name == "41,291 characters" else label
                picture.text(570, axes.y(y) + 4, f"{both}", "start", colour)
    for x, (name, colour) in zip((430, 620), zip(names["curves"], "ba", strict=True), strict=True):
        picture.text(x, 38, f"read {name}", "end", colour)
    return str(picture)


PICTURES: dict[str, Callable[[Names], str]] = {
    "1-neuron": neuron,
    "2-backpropagation": network,
    "3-mlp": embedding,
    "4-rnn": reach,
    "5-lstm": gates,
    "6-sampling": temperatures,
    "7-attention": attention,
    "8-mask": heads,
    "9-gpt": overfitting,
}
