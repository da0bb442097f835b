"""Support examples without a label: what is learned from them, drawn, kept and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from test_source import Numbered, same
from test_support_apart import Apart
from torch import Tensor

from named_tasks import Words
from quickstudy.adapted import load_task, save_task
from quickstudy.answering import answer
from quickstudy.artifact import Artifact
from quickstudy.config import ConfigError, RunConfig, parse_config
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import DataError, DataNote
from quickstudy.data.synthetic import Sinusoid
from quickstudy.durable import ArtifactError
from quickstudy.episode import NO_LABEL, Context, Examples, Task, collate, tree_map
from quickstudy.estimator import FewShotClassifier
from quickstudy.evaluation import evaluate
from quickstudy.learners import LEARNERS, Learner
from quickstudy.learners.closed_form import LinearHead
from quickstudy.learners.logistic import fit_logistic
from quickstudy.learners.metric import ProtoNet
from quickstudy.learners.semi_supervised import TURNS, fit_semi_supervised
from quickstudy.learners.soft_prototypes import SoftPrototypes
from quickstudy.learning import begin_by_name, extend
from quickstudy.nn.encoders import RawEncoder, VectorEncoder
from quickstudy.training import train

close = torch.testing.assert_close
WAY = 3


def clusters(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Examples of three classes, (example, 5), that lie well apart where one knows all of them, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.eye(WAY, 5).double()
    y = torch.arange(count) % WAY
    noise = torch.randn(count, 5, generator=generator).double()
    return centres[y] + noise * torch.tensor([0.7, 0.7, 0.7, 2.0, 2.0]).double(), y


def context_of(way: int) -> Context:
    classes = torch.ones(1, way, dtype=torch.bool)
    return Context(classes, torch.zeros(1, 0), torch.zeros(1, way, 0))


def examples_of(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Examples:
    mask = torch.ones(len(y), dtype=torch.bool) if mask is None else mask
    return Examples(x[None], y[None], mask[None])


def by_scikit_learn(x: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    """Log-odds of the best head where an example counts for several classes: as many copies of it, weighed."""
    rows, classes = np.nonzero(target)
    head = LogisticRegression(C=1 / penalty, tol=1e-12, max_iter=100_000)
    head.fit(x[rows], classes, sample_weight=target[rows, classes])
    return np.asarray(head.decision_function(x))


def test_it_is_what_the_formula_says_with_the_fits_of_scikit_learn() -> None:
    x, y = clusters(24)
    bare = torch.arange(24) >= 6
    given = torch.where(bare, NO_LABEL, y)
    weights, bias = fit_semi_supervised(
        examples_of(x, given), context_of(WAY), penalty=0.3, steps=64
    )
    known = np.where(bare[:, None], 0, np.eye(WAY)[y])
    target, each = known, 6 / 18
    for _ in range(TURNS):
        logits = by_scikit_learn(x.numpy(), target, 0.3)[bare.numpy()]
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        sure = p**2 / (p**2).sum(1, keepdims=True)
        even = sure / np.sqrt(sure.sum(0))
        target = known.copy()
        target[bare.numpy()] = each * even / even.sum(1, keepdims=True)
    expected = torch.from_numpy(by_scikit_learn(x.numpy(), target, 0.3))
    found = x @ weights[0] + bias[0]
    close(
        found - found.mean(1, keepdim=True),
        expected - expected.mean(1, keepdim=True),
        atol=1e-4,
        rtol=0,
    )


def test_with_labels_only_it_is_logistic_regression() -> None:
    x, y = clusters(12)
    pair = [
        fit(examples_of(x, y), context_of(WAY), penalty=0.1, steps=32)
        for fit in (fit_semi_supervised, fit_logistic)
    ]
    assert all(torch.equal(*each) for each in zip(*pair, strict=True))


def accuracy(learner: Learner, x: Tensor, y: Tensor) -> float:
    asked, truth = clusters(300, seed=9)
    state = learner.adapt(examples_of(x, y), context_of(WAY))
    found = learner.predict(state, asked[None], context_of(WAY))[0].argmax(1)
    return (found == truth).double().mean().item()


@pytest.mark.parametrize("name", ["linear_head", "fine_tune", "soft_prototypes"])
def test_examples_without_a_label_help(name: str) -> None:
    gained = []
    for seed in range(8):
        x, y = clusters(93, seed)
        learner = LEARNERS[name](RawEncoder(5))
        alone = accuracy(learner, x[:3], y[:3])
        gained.append(accuracy(learner, x, torch.where(torch.arange(93) < 3, y, NO_LABEL)) - alone)
    assert sum(gained) / len(gained) > 0.05
    assert min(gained) > -0.02


@pytest.mark.parametrize("distractors", [False, True])
def test_soft_prototypes_are_the_steps_of_k_means(distractors: bool) -> None:
    x, y = clusters(30)
    given = torch.where(torch.arange(30) < 6, y, NO_LABEL)
    learner = SoftPrototypes(
        RawEncoder(5), distance="euclidean", refinements=3, distractors=distractors
    ).double()
    learner.log_temperature.data.fill_(np.log(10.0))  # which float32 rounded
    if distractors:
        assert learner.threshold is not None
        learner.threshold.data.fill_(-20.0)
    found = learner.adapt(examples_of(x, given), context_of(WAY)).prototypes[0].detach().numpy()
    rows, known = x.numpy(), np.eye(WAY)[y[:6]]
    centres = np.stack([rows[:6][y[:6] == c].mean(0) for c in range(WAY)])
    for _ in range(3):
        logits = -10 * ((rows[6:, None] - centres) ** 2).sum(-1) / 5
        shares = np.exp(logits)
        others = np.exp(-20.0) if distractors else 0.0
        shares = shares / (shares.sum(1, keepdims=True) + others)
        weight = np.concatenate([known, shares])
        centres = weight.T @ rows / weight.sum(0)[:, None]
    np.testing.assert_allclose(found, centres, rtol=1e-9)


@pytest.mark.parametrize("name", ["linear_head", "fine_tune", "soft_prototypes"])
def test_a_class_that_no_label_names_is_never_guessed_and_nothing_is_learned_without_any(
    name: str,
) -> None:
    x, y = clusters(30)
    given = torch.where((torch.arange(30) < 6) & (y < 2), y, NO_LABEL)
    learner = LEARNERS[name](RawEncoder(5)).double()
    state = learner.adapt(examples_of(x, given), context_of(WAY))
    found = learner.predict(state, x[None], context_of(WAY))[0]
    assert (found.argmax(1) < 2).all()
    none = learner.adapt(examples_of(x, torch.full((30,), NO_LABEL)), context_of(WAY))
    outputs = learner.predict(none, x[None], context_of(WAY))
    assert (outputs == outputs[..., :1]).all()


@given(
    counts=st.lists(st.integers(3, 7), min_size=3, max_size=6),
    unlabelled=st.integers(1, 25),
    seed=st.integers(0, 100),
)
def test_what_is_drawn_beside_is_of_the_tasks_classes_and_nowhere_else_in_it(
    counts: list[int], unlabelled: int, seed: int
) -> None:
    source = Numbered(counts)
    design = EpisodeDesign((2, 3), (1, 2), 1)
    more = EpisodeDesign((2, 3), (1, 2), 1, unlabelled=unlabelled)
    plain = Episodes(source, "test", design, tasks=4, length=2, seed=seed)
    drawn = Episodes(source, "test", more, tasks=4, length=2, seed=seed)
    one, two = plain.drawn(1), drawn.drawn(1)
    assert two.unlabelled is not None
    assert all(torch.equal(*each) for each in zip(one[:5], two[:5], strict=True))
    for task in range(4):
        rows = two.unlabelled[task]
        rows = rows[rows >= 0].tolist()
        way = int(two.ways[task]) if two.ways is not None else 3
        taken = torch.cat([two.support[task], two.query[task]], 1)
        classes = two.classes[task, :way].tolist()
        of_task = {
            row
            for each in classes
            for row in range(
                int(source.fixed.starts[each]), int(source.fixed.starts[each]) + counts[each]
            )
        }
        left = of_task - set(taken[:way].flatten().tolist())
        assert len(set(rows)) == len(rows) == min(unlabelled, len(left))
        assert set(rows) <= left
    before, after = plain[1], drawn[1]
    assert same(before.query, after.query)
    shown, count = before.support.y.shape[1], two.unlabelled.shape[1]
    assert (after.support.y[:, shown:] == NO_LABEL).all()
    assert torch.equal(after.support.mask[:, shown:], two.unlabelled >= 0)
    assert after.support.y.shape[1] == shown + count
    assert same(tree_map(lambda leaf: leaf[:, :shown], after.support), before.support)


def test_rows_that_are_for_queries_only_are_not_drawn_beside() -> None:
    source = Apart([(4, 3), (5, 2)])
    design = EpisodeDesign(2, 1, 2, unlabelled=99)
    found = Episodes(source, "test", design, tasks=3, length=1).drawn(0).unlabelled
    assert found is not None
    assert [sorted(row[row >= 0].tolist()) for row in found] == [
        sorted({0, 1, 2, 3, 7, 8, 9, 10, 11} - set(rows.flatten().tolist()))
        for rows in Episodes(source, "test", design, tasks=3, length=1).drawn(0).support
    ]


def test_distractors_are_of_classes_that_the_task_has_not() -> None:
    source = Numbered([6] * 5)
    design = EpisodeDesign(2, 1, 1, unlabelled=99, distractors=2)
    drawn = Episodes(source, "test", design, tasks=6, length=1).drawn(0)
    assert drawn.unlabelled is not None
    for task, rows in enumerate(drawn.unlabelled):
        own = set(drawn.classes[task].tolist())
        classes = (rows[rows >= 0] // 6).bincount(minlength=5).tolist()
        assert sorted(classes) == [0, 4, 4, 6, 6]
        assert {place for place, count in enumerate(classes) if count == 4} == own
    with pytest.raises(DataError, match="need 6 classes"):
        Episodes(source, "test", EpisodeDesign(2, 1, 1, unlabelled=9, distractors=4))


def test_without_labelled_examples_those_without_a_label_are_still_there() -> None:
    source = Numbered([5, 5, 5])
    support = Episodes(source, "test", EpisodeDesign(2, 0, 1, unlabelled=4), tasks=2)[0].support
    assert (support.mask == (support.y == NO_LABEL)).all()
    assert support.mask.sum(1).tolist() == [4, 4]


def test_a_world_has_none_to_draw() -> None:
    with pytest.raises(DataError, match="7 examples without a label"):
        Episodes(Sinusoid(), "test", EpisodeDesign(1, 5, 5, unlabelled=7))


def made(learner: Learner) -> Artifact:
    config = RunConfig(data="numbers", encoder={"name": "vector", "inputs": 5})
    return Artifact(learner.eval(), config, {}, "0123456789abcdef", None)


def test_a_task_learns_from_them_is_kept_and_learns_on(tmp_path: Path) -> None:
    artifact = made(LinearHead(VectorEncoder(5, width=8, layers=1).double()))
    x, y = clusters(30)
    names = [f"class {each}" for each in y.tolist()]
    mixed = extend(artifact, None, x, [*names[:6], *[None] * 24])
    assert (mixed.examples, mixed.unlabelled, len(mixed.seen)) == (6, 24, 6)
    first = extend(artifact, None, x[:6], names[:6])
    save_task(tmp_path / "a.task", extend(artifact, first, x[6:], [None] * 24))
    again = load_task(tmp_path / "a.task", artifact)
    assert (again.examples, again.unlabelled) == (6, 24)
    close(answer(artifact, again, x), answer(artifact, mixed, x))
    assert not torch.allclose(answer(artifact, first, x), answer(artifact, mixed, x), atol=1e-3)


def test_an_example_that_has_its_label_is_not_counted_twice() -> None:
    artifact = made(LinearHead(VectorEncoder(5, width=8, layers=1).double()))
    x, y = clusters(9)
    names = [f"class {each}" for each in y.tolist()]
    once = extend(artifact, None, x, [*names[:6], *[None] * 3])
    twice = extend(artifact, None, torch.cat([x, x[:6]]), [*names[:6], *[None] * 9])
    assert (twice.examples, twice.unlabelled) == (once.examples, once.unlabelled) == (6, 3)
    close(answer(artifact, twice, x), answer(artifact, once, x))
    later = extend(artifact, extend(artifact, None, x[:6], names[:6]), x, [None] * 9)
    assert (later.examples, later.unlabelled) == (6, 3)
    close(answer(artifact, later, x), answer(artifact, once, x))
    with pytest.raises(ArtifactError, match="knows each of the 2 examples without a label"):
        extend(artifact, once, x[:2], [None, None])


def test_what_a_task_learned_as_another_class_before_is_named(tmp_path: Path) -> None:
    artifact = made(ProtoNet(VectorEncoder(5, width=8, layers=1).double()))
    x, _ = clusters(4)
    save_task(tmp_path / "a.task", extend(artifact, None, x, ["a", "b", "a", "b"]))
    task = load_task(tmp_path / "a.task", artifact)
    said = r"learned example 2 as 'b' before, and now it is 'a' \(1 more such\)\. Both are kept"
    with pytest.warns(DataNote, match=said):
        more = extend(artifact, task, x[[0, 1, 2]], ["a", "a", "b"])
    assert more.examples == 7
    assert extend(artifact, task, x[:2], ["a", "b"]).taught == [*"abab", *"ab"]


def test_who_learns_nothing_from_them_says_so() -> None:
    x, y = clusters(6)
    labels = [*(f"class {each}" for each in y.tolist()[:5]), None]
    with pytest.raises(
        ArtifactError,
        match=r"protonet learns nothing; .*\(fine_tune, linear_head, soft_prototypes\)",
    ):
        extend(made(ProtoNet(VectorEncoder(5, width=8, layers=1).double())), None, x, labels)
    with pytest.raises(ArtifactError, match="None of the 6 examples has a label"):
        extend(made(LinearHead(RawEncoder(5))), None, x, [None] * 6)


def test_names_and_examples_without_a_label_are_enough() -> None:
    torch.manual_seed(0)
    encoder = Words()
    artifact = made(LinearHead(encoder, names=True))
    begun = begin_by_name(artifact, ["red", "blue"])
    tokens = encoder.tokenize(["red car", "blue sea", "blue sky", "red sun"])
    more = extend(artifact, begun, tokens, [None] * 4)
    assert (more.examples, more.unlabelled) == (0, 4)
    assert not torch.allclose(answer(artifact, begun, tokens), answer(artifact, more, tokens))


def test_the_estimator_takes_them_with_labels_and_without() -> None:
    x, y = (each.numpy() for each in clusters(60))
    artifact = made(LinearHead(VectorEncoder(5, width=8, layers=1)))
    one = FewShotClassifier(artifact).fit(x[:6], y[:6], unlabelled=x[6:])
    two = FewShotClassifier(artifact).fit(x[:6], y[:6]).partial_fit(unlabelled=x[6:])
    np.testing.assert_allclose(one.predict_proba(x), two.predict_proba(x), atol=1e-5)
    plain = FewShotClassifier(artifact).fit(x[:6], y[:6])
    assert abs(one.predict_proba(x) - plain.predict_proba(x)).max() > 0.01
    three = FewShotClassifier(artifact).fit(x[:3], y[:3], unlabelled=x[6:])
    three.partial_fit(x[3:6], y[3:6])
    assert (three.task_.examples, three.task_.unlabelled) == (6, 54)


def test_an_evaluation_says_what_they_are_worth() -> None:
    source = Numbered([20] * 5)
    found = evaluate(
        LinearHead(RawEncoder(2)), source, design=EpisodeDesign(3, 1, 3, unlabelled=12), episodes=9
    )
    assert found["unlabelled"] == 12
    without = found["ablations"]["without_unlabelled"]
    assert without["difference"]["mean"] == pytest.approx(found["mean"] - without["mean"])
    plain = evaluate(LinearHead(RawEncoder(2)), source, design=EpisodeDesign(3, 1, 3), episodes=9)
    assert without["mean"] == plain["mean"]
    # Who cannot use them is not given them.
    other = evaluate(
        ProtoNet(RawEncoder(2)), source, design=EpisodeDesign(3, 1, 3, unlabelled=12), episodes=9
    )
    assert other["ablations"]["without_unlabelled"]["difference"]["mean"] == 0


def test_training_tasks_may_have_them_and_some_learners_refuse(tmp_path: Path) -> None:
    options = {
        "data": "glyphs",
        "learner": "linear_head",
        "encoder": {"name": "image", "width": 8, "layers": 1, "heads": 2, "size": 28},
        "episode": {"way": 3, "shot": 1, "queries": 2, "unlabelled": 6},
        "validation": {"way": 3, "queries": 2, "episodes": 2, "unlabelled": 6},
        "training": {"steps": 2},
    }
    artifact = train(parse_config(options), tmp_path / "run")
    assert artifact.config.episode.unlabelled == 6
    with pytest.raises(ConfigError, match="6 examples without a label, from which the learner"):
        train(parse_config({**options, "learner": "protonet"}), tmp_path / "other")


def test_one_task_of_a_batch_may_have_none() -> None:
    x, y = clusters(12)
    given = torch.where(torch.arange(12) < 6, y, NO_LABEL)
    tasks = [
        Task(x, given, x, y, way=WAY),
        Task(x[:6], y[:6], x, y, way=WAY),
    ]
    learner = LinearHead(RawEncoder(5))
    both = collate(tasks)
    state = learner.adapt(both.support, both.context)
    found = learner.predict(state, both.query.x, both.context)
    for place, task in enumerate(tasks):
        one = collate([task])
        alone = learner.predict(learner.adapt(one.support, one.context), one.query.x, one.context)
        close(found[place], alone[0], rtol=1e-9, atol=1e-9)
