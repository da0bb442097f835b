"""The charts of a report, as inline SVG whose colours follow the page's theme.

Drawn with matplotlib's ``Figure``, without pyplot, so no figure outlives its function. Each colour below is written
into the SVG as a placeholder and then replaced by the variable of the style sheet that it stands for.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from quickstudy.evaluation import Calibration
from quickstudy.report.curves import Curve

if TYPE_CHECKING:
    from quickstudy.report.functions import DrawnFunction

COLOURS = {
    "ink": "#010101",
    "faint": "#020202",
    "line": "#030303",
    "accent": "#040404",
    "paper": "#050505",
    "series-1": "#060606",
    "series-2": "#070707",
    "series-3": "#080808",
    "series-4": "#090909",
}
"""Variables of the style sheet and the placeholders that are drawn with."""

ByShot = Mapping[int, Mapping[str, Mapping[str, Any]]]
"""Shot to name to mean, ci95 and other measures."""

SIZE = (4.6, 2.9)
"""Inches; small, so that the labels are still read when a narrow screen scales a chart down."""

WIDE = (9.4, 3.4)
"""Inches of a chart that has the width of the page to itself."""


@contextmanager
def _chart(name: str, size: tuple[float, float] = SIZE) -> Iterator[tuple[Any, list[str]]]:
    """Axes in the style of the page; the list receives the SVG when the block ends."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9.5,
        "text.color": COLOURS["ink"],
        "axes.edgecolor": COLOURS["line"],
        "axes.labelcolor": COLOURS["faint"],
        "xtick.color": COLOURS["faint"],
        "ytick.color": COLOURS["faint"],
        "grid.color": COLOURS["line"],
        "grid.linewidth": 0.6,
        "axes.linewidth": 0.8,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
    }
    result: list[str] = []
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for patch in (figure.patch, axes.patch):
            patch.set_visible(False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, pad=5)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        yield axes, result
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    result.append(themed(buffer.getvalue(), name))


