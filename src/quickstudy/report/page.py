"""The page of a report: its parts as HTML, from facts that are computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from quickstudy.evaluation import Calibration, confusion
from quickstudy.report import figures, words
from quickstudy.report.curves import Curve
from quickstudy.report.drawn import SHOWN, Drawn

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing is loaded from anywhere, and nothing runs."""


def page(title: str, eyebrow: str, lead: str, sections: Sequence[str], footer: str) -> str:
    """The whole document; ``lead``, ``sections`` and ``footer`` are HTML, the rest is plain text."""
    style = resources.files("quickstudy.report").joinpath("style.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="eyebrow">{escape(eyebrow)}</p>
<h1>{escape(title)}</h1>
<p class="lead">{lead}</p>
</header>
<main>
{"".join(sections)}
</main>
<footer>{footer}</footer>
</body>
</html>
"""


def section(title: str, note: str, body: str) -> str:
    """A part of the page; ``note`` and ``body`` are HTML."""
    return f'<section>\n<h2>{escape(title)}</h2>\n<p class="note">{note}</p>\n{body}\n</section>\n'


def score_cards(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """A card for each evaluation: its score and, as bars, what it is to be compared with."""
    cards = "".join(_score_card(scores) for scores in evaluations)
    note = (
        "Every method answers the same tasks. ± and the dark brackets are 95 % intervals over tasks: how well the mean "
        "over such tasks is known for these weights, not how another training run would do."
    )
    if any(words.chance(scores) is not None for scores in evaluations):
        note += " The dashed line is guessing."
    return section("How well it learns new tasks", note, f'<div class="cards scores">{cards}</div>')


def _score_card(scores: Mapping[str, Any]) -> str:
    metric = scores["metric"]
    rows = {"learner": {"mean": scores["mean"], "ci95": scores["ci95"]}}
    rows |= scores.get("ablations") or {}
    rows |= scores.get("baselines") or {}
    rows["before_adaptation"] = scores["before_adaptation"]
    full = 1.0 if metric == "accuracy" else max(row["mean"] + row["ci95"] for row in rows.values())
    bars = "".join(
        _bar(name, row, metric, full or 1.0, words.chance(scores)) for name, row in rows.items()
    )
    each = "class" if metric == "accuracy" else "task"
    facts = (
        f"{scores['episodes']} tasks, {words.plural(scores['queries'], 'question', 'questions')} a {each}, "
        f"{escape(str(scores['split']))} split, seed {scores['seed']}. "
        + (
            "Each question is answered alone (checked by exchanging the others)."
            if scores["inductive"]
            else "Transductive: questions inform one another, so compare with transductive methods only."
        )
    )
    verdict = words.verdict(scores)
    return (
        f'<article class="card"><h3>{escape(words.design_name(scores))} {escape(metric.replace("_", " "))}</h3>'
        f'<p class="score">{words.number(scores["mean"], metric)} '
        f"<small>{words.half_width(scores['ci95'], metric)}</small></p>"
        f'<div class="bars">{bars}</div>'
        + (f"<p>{verdict}</p>" if verdict else "")
        + f'<p class="note">{facts}</p></article>\n'
    )


def _bar(
    name: str, row: Mapping[str, float], metric: str, full: float, chance: float | None
) -> str:
    def place(value: float) -> str:
        return f"{100 * min(1.0, max(0.0, value / full)):.2f}%"

    low, high = row["mean"] - row["ci95"], row["mean"] + row["ci95"]
    whisker = ""
    if row["ci95"] > 0:
        wide = (min(high, full) - max(low, 0)) / full
        whisker = f'<em style="left:{place(low)};width:{100 * wide:.2f}%"></em>'
    guess = "" if chance is None else f'<s style="left:{place(chance)}"></s>'
    return (
        f'<div class="bar{" own" if name == "learner" else ""}"><b>{words.method(name)}</b>'
        f'<div class="track"><span style="width:{place(row["mean"])}"></span>{guess}{whisker}</div>'
        f"<i>{words.number(row['mean'], metric)} <small>{words.half_width(row['ci95'], metric)}</small></i></div>"
    )


def errors_by_shot(by_shot: figures.ByShot, tasks: int, metric: str) -> str:
    """A card with the chart of errors over shots against baselines."""
    caption = (
        f"{escape(metric.replace('_', ' ').capitalize())} on {tasks} tasks for each number of examples, on a "
        "logarithmic scale; bars are 95 % intervals over tasks."
    )
    return _shots_card(by_shot, caption, metric)


def _shots_card(by_shot: figures.ByShot, caption: str, metric: str) -> str:
    """A line of scores over shots for each method; ``caption`` is HTML."""
    # Without examples, not everybody takes part.
    names = [name for name in max(by_shot.values(), key=len) if name != "before_adaptation"]
    legend = "".join(
        f'<li style="--swatch:var(--{figures.series(i)})">{words.method(name)}</li>'
        for i, name in enumerate(names)
    )
    return (
        f'<figure class="card"><h3>More examples</h3><figcaption>{caption}</figcaption>'
        f'{figures.shot_chart(by_shot, names, metric)}<ul class="legend">{legend}</ul></figure>'
    )


def shots_and_calibration(
    by_shot: figures.ByShot, calibration: Calibration, design: str, tasks: int, *, more: str = ""
) -> str:
    """Two charts: accuracy over shots against baselines, and how far confidence can be believed; and ``more`` cards."""
    caption = (
        f"Accuracy on {tasks} tasks for each number of examples of a class, {escape(design)}; bars are 95 % intervals "
        "over tasks."
    )
    sure = (
        '<figure class="card"><h3>Can its confidence be believed?</h3><figcaption>Answers sorted by how sure the model '
        f"was; on the dashed line, 80 % sure is right 80 % of the time. On average it is off by "
        f"{words.share(calibration.error)} (expected calibration error, {int(calibration.answers.sum()):,} answers)."
        f"</figcaption>{figures.calibration_chart(calibration)}</figure>"
    )
    return section(
        "More examples, and how sure it is",
        "What a few more examples are worth, and whether to trust what the model says of itself.",
        f'<div class="cards">{_shots_card(by_shot, caption, "accuracy")}{sure}{more}</div>',
    )


def drawn_task(drawn: Drawn, kind: str, seed: int) -> str:
    """One task as it was answered: support, queries, right and wrong."""
    right = int((drawn.answers == _truth(drawn)).sum())
    note = f"The first task of seed {seed}; it was not chosen. {right} of {drawn.answers.numel()} answers are right. "
    if kind == "image":
        note += (
            "In each box, left of the line, what the model was given to learn from; right of it, up to "
            f'{SHOWN} of its questions. <span class="key" style="color:var(--right)"></span>right, '
            '<span class="key" style="color:var(--wrong)"></span>wrong, with the class that was answered in the corner.'
        )
        body = "".join(_picture_class(drawn, c) for c in range(len(drawn.class_names)))
        return section("One task, as it was answered", note, f'<div class="classes">{body}</div>')
    note += f"Tinted rows are what the model was given to learn from; up to {SHOWN} questions of each class follow."
    rows = "".join(_text_class(drawn, c) for c in range(len(drawn.class_names)))
    heads = "<tr><th>class</th><th>example</th><th>answer</th><th>how sure</th></tr>"
    return section(
        "One task, as it was answered",
        note,
        f'<div class="card scroll"><table>{heads}{rows}</table></div>',
    )


def _truth(drawn: Drawn) -> Any:
    import torch

    return torch.arange(len(drawn.class_names))[:, None].expand_as(drawn.answers)


def _picture_class(drawn: Drawn, c: int) -> str:
    name = drawn.class_names[c]
    support = "".join(f'<span class="tile">{each}</span>' for each in drawn.support[c][:SHOWN])
    tiles = []
    for query, answer, p in zip(
        drawn.queries[c][:SHOWN],
        drawn.answers[c].tolist(),
        drawn.probabilities[c].max(-1).values.tolist(),
        strict=False,
    ):
        said = f"{drawn.class_names[answer]}, {words.share(p)} sure"
        corner = f'<span class="taken">{drawn.support[answer][0]}</span>' if answer != c else ""
        state = "right" if answer == c else "wrong"
        tiles.append(
            f'<span class="tile {state}" role="img" aria-label="{state}" title="answered: {escape(said)}">'
            f"{query}{corner}</span>"
        )
    return (
        f'<figure class="class"><figcaption title="{escape(name)}">{escape(name)}</figcaption><div class="row">'
        f'<div class="row support">{support}</div>{"".join(tiles)}</div></figure>\n'
    )


def _text_class(drawn: Drawn, c: int) -> str:
    name = escape(drawn.class_names[c])
    rows = [
        f'<tr class="support"><td>{name}</td><td>{each}</td><td></td><td></td></tr>'
        for each in drawn.support[c][:SHOWN]
    ]
    for query, answer, p in zip(
        drawn.queries[c][:SHOWN],
        drawn.answers[c].tolist(),
        drawn.probabilities[c].max(-1).values.tolist(),
        strict=False,
    ):
        state = "right" if answer == c else "wrong"
        rows.append(
            f'<tr><td>{name}</td><td>{query}</td><td class="{state}">{escape(drawn.class_names[answer])}</td>'
            f"<td>{words.share(p)}</td></tr>"
        )
    return "".join(rows) + "\n"


def confusions(drawn: Drawn, kind: str) -> str:
    """What was taken for what in the drawn task: a matrix and the most frequent mistakes."""
    way = len(drawn.class_names)
    counts = confusion(_truth(drawn).flatten(), drawn.answers.flatten(), way)
    each = int(counts.sum(1).max())
    off = counts.clone().fill_diagonal_(0)
    worst = [(int(off[i, j]), i, j) for i in range(way) for j in range(way) if int(off[i, j])]
    worst.sort(key=lambda mistake: (-mistake[0], mistake[1:]))

    def shown(c: int) -> str:
        if kind == "image":
            return f'<span class="tile">{drawn.support[c][0]}</span> {escape(drawn.class_names[c])}'
        return f"<strong>{escape(drawn.class_names[c])}</strong>"

    mistakes = "".join(
        f"<li>{shown(i)} <span>was taken for</span> {shown(j)} <span>{times} of {each} times</span></li>"
        for times, i, j in worst[:6]
    )
    listing = f'<ul class="mistakes">{mistakes}</ul>' if worst else "<p>There is none.</p>"
    body = (
        f'<div class="cards"><figure class="card"><h3>Confusion</h3><figcaption>Rows are the true classes, columns the '
        f"answers; {each} questions a class. Darker is more often.</figcaption>"
        f"{figures.confusion_chart(counts, drawn.support, drawn.class_names, kind)}</figure>"
        f'<div class="card"><h3>Most frequent mistakes</h3>{listing}</div></div>'
    )
    return section("What it takes for what", "All questions of the same task.", body)


def learning(curves: Mapping[str, Curve], metric: str) -> str:
    """How the run went: training loss and validation score over the steps."""
    cards = []
    accuracy = metric == "accuracy"
    unit = "Nats for each question" if accuracy else "The mean over questions"
    where = "On tasks of the validation split"
    kept = f"{where}; the ring marks the weights that were kept."
    for name, title, text in (
        ("validation_loss", "Validation loss", "" if accuracy else kept),
        (
            f"validation_{metric}",
            f"Validation {metric.replace('_', ' ')}",
            kept if accuracy else f"{where}.",
        ),
        ("loss", "Training loss", f"{unit}; the strong line is a moving average."),
    ):
        if text and name in curves and len(curves[name].steps) > 1:
            chart = figures.curve_chart(
                curves[name],
                label=title,
                percent=name == "validation_accuracy",
                marked=("highest" if accuracy else "lowest") if text == kept else None,
            )
            cards.append(
                f'<figure class="card"><h3>{escape(title)}</h3><figcaption>{text}</figcaption>{chart}</figure>'
            )
    if not cards:
        return ""
    last = max(curve.steps[-1] for curve in curves.values())
    return section(
        "How it was trained", f"{last:,} steps.", f'<div class="cards">{"".join(cards)}</div>'
    )


def run_facts(groups: Mapping[str, Mapping[str, str]], config: str) -> str:
    """Everything that is needed to do it again: configuration, seeds, versions, hardware."""
    lists = "".join(
        f'<div class="card"><h3>{escape(title)}</h3><dl>'
        + "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
        + "</dl></div>"
        for title, facts in groups.items()
    )
    return section(
        "This run",
        "With this configuration and these seeds the same tasks are drawn again.",
        f'<div class="cards"><div class="card"><h3>Configuration</h3><pre>{escape(config)}</pre></div>'
        f'<div class="stack">{lists}</div></div>',
    )
