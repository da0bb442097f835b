"""How a report says things: names, numbers and sentences, ready for HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from quickstudy.data.design import sized

METHODS = {
    "learner": "this model",
    "nearest_mean_raw_inputs": "nearest mean of raw inputs",
    "nearest_mean_untrained_encoder": "nearest mean, untrained encoder",
    "nearest_mean_pretrained_encoder": "nearest mean, pretrained encoder",
    "linear_head": "linear head on its features",
    "mean_of_support": "mean of the task's known values",
    "ridge_raw_inputs": "ridge regression on raw inputs",
    "logistic_raw_inputs": "logistic regression on raw inputs",
    "exact": "exact answer of who knows the world",
    "before_adaptation": "this model, before adapting",
    "without_description": "without names and description",
    "without_modulation": "with the same weights in every task",
    "without_unlabelled": "without the examples that have no label",
    "inner_steps_0": "with no inner step",
    "inner_steps_1": "with 1 inner step",
    "inner_steps_5": "with 5 inner steps",
    "against": "the other model",
}
"""Ways of answering, in plain words."""


ROUNDING = 1e-9
"""Errors below this are those of arithmetic; whoever makes them is right."""


def method(name: str) -> str:
    """A way of answering, in plain words, escaped."""
    return escape(METHODS.get(name, name.replace("_", " ")))


def share(value: float) -> str:
    """A share as a percentage, no longer than it need be.

    >>> share(0.94213), share(1.0), share(0.05)
    ('94.2 %', '100 %', '5 %')
    """
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def number(value: float, metric: str) -> str:
    """A score in the manner of its metric.

    >>> number(0.9, "accuracy"), number(0.9, "mean_squared_error"), number(2e-14, "mean_squared_error")
    ('90.0 %', '0.9', '0.0')
    """
    return f"{100 * value:.1f} %" if metric == "accuracy" else _brief(value, 3)


def half_width(value: float, metric: str) -> str:
    """An interval in the manner of its metric, without the unit.

    >>> half_width(0.00312, "accuracy"), half_width(0.0312, "mean_squared_error")
    ('± 0.3', '± 0.031')
    """
    return f"± {100 * value:.1f}" if metric == "accuracy" else f"± {_brief(value, 2)}"


def _brief(value: float, digits: int) -> str:
    """A number of so many digits; what is left by rounding alone is nought."""
    return "0.0" if abs(value) < ROUNDING else f"{value:.{digits}g}"


def some(value: int | Sequence[int]) -> str:
    """A number or a range.

    >>> some(5), some([2, 4])
    ('5', '2 to 4')
    """
    return str(value) if isinstance(value, int) else f"{value[0]} to {value[1]}"


def plural(value: int | Sequence[int], one: str, several: str) -> str:
    """A number or a range with its noun.

    >>> plural(1, "example", "examples"), plural([1, 3], "class", "classes")
    ('1 example', '1 to 3 classes')
    """
    return f"{some(value)} {one if value == 1 else several}"


def design_name(scores: Mapping[str, Any]) -> str:
    """The shape of the tasks, such as ``20-way 1-shot``, or ``5-shot`` where they predict values; in a mixture,
    behind the name of its source.

    >>> design_name({"metric": "mean_squared_error", "way": 1, "shot": 5})
    '5-shot'
    """
    of = f"{scores['source']}: " if "source" in scores else ""
    if scores["metric"] != "accuracy":
        return of + sized(scores["shot"], "shot")
    inside = ", within a group" if scores.get("within_group") else ""
    return f"{of}{sized(scores['way'], 'way')} {sized(scores['shot'], 'shot')}{inside}"


def chance(scores: Mapping[str, Any]) -> float | None:
    """What guessing would score, where that is one number."""
    if scores["metric"] == "accuracy" and isinstance(scores["way"], int):
        return float(1 / scores["way"])
    return None


def best_untrained(scores: Mapping[str, Any]) -> str | None:
    """The best of the baselines that take nothing from meta-training, nor from knowing how tasks were made."""
    known = ("linear_head", "exact")
    baselines = {
        name: row for name, row in (scores.get("baselines") or {}).items() if name not in known
    }
    best = max if scores["metric"] == "accuracy" else min
    return best(baselines, key=lambda name: baselines[name]["mean"], default=None)


def headline(scores: Mapping[str, Any]) -> str:
    """What the scores say, in one or two sentences of HTML."""
    metric = scores["metric"]
    value = (
        f"<strong>{number(scores['mean'], metric)} {half_width(scores['ci95'], metric)}</strong>"
    )
    tasks = f"{scores['episodes']} tasks drawn from the {escape(str(scores['split']))} split, each with "
    examples = plural(scores["shot"], "example", "examples")
    best = best_untrained(scores)
    if metric != "accuracy":
        words = f"On {tasks}{examples}, the model reaches a {escape(metric.replace('_', ' '))} of {value}."
        if best is not None:
            found = number(scores["baselines"][best]["mean"], metric)
            words += f" Without meta-training, the best of the simple methods ({method(best)}) gives {found}."
        return words + sureness(scores)
    tasks += f"{plural(scores['way'], 'class', 'classes')} and {examples} of each"
    if scores.get("unlabelled"):
        tasks += f", and {scores['unlabelled']} without a label"
    words = f"On {tasks}, the model answers {value} of the questions right."
    guess = chance(scores)
    if guess is not None:
        words += f" Guessing gives {share(guess)}"
        if best is not None:
            found = number(scores["baselines"][best]["mean"], metric)
            words += f"; without meta-training, the best of the simple methods ({method(best)}) gives {found}"
        words += "."
    return words + sureness(scores)


def streams_headline(scores: Mapping[str, Any]) -> str:
    """What the scores of streams say of memory, in a sentence of HTML."""
    metric, last = scores["metric"], scores["positions"][-1]
    told = {
        name: f"{number(last[name]['mean'], metric)} {half_width(last[name]['ci95'], metric)}"
        for name in ("with_memory", "without_memory")
    }
    classes = f"{plural(scores['way'], 'class', 'classes')} and " if metric == "accuracy" else ""
    each = " of each" if classes else ""
    return (
        f"On {scores['streams']} streams of {scores['stream']} tasks drawn from the {escape(str(scores['split']))} "
        f"split, each task with {classes}{plural(scores['shot'], 'example', 'examples')}{each}, the model's "
        f"{escape(metric.replace('_', ' '))} at the last task is <strong>{told['with_memory']}</strong> with its "
        f"memory of the earlier ones and {told['without_memory']} without."
    )


def sureness(scores: Mapping[str, Any]) -> str:
    """What is known of a model's own uncertainty, in sentences of HTML; empty of one that says none."""
    nats, held = scores.get("log_likelihood"), scores.get("coverage")
    if nats is None:
        return ""
    found = f" Its log-likelihood is {_brief(nats['mean'], 3)} ± {_brief(nats['ci95'], 2)} nats for each question"
    short = scores.get("below_exact")
    if short is not None:
        found += f", <strong>{short['mean']:.3g} ± {short['ci95']:.2g} below Bayes-optimal</strong>"
    if held is not None:
        found += f", and its 95 % intervals hold {share(held['mean'])} of the values"
    return found + "."


def verdict(scores: Mapping[str, Any]) -> str:
    """What the paired difference says, in one sentence of HTML; empty without one."""
    paired = scores.get("paired")
    if not paired:
        return ""
    difference, half = paired["difference"], paired["ci95"]
    if scores["metric"] == "accuracy":
        amount = f"{100 * difference:+.1f} ± {100 * half:.1f} percentage points"
    else:
        amount = f"{difference:+.3g} ± {half:.2g}"
    if abs(difference) <= half:
        meaning = "no difference can be told"
    else:
        better = (difference > 0) == (scores["metric"] == "accuracy")
        meaning = "this model is better" if better else "the other model is better"
    other = escape(str(paired["against"]) or "the other model")
    return f"Against {other}, task by task: {amount}; {meaning}."
