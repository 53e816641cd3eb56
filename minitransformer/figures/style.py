"""The house style: colours, log axes with readable ticks, and notes in place of legends."""

from contextlib import contextmanager
from typing import Iterator, Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import Formatter, Locator, MaxNLocator, NullLocator

from minitransformer.laws.law import short

OURS, PAPER, HELD_OUT, GREY = "#0072B2", "#D55E00", "#007A5A", "#767676"  # after Okabe and Ito 2008, text-safe on white
SERIES = (OURS, PAPER, HELD_OUT, "#AA4499", "#9A6700", "#000000")
MARKERS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚"}
HALO = [withStroke(linewidth=3, foreground="white")]


class PlainLog(Locator):
    """Few ticks on a log axis, at round numbers: whole decades, or 1-3, or 1-2-5, or even steps on a short range."""

    def __call__(self):
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> np.ndarray:
        low, high = sorted((vmin, vmax))
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        for multiples in ([1], [1, 3], [1, 2, 5]):
            ticks = np.outer(decades, multiples).ravel()
            ticks = ticks[(ticks >= low * 0.999) & (ticks <= high * 1.001)]
            if 4 <= len(ticks) <= 7:
                return ticks
        if len(ticks) > 7:
            every = int(np.ceil(len(decades) / 6))
            return decades[::every]
        ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return ticks[(ticks >= low) & (ticks <= high)]


def plain(value: float) -> str:
    """1500 -> 1.5k, 1.6 -> 1.6, 0.0001 -> 0.0001, with a true minus sign."""
    text = f"{value:g}" if 1e-4 <= abs(value) < 1e-3 else short(float(f"{value:.6g}"))
    return text.replace("-", "\N{MINUS SIGN}")


class PlainFormatter(Formatter):
    """`plain`, or powers of ten where the axis goes beyond 1e10 (FLOPs)."""

    def __call__(self, value: float, position: int | None = None) -> str:
        if self.axis.get_view_interval()[1] < 1e10:
            return plain(value)
        power = np.floor(np.log10(value) + 1e-9)
        lead = value / 10**power
        return rf"$10^{{{power:.0f}}}$" if abs(lead - 1) < 1e-6 else rf"${lead:.3g}\cdot10^{{{power:.0f}}}$"


@contextmanager
def style() -> Iterator[None]:
    """The house style, for `with style():` around any matplotlib code; legible when scaled to a phone's width."""
    with matplotlib.rc_context(
        {
            "figure.dpi": 120, "savefig.dpi": 120, "figure.facecolor": "white", "savefig.facecolor": "white",
            "figure.constrained_layout.use": True, "figure.constrained_layout.h_pad": 0.08,
            "font.family": "DejaVu Sans", "font.size": 11.5, "axes.labelsize": 11.5, "axes.titlesize": 11.5, "xtick.labelsize": 11, "ytick.labelsize": 11, "axes.spines.top": False,
            "axes.spines.right": False, "axes.edgecolor": "#555555", "axes.grid": True, "axes.axisbelow": True,
            "grid.color": "#E4E4E4", "grid.linewidth": 0.8, "xtick.color": "#333333", "ytick.color": "#333333",
            "axes.labelcolor": "#222222", "lines.linewidth": 1.8, "lines.solid_capstyle": "round",
        }
    ):
        yield


@contextmanager
def drawing(rows: int = 1, columns: int = 1, size: tuple[float, float] = (5.6, 4.2), **grid) -> Iterator[tuple[Figure, list]]:
    """A figure in the house style that pyplot will not show a second time."""
    with style():
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **grid)
        plt.close(figure)
        yield figure, list(axes.ravel())


def log(axis: Axes, which: str = "xy") -> None:
    for name in which:
        getattr(axis, f"set_{name}scale")("log")
        side = getattr(axis, f"{name}axis")
        side.set_major_locator(PlainLog())
        side.set_major_formatter(PlainFormatter())
        side.set_minor_locator(NullLocator())


def note(axis: Axes, lines: Sequence[tuple[str, str]], corner: str = "upper right") -> None:
    """Coloured lines of text, in place of a legend; a falling curve leaves the corners "upper right" and "lower left" free."""
    right = corner == "upper right"
    for i, (text, colour) in enumerate(lines):
        down = i if right else i - len(lines) + 1
        axis.annotate(
            text, (0.985, 0.98) if right else (0.015, 0.02), xycoords="axes fraction", xytext=(0, -15 * down - 4 * right),
            color=colour, textcoords="offset points", ha="right" if right else "left", va="top" if right else "bottom",
            bbox={"fc": "white", "alpha": 0.75, "lw": 0, "pad": 1},
        )


def draw_runs(axis: Axes, points, means, colour: str) -> None:
    axis.plot(points.x, points.loss, "o", mfc="none", mec=colour, ms=4, mew=0.9, alpha=0.75, ls="none")
    axis.plot(means.x, means.loss, "o", color=colour, ms=6, ls="none", zorder=4)


def scientific(value: float) -> str:
    """3.8e10: two digits, without padding."""
    return f"{value:.1e}".replace("e+", "e").replace("e0", "e")


def apart(heights: Sequence[float], gap: float, least: float = -np.inf) -> list[float]:
    """How far to move each height so that neighbours are at least `gap` apart, the whole stays centred, and none is below `least`."""
    order = np.argsort(heights)
    wanted = np.asarray(heights)[order]
    placed = wanted.copy()
    for _ in range(200):
        overlap = np.maximum(gap - np.diff(placed), 0) / 2
        if not overlap.any():
            break
        placed[:-1] -= overlap
        placed[1:] += overlap
        placed = np.maximum(placed, least + gap * np.arange(len(placed)))
    moved = np.empty(len(order))
    moved[order] = placed - wanted
    return moved.tolist()