def themed(svg: str, name: str) -> str:
    """An SVG element for a page: no prologue, fluid width, colours and font of the style sheet, a name for readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    opening = rf'<svg viewBox="\1" role="img" aria-label="{escape(name)}">'
    svg = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', opening, svg, count=1)
    # Only clips and markers are referred to by name; the rest would be double where a page has two charts.
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for variable, placeholder in COLOURS.items():
        svg = svg.replace(placeholder, f"var(--{variable})")
    return svg


def _percent_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def curve_chart(
    curve: Curve, *, label: str, percent: bool, marked: Literal["highest", "lowest"] | None = None
) -> str:
    """One column of the metrics over the steps of training; ``marked`` says which value is ringed as the best."""
    with _chart(label) as (axes, result):
        dense = len(curve.steps) > 200
        if dense:
            axes.plot(curve.steps, curve.values, color=COLOURS["accent"], alpha=0.25, linewidth=0.7)
        values = smoothed(curve.values) if dense else curve.values
        marker = "o" if len(curve.steps) <= 30 else ""
        axes.plot(curve.steps, values, color=COLOURS["accent"], marker=marker, markersize=3.5)
        if marked:
            choose = max if marked == "highest" else min
            best = choose(range(len(curve.values)), key=curve.values.__getitem__)
            axes.plot(
                curve.steps[best],
                curve.values[best],
                marker="o",
                markersize=9,
                markerfacecolor="none",
                color=COLOURS["ink"],
                markeredgewidth=1.2,
            )
        axes.set_xlabel("training step")
        if percent:
            _percent_axis(axes.yaxis)
    return result[0]


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """An exponential moving average without a start-up bias: ``m_i / (1 - w^i)``.

    >>> smoothed([2.0, 2.0])
    [2.0, 2.0]
    """
    total, out = 0.0, []
    for i, value in enumerate(values, start=1):
        total = weight * total + (1 - weight) * value
        out.append(round(total / (1 - weight**i), 9))
    return out


def shot_chart(
    by_shot: ByShot,
    names: Sequence[str],
    metric: str = "accuracy",
    *,
    label: str = "",
    size: tuple[float, float] = SIZE,
) -> str:
    """A score over the number of examples, a line with intervals for each name; errors on a logarithmic scale.

    Args:
        by_shot: the scores.
        names: of the lines.
        metric: what the scores are.
        label: of the axis below, if it is no number of examples.
        size: in inches.
    """
    accuracy = metric == "accuracy"
    with _chart(f"{metric.replace('_', ' ')} by shot", size) as (axes, result):
        rows = {name: [each.get(name) for each in by_shot.values()] for name in names}
        _lines(axes, rows, by_shot)
        axes.set_xlabel(label or ("examples of each class" if accuracy else "examples"))
        if accuracy:
            _percent_axis(axes.yaxis)
        else:
            axes.set_yscale("log")
            # An exact answer, which is wrong by rounding only, would flatten all other lines.
            means = [[each["mean"] for each in there if each] for there in rows.values()]
            least = max(min(means[0]) / 30, min(min(each) for each in means if each), 1e-12)
            axes.set_ylim(bottom=least / 1.5)
    return result[0]


def likelihood_chart(by_shot: ByShot, names: Sequence[str]) -> str:
    """Log-likelihood over the number of examples, a line with intervals for each name."""
    key = "log_likelihood"
    with _chart("log-likelihood by shot") as (axes, result):
        rows = {name: [each[name][key] for each in by_shot.values()] for name in names}
        _lines(axes, rows, by_shot)
        axes.set_xlabel("examples")
    return result[0]


def _lines(
    axes: Any, rows: Mapping[str, Sequence[Mapping[str, float] | None]], ticks: Iterable[int]
) -> None:
    """Means with their intervals, a line for each name, the first one on top; not everybody is at every tick."""
    names = [str(tick) for tick in ticks]
    for i, scores in reversed(list(enumerate(rows.values()))):
        there = [(place, score) for place, score in enumerate(scores) if score is not None]
        axes.errorbar(
            [place for place, _ in there],
            [score["mean"] for _, score in there],
            [score["ci95"] for _, score in there],
            color=COLOURS[series(i)],
            marker="o",
            markersize=4.5,
            capsize=2.5,
            linewidth=2.2 if i == 0 else 1.4,
        )
    axes.set_xticks(range(len(names)), names)
    axes.margins(x=0.06)


def series(number: int) -> str:
    """The variable of the style sheet that colours one line of several.

    >>> series(0), series(1), series(9)
    ('accent', 'series-1', 'series-4')
    """
    return "accent" if number == 0 else f"series-{min(number, 4)}"


def calibration_chart(found: Calibration) -> str:
    """How often answers are right, against how sure the model was; the diagonal is perfect."""
    used = found.answers > 0
    share = (found.answers / found.answers.sum())[used]
    with _chart("calibration") as (axes, result):
        axes.plot([0, 1], [0, 1], color=COLOURS["faint"], linewidth=1, linestyle=(0, (3, 3)))
        axes.plot(
            found.confidence[used].tolist(), found.accuracy[used].tolist(), color=COLOURS["accent"]
        )
        axes.scatter(
            found.confidence[used].tolist(),
            found.accuracy[used].tolist(),
            s=(14 + 240 * share).tolist(),
            color=COLOURS["accent"],
            zorder=3,
        )
        axes.set_xlabel("how sure the model was")
        axes.set_ylabel("how often it was right")
        axes.set_xlim(-0.02, 1.03)
        axes.set_ylim(-0.02, 1.05)
        _percent_axis(axes.xaxis)
        _percent_axis(axes.yaxis)
    return result[0]


def function_chart(drawn: DrawnFunction) -> str:
    """A function of one number: the truth, the support, and what was answered before and after adaptation."""
    x = drawn.queries[:, 0].tolist()
    with _chart("a function and its answers") as (axes, result):
        axes.plot(x, drawn.before.tolist(), color=COLOURS["series-2"], linewidth=1.4)
        if drawn.sure is not None:
            ends = [(drawn.after + sign * drawn.sure).tolist() for sign in (-1, 1)]
            axes.fill_between(x, *ends, color=COLOURS["accent"], alpha=0.2, linewidth=0)
        if drawn.exact is not None:
            for line, width in zip(drawn.exact, (1.4, 0.7, 0.7), strict=True):
                axes.plot(x, line.tolist(), color=COLOURS["series-1"], linewidth=width)
        axes.plot(x, drawn.after.tolist(), color=COLOURS["accent"], linewidth=2.6)
        # Above the others: where the model is right it would not be seen.
        truth = {"color": COLOURS["ink"], "linewidth": 1, "linestyle": (0, (3, 3))}
        axes.plot(x, drawn.truth.tolist(), **truth)
        known, values = drawn.support
        axes.scatter(known[:, 0].tolist(), values.tolist(), s=26, color=COLOURS["ink"], zorder=3)
        axes.set_xlabel("input")
        axes.set_ylabel("value")
    return result[0]


def attention_chart(drawn: DrawnFunction, places: Sequence[int]) -> str:
    """How the queries at some places share their attention among examples of one number each."""
    assert drawn.attention is not None
    known = drawn.support[0][:, 0]
    order = known.argsort()
    with _chart("attention to the examples") as (axes, result):
        for i, place in enumerate(places):
            colour = COLOURS[series(i)]
            shares = drawn.attention[place, order].tolist()
            axes.plot(known[order].tolist(), shares, color=colour, marker="o", markersize=4.5)
            at = float(drawn.queries[place, 0])
            axes.axvline(at, color=colour, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_xlabel("input")
        axes.set_ylim(bottom=0)
        _percent_axis(axes.yaxis)
    return result[0]


def agreement_chart(drawn: DrawnFunction) -> str:
    """Answers before and after adaptation against true values; on the diagonal they agree."""
    truth = drawn.truth.tolist()
    with _chart("answers against true values") as (axes, result):
        ends = [min(truth), max(truth)]
        axes.plot(ends, ends, color=COLOURS["faint"], linewidth=1, linestyle=(0, (3, 3)))
        for answers, colour in ((drawn.before, "series-2"), (drawn.after, "accent")):
            axes.scatter(truth, answers.tolist(), s=9, color=COLOURS[colour])
        axes.set_xlabel("true value")
        axes.set_ylabel("answer")
    return result[0]


def confusion_chart(
    counts: Tensor, support: Sequence[Sequence[str]], names: Sequence[str], kind: str
) -> str:
    """A matrix of true classes (rows) and answers (columns), with pictures or names at its margins."""
    way = len(names)
    cell, left, top = 20, 22 if kind == "image" else 130, 22
    largest = max(1, int(counts.max()))
    parts = []
    for c in range(way):
        x, y = left + c * cell, top + c * cell
        if kind == "image":
            address = re.search(r'src="([^"]*)"', support[c][0])
            ink = ' class="ink"' if "class=ink" in support[c][0] else ""
            link = address[1] if address else ""
            parts.append(f'<image{ink} href="{link}" x="2" y="{y + 2}" width="16" height="16"/>')
            parts.append(f'<image{ink} href="{link}" x="{x + 2}" y="2" width="16" height="16"/>')
        else:
            name = names[c] if len(names[c]) <= 22 else names[c][:21] + "…"
            parts.append(f'<text x="0" y="{y + 13}">{c + 1}. {escape(name)}</text>')
            parts.append(f'<text x="{x + 10}" y="14" text-anchor="middle">{c + 1}</text>')
        for j, count in enumerate(counts[c].tolist()):
            x = left + j * cell
            parts.append(_cell(x, y, count, count / largest, j == c, f"{names[c]} → {names[j]}"))
    return (
        f'<svg class="confusion" viewBox="0 0 {left + way * cell} {top + way * cell}" role="img" '
        f'aria-label="confusion matrix">{"".join(parts)}</svg>'
    )


def _cell(x: int, y: int, count: int, share: float, right: bool, title: str) -> str:
    look = "" if not count else f' style="fill-opacity:{0.15 + 0.75 * share:.2f}"'
    kind = "cell" + (" hit" if count and right else " miss" if count else "")
    number = f'<text class="count" x="{x + 10}" y="{y + 13}">{count}</text>' if count else ""
    return (
        f'<g><title>{escape(title)}: {count}</title><rect class="{kind}"{look} x="{x + 1}" y="{y + 1}" width="18" '
        f'height="18" rx="3"/>{number}</g>'
    )
