"""Drawings as SVG that are the same bytes in every run, on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

STYLE = """
  svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --grid: #d1d9e0;
        --a: #0969da; --b: #bc4c00; --c: #1a7f37; --d: #8250df }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #f0f6fc; --soft: #9198a1; --grid: #3d444d;
          --a: #4493f8; --b: #f0883e; --c: #3fb950; --d: #ab7df8 }
  }
  .paper { fill: var(--paper) } .grid { fill: var(--grid) } .ink { fill: var(--ink) }
  .soft { fill: var(--soft) } .a { fill: var(--a) } .b { fill: var(--b) } .c { fill: var(--c) }
  .d { fill: var(--d) }
  text { font: 14px system-ui, sans-serif }
  .small { font-size: 12px } .big { font-size: 18px } .mono { font-family: monospace }
  .start { text-anchor: start } .middle { text-anchor: middle } .end { text-anchor: end }
"""


def number(x: float) -> str:
    """A coordinate, rounded: the last bits of a result differ between CPUs."""
    rounded = f"{x:.1f}".removesuffix(".0")
    return "0" if rounded == "-0" else rounded


class Drawing:
    """An SVG with its own background. Colours are the names in STYLE: ink, soft, grid, a to d.

    Args:
        title: what the picture shows, for readers who cannot see it.
        width: in pixels.
        height: in pixels.
    """

    def __init__(self, title: str, width: int, height: int) -> None:
        self.head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">\n<title>{escape(title)}</title>\n'
            f"<style>{STYLE}</style>\n"
        )
        self.parts: list[str] = []
        self.rect(0, 0, width, height, "paper")

    def add(self, tag: str, style: str, content: str = "", **numbers: float) -> None:
        """An element with coordinates."""
        sizes = " ".join(f'{name}="{number(value)}"' for name, value in numbers.items())
        end = f">{content}</{tag}>" if content else "/>"
        self.parts.append(f"<{tag} {sizes} {style}{end}")

    def rect(
        self, x: float, y: float, width: float, height: float, colour: str, strength: float = 1
    ) -> None:
        """A filled rectangle; strength is from 0, nothing, to 1."""
        fill = f'class="{colour}"' + (f' opacity="{strength:.2f}"' if strength < 1 else "")
        self.add("rect", fill, x=x, y=y, width=width, height=height)

    def circle(self, x: float, y: float, r: float, colour: str, edge: str) -> None:
        """A filled circle with an edge."""
        self.add("circle", f'class="{colour}" stroke="var(--{edge})"', cx=x, cy=y, r=r)

    def line(
        self, points: Sequence[tuple[float, float]], colour: str, width: float = 1, dash: str = ""
    ) -> None:
        """A line through points."""
        path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        style = f'fill="none" stroke="var(--{colour})" stroke-width="{number(width)}"'
        style += f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" {style}/>')

    def text(self, x: float, y: float, text: str, kind: str = "start", colour: str = "ink") -> None:
        """A line of text. kind: classes in STYLE, such as "small middle"."""
        style = f'class="{kind} {colour}"'
        self.add("text", style, escape(text), x=x, y=y)

    def __str__(self) -> str:
        return self.head + "\n".join(self.parts) + "\n</svg>\n"


class Axes:
    """A chart in a drawing: it maps values to pixels.

    Args:
        drawing: where it is drawn.
        box: x, y, width and height in pixels.
        xs: the values at the left and the right end.
        ys: the values at the bottom and the top.
        scale: applied to y first, such as math.log10.
    """

    def __init__(
        self,
        drawing: Drawing,
        box: tuple[float, float, float, float],
        xs: tuple[float, float],
        ys: tuple[float, float],
        scale: Callable[[float], float] = float,
    ) -> None:
        self.drawing, self.box, self.scale = drawing, box, scale
        self.xs, self.ys = xs, (scale(ys[0]), scale(ys[1]))

    def x(self, value: float) -> float:
        """The pixel of a value."""
        left, _, width, _ = self.box
        return left + width * (value - self.xs[0]) / (self.xs[1] - self.xs[0])

    def y(self, value: float) -> float:
        """The pixel of a value."""
        _, top, _, height = self.box
        return top + height * (self.ys[1] - self.scale(value)) / (self.ys[1] - self.ys[0])

    def frame(
        self, x_ticks: dict[float, str], y_ticks: dict[float, str], x_name: str, y_name: str
    ) -> None:
        """Grid lines with their values, and the names of both axes."""
        left, top, width, height = self.box
        for value, label in y_ticks.items():
            y = self.y(value)
            self.drawing.line([(left, y), (left + width, y)], "grid")
            self.drawing.text(left - 8, y + 4, label, "small end", "soft")
        for value, label in x_ticks.items():
            self.drawing.text(self.x(value), top + height + 18, label, "small middle", "soft")
        self.drawing.text(left + width / 2, top + height + 38, x_name, "middle", "soft")
        self.drawing.text(left, top - 12, y_name, "start", "soft")

    def curve(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        colour: str,
        width: float = 2,
        dash: str = "",
    ) -> None:
        """A line through values."""
        points = [(self.x(x), self.y(y)) for x, y in zip(xs, ys, strict=True)]
        self.drawing.line(points, colour, width, dash)
