"""The report's plots, as inline SVG. matplotlib is imported here only, and only when a page is written."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES: Final = 9.0
MEGABYTE: Final = 1e6
SEEN_PART: Final = 0.005
SMALL: Final = "all other classes"
MAX_TITLE: Final = 70


def perplexity(by_nation: Mapping[str, Sequence[float]]) -> str:
    """A line per nation over before, round 1, round 2, …; logarithmic, since languages lie far apart."""
    figure, axes = _figure(4.0)
    longest = max((len(values) for values in by_nation.values()), default=0)
    for code, values in by_nation.items():
        axes.plot(range(len(values)), values, marker="o", label=code)
    axes.set_yscale("log")
    axes.set_xticks(range(longest), ["before", *(f"round {number}" for number in range(1, longest))])
    axes.set_ylabel("held-out perplexity")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(frameon=False, ncols=len(by_nation) or 1)
    return _svg(figure)


def bytes_by_class(by_nation: Mapping[str, Mapping[str, int]]) -> str:
    """Stacked bars: what left each nation, by class; classes too small to be seen are one."""
    figure, axes = _figure(3.2)
    nations = list(by_nation)
    widest = max((sum(classes.values()) for classes in by_nation.values()), default=0)
    names = sorted({name for classes in by_nation.values() for name in classes})
    seen = [name for name in names if any(c.get(name, 0) > SEEN_PART * widest for c in by_nation.values())]
    left = [0.0] * len(nations)
    for name in [*seen, SMALL]:
        of = [name] if name in seen else [each for each in names if each not in seen]
        widths = [sum(by_nation[nation].get(each, 0) for each in of) / MEGABYTE for nation in nations]
        axes.barh(nations, widths, left=left, label=name)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("MB out, by class")
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


def timeline(steps: Sequence[tuple[str, float, float]]) -> str:
    """A bar per step, from its begin to its end in seconds."""
    figure, axes = _figure(max(2.0, 0.32 * len(steps)))
    for place, (_, began, ended) in enumerate(steps):
        axes.barh(place, max(ended - began, 0.1), left=began, color="#4269d0")
    titles = [textwrap.shorten(title, MAX_TITLE, placeholder=" …") for title, _, _ in steps]
    axes.set_yticks(range(len(steps)), titles, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the start")
    axes.grid(visible=True, axis="x", alpha=0.3)
    return _svg(figure)


def _figure(height_inches: float) -> tuple[Any, Axes]:
    os.environ.setdefault("MPLBACKEND", "svg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    """The figure without the XML prologue, so that it can stand in a page."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
