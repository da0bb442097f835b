"""Queries of no class: scores against their formulas, thresholds from held-out classes, and all the ways to ask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from learner_table import ROWS
from quickstudy.answering import judge
from quickstudy.artifact import (
    Artifact,
    ArtifactError,
    answer,
    extend,
    keep_rejection,
    load_artifact,
    load_task,
    save_artifact,
    save_task,
)
from quickstudy.config import RunConfig
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import DataError, Pool, PoolSource, Split
from quickstudy.data.synthetic import Sinusoid
from quickstudy.episode import Context, Examples
from quickstudy.estimator import FewShotClassifier
from quickstudy.evaluation.asking import Asked, ask, leave_out
from quickstudy.evaluation.unknown import area, evaluate_unknown, fit_rejection, threshold_of
from quickstudy.learners import LEARNERS
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import RawEncoder, VectorEncoder
from quickstudy.rejection import PRIOR, SCORES, Embedded, Rejection, output_scores, rejection_in

close = torch.testing.assert_close
SHAPE = EpisodeDesign(5, 3, 4)


class Clouds(PoolSource):
    """Classes are points in a few dimensions, examples lie around them."""

    kind = "vector"

    def __init__(self, classes: int = 20, each: int = 10, noise: float = 0.5) -> None:
        self.classes, self.each, self.noise = classes, each, noise

    def pool(self, split: Split) -> Pool:
        generator = torch.Generator().manual_seed(["train", "validation", "test"].index(split))
        centres = torch.randn(self.classes, 1, 6, generator=generator)
        around = torch.randn(self.classes, self.each, 6, generator=generator)
        return Pool(
            x=(centres + self.noise * around).flatten(0, 1),
            counts=torch.full((self.classes,), self.each),
            class_names=[f"{split} {each}" for each in range(self.classes)],
            groups=torch.zeros(self.classes, dtype=torch.int64),
            group_names=["all"],
        )


def near() -> ProtoNet:
    """The nearest mean of the numbers themselves."""
    return ProtoNet(RawEncoder(6), distance="euclidean").eval()


# Scores


def test_scores_of_outputs_are_their_formulas() -> None:
    logits = torch.randn(2, 5, 4, dtype=torch.float64)
    classes = torch.tensor([[True] * 4, [True, True, True, False]])
    context = Context(classes, torch.zeros(2, 0), torch.zeros(2, 4, 0))
    found = output_scores(logits, context)
    for task, way in enumerate((4, 3)):
        own = logits[task, :, :way]
        close(found["probability"][task], 1 - own.softmax(-1).max(-1).values)
        close(found["similarity"][task], -own.max(-1).values)
        close(found["energy"][task], -own.exp().sum(-1).log())


def test_the_distance_is_a_loop_over_classes_and_features() -> None:
    generator = torch.Generator().manual_seed(0)
    z, asked = (torch.randn(1, n, 3, generator=generator).double() for n in (7, 4))
    labels = torch.tensor([[0, 0, 0, 1, 1, 2, 0]])
    mask = torch.tensor([[True] * 6 + [False]])
    prior = torch.tensor([0.5, 1.0, 2.0]).double()
    own = z[0, :6], labels[0, :6]
    means = torch.stack([own[0][own[1] == way].mean(0) for way in range(3)])
    spread = (own[0] - means[own[1]]).square().sum(0)
    variances = (PRIOR * prior + spread) / (PRIOR + 6 - 3)
    expected = torch.stack([((asked[0] - mean).square() / variances).mean(1) for mean in means])
    learned = Embedded.of(z, Examples(z, labels, mask), 4)
    close(learned.distances(asked, prior)[0], expected.min(0).values)
    parts = [
        Embedded.of(z[:, which], Examples(z[:, which], labels[:, which], mask[:, which]), 4)
        for which in (slice(0, 2), slice(2, 7))
    ]
    close(parts[1].and_more(parts[0]).distances(asked, prior)[0], expected.min(0).values)


def asked_of(known: torch.Tensor, unknown: torch.Tensor) -> Asked:
    """As if a learner had given these scores (task, query)."""
    scores = torch.cat([known, unknown], 1).double()
    which = torch.arange(scores.shape[1]).expand(len(scores), -1) < known.shape[1]
    return Asked(dict.fromkeys(SCORES, scores), which, which, torch.ones_like(which), torch.ones(1))


def test_the_area_is_that_of_scikit_learn_with_ties_and_all() -> None:
    known, unknown = torch.randint(0, 8, (6, 10)), torch.randint(2, 11, (6, 7))
    asked = asked_of(known, unknown)
    expected = roc_auc_score((~asked.known).flatten(), asked.scores["energy"].flatten())
    assert area(asked, "energy").mean().item() == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_the_area_covers_the_truth() -> None:
    """Scores of N(0, 1) and N(1, 1), all of a task shifted alike: the area is known, queries are not independent."""
    truth = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(1 / (2 * 1.5**2) ** 0.5)).item()
    covered = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        shift = 1.25**0.5 * torch.randn(40, 1, generator=generator)
        own = [shift + torch.randn(40, 5, generator=generator) for _ in "ab"]
        values = area(asked_of(own[0], own[1] + 1), "energy")
        half = 2.02 * values.std().item() / 40**0.5
        covered.append(abs(values.mean().item() - truth) <= half)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_a_threshold_keeps_the_share_of_scores_that_it_promises() -> None:
    asked = asked_of(torch.arange(1, 100)[None], torch.zeros(1, 1))
    assert threshold_of(asked, "energy", 0.95) == 95
    assert threshold_of(asked, "energy", 0.5) == 50
    assert threshold_of(asked, "energy", 0.999) == 99


# Tasks with classes left out


def test_leaving_classes_out_takes_their_support_and_keeps_their_queries() -> None:
    episode = Episodes(Clouds(), "validation", EpisodeDesign((4, 6), (1, 3), 2), tasks=8)[0]
    left, known = leave_out(episode, 2)
    ways = episode.context.classes.sum(1) - 2
    assert torch.equal(left.context.classes.sum(1), ways)
    for task, way in enumerate(ways.tolist()):
        before, after = episode.support.y[task], left.support.mask[task]
        assert torch.equal(after, episode.support.mask[task] & (before < way))
        assert torch.equal(known[task], episode.query.mask[task] & (episode.query.y[task] < way))
    assert torch.equal(left.query.mask, episode.query.mask)
    near().adapt(left.support, left.context)


OF_CLASSES = {row.name: row for row in reversed(ROWS) if not row.values}
"""The first row of each learner that answers classes."""


@pytest.mark.parametrize("name", OF_CLASSES)
def test_every_learner_of_classes_tells_unknown_queries_from_known_ones(name: str) -> None:
    torch.manual_seed(0)
    learner = OF_CLASSES[name].build(VectorEncoder(6, width=64, layers=0)).eval()
    asked = ask(learner, Clouds(noise=0.2), split="validation", design=SHAPE, episodes=12)
    assert asked.asked.all()
    assert asked.known.sum(1).tolist() == [20] * 12
    areas = {score: area(asked, score).mean().item() for score in SCORES}
    assert areas["mahalanobis"] > 0.9
    assert max(areas.values()) > 0.8


def test_the_score_is_chosen_and_the_threshold_learned_from_held_out_classes() -> None:
    source, learner = Clouds(classes=60), near()
    rejection = fit_rejection(learner, source, design=SHAPE, episodes=200, seed=3)
    again = fit_rejection(learner, source, design=SHAPE, episodes=200, seed=3)
    assert rejection == again
    assert (rejection.split, rejection.way, rejection.shot) == ("validation", 5, 3)
    found = evaluate_unknown(learner, source, rejection, design=SHAPE, episodes=200)
    assert found["auroc"]["mean"] > 0.85
    assert found["auroc"]["mean"] == pytest.approx(found["auroc_by_score"][rejection.score])
    assert found["kept"]["mean"] == pytest.approx(0.95, abs=0.02)
    assert found["refused"]["mean"] > 0.4
    assert found["accuracy"]["mean"] <= found["accuracy_without"]["mean"]
    assert found["fpr_at_95"]["mean"] == pytest.approx(1 - found["refused"]["mean"], abs=0.1)


@pytest.mark.parametrize("score", SCORES)
def test_a_score_may_be_named(score: str) -> None:
    rejection = fit_rejection(near(), Clouds(), design=SHAPE, episodes=8, score=score)
    assert rejection.score == score
    assert len(rejection.variances) == (6 if score == "mahalanobis" else 0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"split": "test"}, ValueError, "found the split 'test', which only judges it"),
        ({"share_kept": 1.0}, ValueError, "between 0 and 1; found 1.0"),
        ({"score": "entropy"}, ValueError, "mahalanobis; found 'entropy'"),
        (
            {"design": EpisodeDesign(20, 1, 4)},
            DataError,
            "the validation split has 20 with 5 examples or more, and at least 21 are needed",
        ),
    ],
)
def test_what_cannot_be_learned_is_said(changes: dict, error: type, message: str) -> None:
    options = {"design": SHAPE, "episodes": 4} | changes
    with pytest.raises(error, match=message):
        fit_rejection(near(), Clouds(), **options)


def test_numbers_are_of_no_class() -> None:
    learner = LEARNERS["maml"](VectorEncoder(1), values=1)
    with pytest.raises(DataError, match="Only a learner of classes"):
        fit_rejection(learner, Sinusoid(), design=EpisodeDesign(1, 5, 5), episodes=4)


# Artifacts, tasks and estimators


@pytest.fixture(params=["similarity", "mahalanobis"])
def artifact(request: pytest.FixtureRequest, tmp_path: Path) -> Artifact:
    """On disk, with a threshold learned from clouds."""
    torch.manual_seed(0)
    learner = ProtoNet(VectorEncoder(6, width=32, layers=0), distance="euclidean")
    config = RunConfig(
        data="numbers",
        encoder={"name": "vector", "inputs": 6, "width": 32, "layers": 0},
        learner={"name": "protonet", "distance": "euclidean"},
    )
    fresh = save_artifact(tmp_path / "artifact", learner, config, {})
    rejection = fit_rejection(
        fresh.learner, Clouds(noise=0.2), design=SHAPE, episodes=50, score=request.param
    )
    keep_rejection(fresh, rejection)
    loaded = load_artifact(tmp_path / "artifact")
    assert rejection_in(loaded.facts) == rejection
    assert loaded.id == fresh.id
    return loaded


def examples(way: int = 4, each: int = 6) -> tuple[torch.Tensor, list[str]]:
    """Of the first classes of the test split."""
    pool = Clouds(noise=0.2).pool("test")
    x = torch.cat([pool.of_class(which)[:each] for which in range(way)])
    return x, [name for name in pool.class_names[:way] for _ in range(each)]


def test_a_task_refuses_what_is_far_from_all_its_classes(
    artifact: Artifact, tmp_path: Path
) -> None:
    x, labels = examples()
    task = extend(artifact, None, x[::2], labels[::2])
    task = extend(artifact, task, x[1::2], labels[1::2])
    at_once = extend(artifact, None, x, labels)
    save_task(tmp_path / "one.task", task)
    task = load_task(tmp_path / "one.task", artifact)
    asked = torch.cat([Clouds(noise=0.2).pool("test").of_class(which)[6:] for which in range(8)])
    found, other = judge(artifact, task, asked), judge(artifact, at_once, asked)
    close(found.scores, other.scores, rtol=1e-4, atol=1e-5)
    close(found.probabilities, answer(artifact, task, asked))
    assert found.unknown[16:].double().mean() > 0.8
    assert found.unknown[:16].double().mean() < 0.3
    nothing = judge(artifact, task, asked[:0])
    assert [len(part) for part in nothing] == [0, 0, 0]


def test_a_classifier_answers_none_where_it_refuses(artifact: Artifact) -> None:
    x, labels = examples()
    classifier = FewShotClassifier(artifact).fit(x.numpy(), labels)
    far = np.full((1, 6), 50.0)
    X = np.concatenate([x.numpy(), far])
    plain, careful = classifier.predict(X), classifier.predict(X, reject=True)
    assert careful[-1] is None
    assert isinstance(plain[-1], str)
    kept = np.array([each is not None for each in careful])
    assert (careful[kept] == plain[kept]).all()
    scores = classifier.unknown_score(X)
    assert scores.shape == (25,)
    assert scores.argmax() == 24
    assert ((scores > rejection_in(artifact.facts).threshold) == ~kept).all()


def test_without_a_threshold_the_way_to_one_is_said(artifact: Artifact) -> None:
    plain = Artifact(artifact.learner, artifact.config, {}, id=artifact.id, path=artifact.path)
    x, labels = examples()
    task = extend(plain, None, x, labels)
    with pytest.raises(ArtifactError, match=r"quickstudy evaluate .*artifact --unknown"):
        judge(plain, task, x)
    if rejection_in(artifact.facts).score == "mahalanobis":
        with pytest.raises(ArtifactError, match="adapt it anew"):
            judge(artifact, task, x)
        with pytest.raises(ArtifactError, match="adapt it anew"):
            judge(artifact, extend(artifact, task, x, labels), x)


def test_a_rejection_survives_json() -> None:
    one = Rejection("mahalanobis", 0.5, 0.95, (2, 5), 1, "train", (1.0, 2.0))
    facts = {
        "rejection": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in one.as_json().items()
        }
    }
    assert rejection_in(facts) == one
    assert rejection_in({}) is None
