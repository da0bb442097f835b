"""The model card: what a person wants to know of an artifact before using it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quickstudy.config import RunConfig, config_to_yaml
from quickstudy.data.design import sized

CARD = """# {name}

A few-shot learner made with quickstudy: it was meta-trained on many small tasks and picks up a new one from a handful
of labelled examples. Learner `{learner}` on encoder `{encoder}`, {parameters:,} parameters. Id `{id}`.

## Use

```sh
quickstudy adapt {name} SUPPORT --out my.task
quickstudy predict my.task INPUT...
```

{use}

## Data

`{data}`

{data_facts}

## Scores

{scores}

An interval is 95 % over tasks: how well the mean over tasks of this kind is known for these weights. It says nothing of
how another training seed would do. Scores are inductive: every query is answered alone, from the support only.

## Limits

- It was trained on tasks of {tasks};
  far from that, and on other kinds of data, measure before you rely on it: `quickstudy evaluate {name} --data ...`.
- {answers}
- The weights carry what they learned from the data above, whose licence and biases apply.

## Training

{training_facts}

Made with quickstudy {quickstudy} and torch {torch} on {created}. To make it again, save the following as `run.yaml`
and run `quickstudy train --config run.yaml --out RUN`:

```yaml
{config}```
"""


CLASSES = """\
`SUPPORT` is a folder of class folders of images, or a CSV or JSONL file with the columns `text` and `label`.

```python
import quickstudy

classifier = quickstudy.FewShotClassifier("{name}")
classifier.fit(support, labels).predict_proba(queries)
```"""

VALUES = """\
`SUPPORT` is a CSV or JSONL file of numbers, of which the column `value`, or else the last one, is what is to be
predicted; an `INPUT` is such a file without that column, or a number for each input with commas between."""


def _lines(facts: Mapping[str, Any]) -> str:
    """Facts as a list, nested ones in one line each."""

    def value(of: Any) -> str:
        if isinstance(of, Mapping):
            return ", ".join(f"{key} {value(inner)}" for key, inner in of.items())
        if isinstance(of, list | tuple):
            return ", ".join(map(value, of))
        return f"{of:.4g}" if isinstance(of, float) else str(of)

    return "\n".join(f"- {key.replace('_', ' ')}: {value(of)}" for key, of in facts.items())


def _score(name: str, score: Any) -> str:
    """One line of the table of scores."""
    if not isinstance(score, Mapping) or "mean" not in score:
        return f"| {name} | | {score} | |"
    way, shot = (
        sized(score[each], each) if score.get(each) else f"?-{each}" for each in ("way", "shot")
    )
    design = shot if score.get("metric") == "mean_squared_error" else f"{way} {shot}"
    form = ".3g" if score.get("metric") == "mean_squared_error" else ".4f"
    mean, half = (
        "not finite" if score.get(each) is None else f"{score[each]:{form}}"
        for each in ("mean", "ci95")
    )
    return f"| {name} | {score.get('metric', 'score')}, {design} | {mean} ± {half} | {score.get('episodes', '?')} |"


def model_card(record: Mapping[str, Any], config: RunConfig, *, parameters: int, name: str) -> str:
    """The model card of an artifact, as Markdown.

    Args:
        record: what ``config.json`` holds.
        config: the run.
        parameters: how many numbers the learner has.
        name: of the artifact's folder.
    """
    facts = record["facts"]
    rows = [_score(key, score) for key, score in record["scores"].items()]
    table = "\n".join(
        ["| on | metric | mean ± 95 % interval | tasks |", "|---|---|---|---|", *rows]
    )
    values, shot = config.learner.get("values", 0), config.episode.shot
    tasks = f"{config.episode.way} classes with {shot} support examples of each"
    answers = "Its answer is always one of the classes of the task; it does not know an input that belongs to none."
    if values:
        tasks = f"{shot} support examples, to predict {values} " + (
            "number" if values == 1 else "numbers"
        )
        answers = "It gives one number for an input and does not say how sure it is of it."
    training = {key: value for key, value in facts.items() if key != "data"}
    return CARD.format(
        name=name,
        id=record["id"],
        learner=config.learner["name"],
        encoder=config.encoder["name"],
        parameters=parameters,
        data=config.data,
        data_facts=_lines(facts.get("data") or {"facts": "none were recorded"}),
        scores=table if rows else "None were measured.",
        use=(VALUES if values else CLASSES.format(name=name)),
        tasks=tasks,
        answers=answers,
        training_facts=_lines(training) or "No facts were recorded.",
        quickstudy=record["versions"]["quickstudy"],
        torch=record["versions"]["torch"],
        created=record["created"],
        config=config_to_yaml(config),
    )
