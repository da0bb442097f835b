"""What else a person could use, on the same tasks: answers, differences in pairs, times, and clear refusals."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quickstudy.build import build_learner, build_source
from quickstudy.config import RunConfig
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.glyphs import GlyphSource
from quickstudy.data.source import DataError
from quickstudy.data.text import TextSource
from quickstudy.evaluation.alternatives import AlternativeError, FineTuned, alternative, untrained
from quickstudy.evaluation.compare import TextTask, TextTasks, compare
from quickstudy.evaluation.contest import answer_batch, answering
from quickstudy.nn.pretrained import HuggingFaceEncoder

INTENTS = f"text:{Path(__file__).parents[1] / 'data' / 'intents.csv'}"
DESIGN = EpisodeDesign(way=3, shot=2, queries=3)


@pytest.fixture(scope="module")
def source() -> TextSource:
    source = build_source(INTENTS)
    assert isinstance(source, TextSource)
    source.prepare(HuggingFaceEncoder())
    return source


@pytest.fixture(scope="module")
def tasks(source: TextSource) -> TextTasks:
    return TextTasks(source, "test", DESIGN, episodes=4, seed=0)


class Always:
    """Says the label of the first text that it was shown, and knows how often it was asked."""

    def __init__(self) -> None:
        self.learned = 0

    def fit(self, texts: Sequence[str], labels: Sequence[str], others: Sequence[str] = ()) -> None:
        self.label, self.learned = labels[0], self.learned + 1

    def predict(self, texts: Sequence[str]) -> list[str]:
        return [self.label for _ in texts]


class Knows(Always):
    """Has seen the tasks before."""

    def __init__(self, tasks: Sequence[TextTask]) -> None:
        super().__init__()
        self.known = {
            text: label
            for task in tasks
            for text, label in zip(task.asked, task.right, strict=True)
        }

    def predict(self, texts: Sequence[str]) -> list[str]:
        return [self.known[text] for text in texts]


def test_tasks_are_those_of_every_evaluation_in_words(source: TextSource, tasks: TextTasks) -> None:
    texts = source.pool_texts("test")
    encoder = HuggingFaceEncoder()
    for task, episode in zip(tasks, Episodes(source, "test", DESIGN, length=4), strict=True):
        assert (len(task.texts), len(task.asked)) == (6, 9)
        tokens = encoder.tokenize(task.asked)
        width = tokens.shape[1]
        assert torch.equal(episode.query.x[0, :, :width], tokens)
        names = dict(zip(episode.support.y[0].tolist(), task.labels, strict=True))
        assert [names[y] for y in episode.query.y[0].tolist()] == task.right
        assert set(task.texts) <= set(texts)
        assert not set(task.texts) & set(task.asked)


def test_differences_are_paired_and_times_are_kept(tasks: TextTasks) -> None:
    steps: list[tuple[int, int]] = []
    ways = {"knows": Knows(tasks), "always": Always()}
    found = compare(ways, tasks, lambda *step: steps.append(step))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert ways["always"].learned == 4
    assert found["knows"]["accuracy"] == {"mean": 1.0, "ci95": 0.0}
    assert found["always"]["accuracy"]["mean"] == pytest.approx(1 / 3)
    assert found["always"]["difference"]["mean"] == pytest.approx(2 / 3)
    assert found["knows"]["difference"]["mean"] == 0
    assert all(each["fit_seconds"]["mean"] >= 0 for each in found.values())
    with pytest.raises(ValueError, match="at least 2 of them; found 1"):
        compare(ways, list(tasks)[:1])


@pytest.mark.parametrize(
    ("name", "learner"), [("logreg", "linear_head"), ("prototypes", "protonet")]
)
def test_texts_and_episodes_are_answered_alike(
    name: str, learner: str, source: TextSource, tasks: TextTasks
) -> None:
    config = RunConfig(data=INTENTS, learner={"name": learner}, encoder={"name": "text"})
    made = build_learner(config.learner, config.encoder)
    way = alternative(name)
    for task, episode in zip(tasks, Episodes(source, "test", DESIGN, length=4), strict=True):
        way.fit(task.texts, task.labels)
        with answering(made):
            chosen = answer_batch(made, episode)[0].argmax(1)
        names = dict(zip(episode.support.y[0].tolist(), task.labels, strict=True))
        assert way.predict(task.asked) == [names[y] for y in chosen.tolist()]


def test_a_model_is_fine_tuned_for_each_task_and_stays_as_it_was(tasks: TextTasks) -> None:
    way = FineTuned()
    before = {name: value.clone() for name, value in way.start.state_dict().items()}
    state = torch.get_rng_state()
    way.fit(tasks[0].texts, tasks[0].labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert way.predict(tasks[0].texts) == tasks[0].labels
    right = sum(a == b for a, b in zip(way.predict(tasks[0].asked), tasks[0].right, strict=True))
    assert right >= 7
    assert all(torch.equal(value, before[name]) for name, value in way.start.state_dict().items())
    assert not torch.equal(
        way.encoder.state_dict()["model.embeddings.LayerNorm.weight"],
        before["model.embeddings.LayerNorm.weight"],
    )


def test_texts_without_a_label_are_for_who_learns_from_them(source: TextSource) -> None:
    design = replace(DESIGN, unlabelled=9)
    plain, more = (
        TextTasks(source, "test", each, episodes=4, seed=0)[1] for each in (DESIGN, design)
    )
    assert plain.others == []
    assert more[:4] == plain[:4]
    assert len(set(more.others)) == 9
    assert not set(more.others) & {*more.texts, *more.asked}
    way = untrained(name="linear_head", names=True)
    way.fit(more.texts, more.labels, more.others)
    assert (way.task.examples, way.task.unlabelled) == (len(more.texts), 9)
    other = untrained(name="protonet")
    other.fit(more.texts, more.labels, more.others)
    assert other.task.unlabelled == 0


def test_names_of_classes_may_be_examples(tasks: TextTasks) -> None:
    way = untrained(name="linear_head", names=True)
    way.fit(tasks[0].texts, tasks[0].labels)
    assert way.task.state.labels.shape[1] == len(tasks[0].texts) + 3


def test_what_is_not_there_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        AlternativeError, match="no alternative named 'magic'; those known are logreg"
    ):
        alternative("magic")
    # As where the package is not installed.
    monkeypatch.setitem(sys.modules, "setfit", None)
    with pytest.raises(AlternativeError, match=r"pip install 'quickstudy\[setfit\]', or leave"):
        alternative("setfit")
    with pytest.raises(DataError, match="GlyphSource holds examples of the kind image"):
        TextTasks(GlyphSource(), "test", DESIGN, episodes=2, seed=0)
