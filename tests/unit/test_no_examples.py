"""Scores without a single example: who takes part, and what they are beside."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import DataError, Pool, PoolSource
from quickstudy.data.synthetic import Sinusoid
from quickstudy.episode import Episode
from quickstudy.evaluation import answer_batch, contest_of, evaluate, scores_by_shot
from quickstudy.learners.gradient import MAML
from quickstudy.learners.memory import MetaTransformer
from quickstudy.learners.metric import ProtoNet
from quickstudy.learners.named_head import UNTIL_CHOSEN, counts_of
from quickstudy.learners.neural_process import TransformerNeuralProcess
from quickstudy.nn.encoders import RawEncoder, VectorEncoder
from quickstudy.nn.words import bytes_of
from quickstudy.report.figures import shot_chart

BARE = EpisodeDesign(way=3, shot=0, queries=4)


class Spoken(PoolSource):
    """Classes whose names say where they lie."""

    kind = "vector"

    def __init__(self, *, named: bool = True) -> None:
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
        words = [
            " ".join(["left", "right"][int(c > 0)] + str(i) for i, c in enumerate(row))
            for row in corners
        ]
        noise = 0.1 * torch.randn(8, 12, 3, generator=torch.Generator().manual_seed(0))
        pool = Pool(
            (corners[:, None] + noise).flatten(0, 1),
            torch.full((8,), 12),
            words,
            torch.zeros(8, dtype=torch.int64),
            ["all"],
            bytes_of(words),
        )
        self.spoken = pool if named else dataclasses.replace(pool, names=torch.zeros(8, 0).long())

    def pool(self, split: str) -> Pool:
        return self.spoken


@pytest.fixture(scope="module")
def learner() -> MetaTransformer:
    """Trained on what names say of where classes lie."""
    torch.manual_seed(0)
    options = {"width": 16, "heads": 2, "slots": 2, "names": True, "left_out": 0.2}
    found = MetaTransformer(VectorEncoder(3, width=8, layers=1), **options)
    optimizer = torch.optim.AdamW(found.parameters(), lr=0.01)
    design = EpisodeDesign(way=3, shot=(0, 1), queries=2)
    tasks = Episodes(Spoken(), "train", design, tasks=16, length=60)
    for i in range(60):
        optimizer.zero_grad()
        found(tasks[i]).backward()
        nn.utils.clip_grad_norm_(found.parameters(), 1.0)
        optimizer.step()
    return found.eval()


def test_names_alone_are_worth_something_and_before_adapting_nothing_is_known(
    learner: MetaTransformer,
) -> None:
    scores = evaluate(learner, Spoken(), design=BARE, episodes=60)
    assert scores["mean"] - scores["ci95"] > 0.6
    before = scores["before_adaptation"]
    assert abs(before["mean"] - 1 / 3) < max(0.02, 2 * before["ci95"])
    assert scores["baselines"] == {}
    assert scores["shot"] == 0
    assert scores["inductive"]


def test_names_that_lie_of_new_classes_are_trusted_less(learner: MetaTransformer) -> None:
    found = copy.deepcopy(learner)
    tasks = Episodes(Spoken(), "test", EpisodeDesign(3, (0, 1), 4), tasks=20, length=2)

    def lying(episode: Episode) -> Episode:
        names = episode.context.names.roll(1, dims=1)
        return episode._replace(context=episode.context._replace(names=names))

    def loss(episodes: list[Episode]) -> float:
        each = [found.likelihood.nll(answer_batch(found, e), e.query, e.context) for e in episodes]
        return float(torch.stack(each).mean())

    true = [tasks[0], tasks[1]]
    false = [lying(each) for each in true]
    with torch.no_grad():
        untold, plain = loss(false), loss(true)
        found.settle(true)
        honest, right = found.named_head.trust.clone(), loss(true)
        assert honest[0] >= 0.5
        assert right <= plain
        assert found.settle(false)
        assert found.named_head.trust.max() < 0.3
        assert loss(false) < untold
        # What was chosen is of the tasks given last, and says nothing of those before.
        found.settle(true)
        assert torch.equal(found.named_head.trust, honest)
        assert loss(true) == pytest.approx(right)


def test_who_reads_no_names_has_nothing_to_settle() -> None:
    tasks = Episodes(Spoken(), "test", EpisodeDesign(3, 1, 4), tasks=2)
    for options in ({}, {"names": True, "learner": MAML}):
        plain = MetaTransformer(VectorEncoder(3, width=8, layers=1), **options)
        with torch.no_grad():
            assert not plain.settle([tasks[0]])


def test_scores_by_shot_begin_without_examples_and_are_drawn(learner: MetaTransformer) -> None:
    contest = contest_of(learner, Spoken())
    found = scores_by_shot(contest, EpisodeDesign(3, 1, 4), episodes=20, shots=(0, 1, 2))
    assert list(found) == [0, 1, 2]
    assert set(found[0]) == {"learner", "before_adaptation"}
    assert "linear_head" in found[1]
    assert "<svg" in shot_chart(found, ["learner", "linear_head"])
    plain = contest_of(ProtoNet(VectorEncoder(3, width=8)), Spoken())
    assert list(scores_by_shot(plain, EpisodeDesign(3, 1, 4), episodes=4, shots=(0, 1))) == [1]


def test_who_reads_no_names_or_finds_none_is_refused(learner: MetaTransformer) -> None:
    plain = ProtoNet(VectorEncoder(3, width=8))
    for who, source in ((plain, Spoken()), (learner, Spoken(named=False))):
        with pytest.raises(DataError, match="known by the names of its classes alone"):
            evaluate(who, source, design=BARE, episodes=4)
    with pytest.raises(DataError, match="known by the names of its classes alone"):
        evaluate(learner, Spoken(), design=BARE, episodes=4, against=plain)


def test_what_is_unknown_before_adapting(learner: MetaTransformer) -> None:
    batch = Episodes(Spoken(), "test", EpisodeDesign(3, 1, 4), tasks=5)[0]
    hidden = batch._replace(context=batch.context._replace(names=batch.context.names[..., :0]))
    with torch.no_grad():
        named, nameless = (answer_batch(learner, each, adapted=False) for each in (batch, hidden))
    torch.testing.assert_close(named, nameless)


def test_a_learner_of_values_says_what_it_expects_of_any_task() -> None:
    torch.manual_seed(0)
    learner = TransformerNeuralProcess(RawEncoder(1), values=1, width=8, layers=1, heads=2)
    design = EpisodeDesign(way=1, shot=0, queries=6)
    scores = evaluate(learner, Sinusoid(), design=design, episodes=8)
    assert list(scores["baselines"]) == ["exact"]
    assert scores["mean"] == pytest.approx(scores["before_adaptation"]["mean"])


def test_until_it_is_chosen_names_known_by_heart_are_believed_little_but_for_training() -> None:
    episode = Episodes(Spoken(), "train", EpisodeDesign(3, (0, 1), 2), tasks=4)[0]
    for options, until in (({}, UNTIL_CHOSEN), ({"learner": MAML}, (1.0, 1.0))):
        torch.manual_seed(0)
        found = MetaTransformer(
            VectorEncoder(3, width=8, layers=1), names=True, left_out=0.0, shape="none", **options
        )
        nn.init.normal_(found.named_head.head[-1].weight)
        assert found.describer.words is not None
        found.describer.words.left_out = 0.0
        heads = []
        for training in (True, False):
            found.train(training)
            counts = counts_of(episode.support, 3)
            described = found.describe(episode.support, episode.context)
            memory, others = found.start.expand(4, -1, -1), torch.tensor([[0], [1], [2], [3]])
            heads.append(found.named_head(described, counts, memory, others))
        assert found.named_head.trust.tolist() == list(until)
        share = torch.tensor(until)[(counts > 0).long()][..., None]
        if not options:
            share = torch.where(counts[..., None] > 0, share, share / (1 + others[..., None]))
        torch.testing.assert_close(heads[1], share * heads[0])
        assert heads[0].abs().sum() > 0
