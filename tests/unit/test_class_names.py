"""Names of classes as weighted examples of them, in learners that are no Transformers themselves."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from named_tasks import Words, text_task
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import Pool, PoolSource, Split
from quickstudy.episode import Context, Episode, Examples, collate, without_support
from quickstudy.evaluation.contest import Contest, EncodedPool, score_tasks
from quickstudy.learners.closed_form import LinearHead
from quickstudy.learners.context import InContext
from quickstudy.learners.logistic import fit_logistic
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import VectorEncoder

close = torch.testing.assert_close
Named = type[LinearHead] | type[ProtoNet]
LEARNERS = pytest.mark.parametrize("kind", [LinearHead, ProtoNet])


def learner_of(kind: Named, *, names: bool = True, weight: float = 1.0) -> LinearHead | ProtoNet:
    torch.manual_seed(0)
    learner = kind(Words(), names=names).double()
    if names:
        torch.nn.init.constant_(learner.log_name_weight, math.log(weight))
    return learner.eval()


def answer(learner: LinearHead | ProtoNet, episode: Episode) -> Tensor:
    found = learner.predict(
        learner.adapt(episode.support, episode.context), episode.query.x, episode.context
    )
    return learner.likelihood.probabilities(found, episode.context)


@LEARNERS
def test_a_name_of_weight_two_is_two_examples(kind: Named) -> None:
    bare = text_task(torch.zeros(3, 0, dtype=torch.int64))
    deaf = learner_of(kind, names=False)
    plain = answer(deaf, collate([bare]))
    close(answer(learner_of(kind), collate([bare])), plain)
    named = bare._replace(names=torch.randint(20, (3, 4)))
    close(answer(deaf, collate([named])), plain)
    thrice = bare._replace(
        support_x=torch.cat([bare.support_x, named.names, named.names]),
        support_y=torch.cat([bare.support_y, torch.arange(3), torch.arange(3)]),
    )
    found = answer(learner_of(kind, weight=2.0), collate([named]))
    close(found, answer(deaf, collate([thrice])), atol=1e-9, rtol=1e-9)
    assert (found - plain).abs().max() > 1e-3


@LEARNERS
def test_a_class_without_a_name_has_none(kind: Named) -> None:
    learner = learner_of(kind)
    task = text_task(torch.randint(20, (3, 4)))
    partly = task._replace(names=task.names.index_fill(0, torch.tensor([1]), -1))
    again = task._replace(
        support_x=torch.cat([task.support_x, task.names[[0, 2]]]),
        support_y=torch.cat([task.support_y, torch.tensor([0, 2])]),
        names=torch.zeros(3, 0, dtype=torch.int64),
    )
    close(answer(learner, collate([partly])), answer(learner, collate([again])))
    # Beside a task of fewer classes, whose padding has no name either.
    two = Examples(torch.randint(20, (1, 4, 4)), torch.tensor([[0, 1, 0, 1]]), torch.ones(1, 4) > 0)
    fewer = task._replace(
        support_x=two.x[0],
        support_y=two.y[0],
        query_y=task.query_y % 2,
        way=2,
        names=task.names[:2],
    )
    close(answer(learner, collate([task, fewer]))[1, :, :2], answer(learner, collate([fewer]))[0])


@LEARNERS
def test_names_alone_are_answered_by_and_count_once(kind: Named) -> None:
    learner = learner_of(kind, weight=1.5)
    names = torch.tensor([[1], [5], [9]])
    episode = collate([text_task(names)._replace(query_x=names, query_y=torch.arange(3))])
    support, context = episode.support, episode.context
    unseen = learner.adapt(without_support(support), context)
    assert learner.predict(unseen, episode.query.x, context)[0].argmax(1).tolist() == [0, 1, 2]
    first, second = (
        Examples(*(part[:, half] for part in support)) for half in (slice(2), slice(2, None))
    )
    state = learner.adapt(second, context, learner.adapt(first, context))
    found = learner.likelihood.probabilities(
        learner.predict(state, episode.query.x, context), context
    )
    close(found, answer(learner, episode), atol=1e-9, rtol=1e-9)


@LEARNERS
def test_the_name_of_a_class_that_comes_later_counts_too(kind: Named) -> None:
    learner = learner_of(kind, weight=1.5)
    episode = collate([text_task(torch.randint(20, (3, 4)))])
    support, context = episode.support, episode.context
    late = support.y == 2
    fewer = context._replace(classes=context.classes[:, :2], names=context.names[:, :2])
    begun = learner.adapt(support._replace(mask=~late, y=support.y.clamp(max=1)), fewer)
    grown = learner.adapt(support._replace(mask=late), context, begun)
    found = learner.likelihood.probabilities(
        learner.predict(grown, episode.query.x, context), context
    )
    close(found, answer(learner, episode), atol=1e-9, rtol=1e-9)


@LEARNERS
def test_the_weight_of_names_is_learned(kind: Named) -> None:
    """Against central differences of the loss."""
    learner = learner_of(kind)
    episode = collate([text_task(torch.randint(20, (3, 4))) for _ in range(2)])
    slope = torch.autograd.grad(learner.query_loss(episode), learner.log_name_weight)[0]
    losses = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            learner.log_name_weight.copy_(torch.tensor(step))
            losses.append(learner.query_loss(episode))
    close((losses[0] - losses[1]) / 2e-5, slope, rtol=1e-6, atol=1e-9)
    assert slope.abs() > 1e-4


@LEARNERS
def test_only_an_encoder_of_texts_reads_names(kind: Named) -> None:
    with pytest.raises(ValueError, match="only to an encoder of texts, which VectorEncoder"):
        kind(VectorEncoder(2), names=True)


@pytest.mark.parametrize("shape", [(3, 4, 6), (4, 2, 20)])
def test_weighted_logistic_regression_is_that_of_scikit_learn(shape: tuple[int, int, int]) -> None:
    way, shot, width = shape
    x = torch.randn(way * shot, width, dtype=torch.float64)
    y = torch.arange(way).repeat(shot)
    counted = 0.2 + 3 * torch.rand(len(x), dtype=torch.float64)
    reference = LogisticRegression(C=5.0, tol=1e-12, max_iter=1000, solver="newton-cholesky")
    reference.fit(x.numpy(), y.numpy(), sample_weight=counted.numpy())
    context = Context(torch.ones(1, way) > 0, torch.zeros(1, 0), torch.zeros(1, way, 0))
    examples = Examples(x[None], y[None], counted[None])
    weights, bias = fit_logistic(examples, context, penalty=0.2, steps=32)
    asked = torch.randn(7, width, dtype=torch.float64)
    expected = torch.from_numpy(reference.predict_proba(asked.numpy()))
    close((asked @ weights[0] + bias[0]).softmax(1), expected, rtol=0, atol=1e-6)


class Topics(PoolSource):
    """Texts of three words about six topics, of which one has no name."""

    kind = "text"

    def pool(self, split: Split) -> Pool:
        generator = torch.Generator().manual_seed(3)
        names = torch.randint(20, (6, 2), generator=generator).index_fill(0, torch.tensor([4]), -1)
        x = torch.randint(20, (60, 3), generator=generator)
        return Pool(x, torch.full((6,), 10), list("abcdef"), torch.zeros(6).long(), [""], names)


@pytest.mark.parametrize("shot", [0, 2])
@pytest.mark.parametrize("kind", [LinearHead, ProtoNet, InContext])
def test_examples_and_names_are_encoded_once_for_all_tasks(
    kind: type[LinearHead | ProtoNet | InContext], shot: int
) -> None:
    torch.manual_seed(0)
    learner = kind(Words(), names=True).eval()
    contest = Contest(Topics(), split="test")
    contest.enter("learner", learner)
    design = EpisodeDesign(way=4, shot=shot, queries=3)
    found = contest.scores(design, 30)["learner"]
    plain = score_tasks(learner, list(Episodes(Topics(), "test", design, length=30)))
    close(found, plain)
    assert isinstance(contest.contestants["learner"].source, EncodedPool)
    assert found.var() > 0
