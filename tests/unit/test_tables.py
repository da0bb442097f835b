"""Tables inside the model: columns and their measures, the classical rules against the truth, and invented tables."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import DataError
from quickstudy.data.tables import InventedTables
from quickstudy.episode import Context, Episode, Examples, Task, collate
from quickstudy.evaluation import evaluate
from quickstudy.learners import classical
from quickstudy.learners.table_rules import evidence_of, fit, seen_of
from quickstudy.learners.tables import Tables
from quickstudy.nn.tables import Columns, TableEncoder, cells_of, columns_of

close = torch.testing.assert_close
NAN = math.nan


def learner_of(values: int = 0) -> Tables:
    torch.manual_seed(0)
    learner = Tables(TableEncoder(), width=8, layers=2, heads=2, values=values).double()
    with torch.no_grad():
        learner.read.weight.normal_(std=0.1)
    return learner.eval()


def table(
    rows: int = 20, columns: int = 3, way: int = 3, queries: int = 7, seed: int = 0
) -> Episode:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(rows + queries) % way
    x = torch.randn(rows + queries, columns, generator=generator, dtype=torch.float64)
    x[:, 0] += y
    return collate([Task(x[:rows], y[:rows], x[rows:], y[rows:], way=way)])


def answer(learner: Tables, episode: Episode) -> Tensor:
    with torch.no_grad():
        state = learner.adapt(episode.support, episode.context)
        return learner.predict(state, episode.query.x, episode.context)


def changed(episode: Episode, change) -> Episode:
    """The same tasks with the rows of both sets changed."""
    support, query, context = episode
    return Episode(
        support._replace(x=change(support.x)), query._replace(x=change(query.x)), context
    )


# Columns


def test_columns_are_measured_by_what_is_known_of_the_support() -> None:
    x = torch.tensor([[[1.0, 5.0, NAN], [3.0, 5.0, NAN], [NAN, 5.0, 2.0], [99.0, 0.0, 7.0]]])
    found = columns_of(x, torch.tensor([[True, True, True, False]]))
    assert found.useful.tolist() == [[True, False, False]]
    assert (found.mean * found.size)[0, 0, 0] == 2
    assert (found.scale * found.size)[0, 0, 0] == pytest.approx(1)
    cells = cells_of(x, found)
    assert cells.missing[0].tolist()[0] == [False, False, True]
    assert cells.plain[0, :, 1:].abs().max() == 0
    assert cells.plain[0, 2, 0] == 0


def test_ranks_are_normal_quantiles_and_ties_share_theirs() -> None:
    x = torch.tensor([[[1.0], [1.0], [2.0], [9.0]]], dtype=torch.float64)
    ranked = cells_of(x, columns_of(x, torch.ones(1, 4, dtype=torch.bool))).ranked[0, :, 0]
    expected = torch.special.ndtri(torch.tensor([1.5, 1.5, 3.0, 4.0], dtype=torch.float64) / 5)
    close(ranked, expected)


def test_numbers_of_any_size_stay_finite() -> None:
    x = torch.tensor([[[1e300, 1e-300], [-1e300, 2e-300], [0.0, 0.0]]], dtype=torch.float64)
    cells = cells_of(x, columns_of(x, torch.ones(1, 3, dtype=torch.bool)))
    assert cells.plain.isfinite().all()
    assert cells.plain.abs().amax(1).min() > 0.5
    # What is farther off than any number can say is not nearer than what is not.
    beyond = cells_of(torch.tensor([[[5e299, 1e300]]], dtype=torch.float64), _columns_of_two())
    assert (beyond.plain > 4.9).all()


def _columns_of_two() -> Columns:
    x = torch.tensor([[[1e-200, 1e-5], [3e-200, 2e-5]]], dtype=torch.float64)
    return columns_of(x, torch.ones(1, 2, dtype=torch.bool))


def test_another_number_of_columns_than_before_is_refused() -> None:
    learner, episode = learner_of(), table()
    state = learner.adapt(episode.support, episode.context)
    narrow = episode.support._replace(x=episode.support.x[..., :2])
    for attempt in (
        lambda: learner.predict(state, narrow.x, episode.context),
        lambda: learner.adapt(narrow, episode.context, state),
    ):
        with pytest.raises(ValueError, match="Found 2 columns, but the task was begun with 3"):
            attempt()


def test_rules_are_fitted_for_each_level_of_noise() -> None:
    learner = Tables(TableEncoder(), width=8, layers=1, heads=2, values=1, noises=(0.1, 1.0, 10.0))
    assert learner.prior_belief.shape == (3 * classical.KERNELS,)
    episode = table()
    support = episode.support._replace(y=episode.support.x[..., :1] * 2)
    context = episode.context._replace(classes=torch.ones(1, 1, dtype=torch.bool))
    outputs = answer(learner.double(), Episode(support, episode.query, context))
    error = outputs[..., :1] - 2 * episode.query.x[..., :1]
    assert error.abs().mean() < 0.3
    with pytest.raises(ValueError, match=r"noises must be positive numbers; found \[0.0\]"):
        Tables(TableEncoder(), noises=(0.0,))


# Rules


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    episode = table(rows=40, way=2)
    x, y = episode.support.x, episode.support.y
    weights, _ = classical.logistic(x, torch.stack([1 - y, y], -1).double(), episode.support.mask)
    for place, penalty in enumerate(classical.PENALTIES):
        peer = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=1000).fit(x[0], y[0])
        close(weights[0, 1, place, :-1], torch.tensor(peer.coef_[0]), rtol=1e-2, atol=1e-3)
        close(weights[0, 0], -weights[0, 1], rtol=1e-6, atol=1e-8)


def test_left_out_evidence_is_close_to_fitting_without_the_example() -> None:
    episode = table(rows=40, way=2)
    x, mask = episode.support.x, episode.support.mask
    targets = torch.nn.functional.one_hot(episode.support.y, 2).double()
    weights, left_out = classical.logistic(x, targets, mask, (1.0,))
    inside = (x @ weights[0, 1, 0, :-1] + weights[0, 1, 0, -1])[0]
    truth = []
    for i in range(40):
        rest = torch.arange(40) != i
        without, _ = classical.logistic(x[:, rest], targets[:, rest], mask[:, rest], (1.0,))
        truth.append(x[0, i] @ without[0, 1, 0, :-1] + without[0, 1, 0, -1])
    error = (left_out[0, 1, 0] - torch.stack(truth)).abs().mean()
    assert error < 0.35 * (inside - torch.stack(truth)).abs().mean()


def test_left_out_answers_of_a_kernel_are_exact() -> None:
    episode = table(rows=12)
    cells = cells_of(episode.support.x, columns_of(episode.support.x, episode.support.mask))
    kernel = classical.kernels(cells, cells, torch.ones(1, 3, dtype=torch.bool))
    targets = torch.randn(1, 12, 1, dtype=torch.float64)
    targets = targets - targets.mean(1, keepdim=True)
    dual, shift, left_out = classical.kernel_ridge(kernel, targets, episode.support.mask)
    close(dual.sum(-1), torch.zeros_like(shift), atol=1e-9, rtol=0)
    middle = torch.eye(12, dtype=torch.float64) - 1 / 12
    for which in range(classical.KERNELS):
        centred = middle @ kernel[0, which] @ middle
        for place, noise in enumerate(classical.NOISES):
            rule = which * len(classical.NOISES) + place
            fitted = kernel[0, which] @ dual[0, 0, rule] - shift[0, 0, rule]
            close(fitted, centred @ dual[0, 0, rule])
            for i in range(12):
                rest = torch.arange(12) != i
                gram = centred[rest][:, rest] + noise * torch.eye(11, dtype=torch.float64)
                said = centred[i, rest] @ torch.linalg.solve(gram, targets[0, rest, 0])
                close(left_out[0, 0, rule, i], said)


def test_evidence_is_log_odds() -> None:
    """Rules that are calibrated on what they did not see are, on average, as sure as they are right."""
    world = InventedTables(columns=5, fewest_columns=5)
    episode = Episodes(
        world, "validation", EpisodeDesign(way=2, shot=80, queries=200), tasks=30, seed=3
    )[0]
    seen = seen_of(episode.support, episode.context, of_values=False)
    rules, _ = fit(seen)
    said = evidence_of(rules, seen, cells_of(episode.query.x, seen.columns)).mean(2)[:, 1].sigmoid()
    right = episode.query.y.double()
    for low, high in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)):
        kept = episode.query.mask & (said > low) & (said <= high)
        assert abs(said[kept].mean() - right[kept].mean()) < 0.08


# The learner


def test_the_order_and_the_units_of_columns_mean_nothing() -> None:
    learner, episode = learner_of(), table()
    expected = answer(learner, episode)
    close(answer(learner, changed(episode, lambda x: x[..., [2, 0, 1]])), expected)
    close(answer(learner, changed(episode, lambda x: 1000 * x - 7)), expected)


def test_a_constant_column_changes_nothing() -> None:
    learner, episode = learner_of(), table()
    wider = changed(episode, lambda x: torch.cat([x, torch.full_like(x[..., :1], 3.0)], -1))
    close(answer(learner, wider), answer(learner, episode))


def test_a_kept_state_answers_without_reading_the_support_again(monkeypatch) -> None:
    learner, episode = learner_of(), table()
    with torch.no_grad():
        state = learner.adapt(episode.support, episode.context)
    expected = learner.predict(state, episode.query.x, episode.context)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("The support was read again.")

    monkeypatch.setattr(learner.transformer, "memorise", refuse)
    monkeypatch.setattr(classical, "kernel_ridge", refuse)
    again = learner.predict(state, episode.query.x[:, :2], episode.context)
    close(again, expected[:, :2])


def test_twelve_classes_are_no_more_than_two() -> None:
    episode = table(rows=48, way=12, queries=24)
    p = answer(learner_of(), episode).softmax(-1)
    assert p.shape == (1, 24, 12)
    close(p.sum(-1), torch.ones(1, 24, dtype=torch.float64))


def test_too_many_rows_or_columns_are_refused() -> None:
    learner = Tables(TableEncoder(), width=8, layers=1, heads=2, rows=10, columns=4)
    with pytest.raises(ValueError, match=r"Found 11 examples .* at most 10"):
        answer(learner, table(rows=11))
    with pytest.raises(ValueError, match=r"Found 5 columns.* at most 4"):
        answer(learner, table(rows=9, columns=5))
    with pytest.raises(ValueError, match="number of layers must be at least 1"):
        Tables(TableEncoder(), layers=0)


def test_values_have_the_units_of_the_support() -> None:
    learner, episode = learner_of(values=1), table()
    values = episode.support.x[..., :1] * 2 + 1
    support = episode.support._replace(y=values)
    context = episode.context._replace(classes=torch.ones(1, 1, dtype=torch.bool))
    mean, scale = learner.likelihood.distribution(
        learner.predict(learner.adapt(support, context), episode.query.x, context)
    )
    larger = support._replace(y=10 * values - 300)
    moved, wider = learner.likelihood.distribution(
        learner.predict(learner.adapt(larger, context), episode.query.x, context)
    )
    close(moved, 10 * mean - 300)
    close(wider, 10 * scale)


@settings(max_examples=40, deadline=None)
@given(
    entries=st.lists(
        st.lists(
            st.one_of(
                st.floats(allow_infinity=False, allow_nan=True),
                st.sampled_from([0.0, 1.0, NAN]),
            ),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=12,
    ),
    labels=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    shown=st.integers(0, 12),
    values=st.booleans(),
)
def test_answers_are_finite_whatever_the_table(
    entries: list[list[float]], labels: list[int], shown: int, values: bool
) -> None:
    x = torch.tensor([entries], dtype=torch.float64)
    rows = x.shape[1]
    y = torch.tensor([labels[:rows]])
    mask = torch.arange(rows)[None] < shown
    way = 1 if values else 3
    context = Context(
        torch.ones(1, way, dtype=torch.bool),
        torch.zeros(1, 0),
        torch.zeros(1, way, 0, dtype=torch.int64),
    )
    learner = learner_of(values=int(values))
    support = Examples(x, y[..., None].double() if values else y, mask)
    with torch.no_grad():
        state = learner.adapt(support, context)
        outputs = learner.predict(state, x, context)
    assert outputs.isfinite().all()
    if not values:
        p = outputs.softmax(-1)
        close(p.sum(-1), torch.ones(1, rows, dtype=torch.float64))
        unseen = [c for c in range(3) if c not in labels[: min(rows, shown)]]
        if len(unseen) < 3:
            assert p[..., unseen].sum() < 1e-9
        else:
            close(p, torch.full_like(p, 1 / 3))


def test_no_support_at_all_is_the_prior() -> None:
    episode = table(way=4, rows=8)
    nothing = Examples(
        episode.support.x[:, :0], episode.support.y[:, :0], episode.support.mask[:, :0]
    )
    p = answer(learner_of(), episode._replace(support=nothing)).softmax(-1)
    close(p, torch.full_like(p, 0.25))


# Invented tables


def drawn(seed: int = 0, split: str = "train", **options: object) -> Episode:
    world = InventedTables(**({"columns": 8} | options))
    design = EpisodeDesign(way=1 if world.values else (2, 5), shot=(20, 40), queries=12)
    return Episodes(world, split, design, tasks=40, seed=seed)[0]


def test_an_index_decides_everything() -> None:
    one, same, other = drawn(), drawn(), drawn(split="validation")
    assert torch.equal(one.support.x.nan_to_num(-9), same.support.x.nan_to_num(-9))
    assert torch.equal(one.query.y, same.query.y)
    assert not torch.equal(one.support.x.nan_to_num(-9), other.support.x.nan_to_num(-9))


def test_a_query_is_of_a_class_that_the_support_shows() -> None:
    episode = drawn()
    support, query, context = episode
    for task in range(40):
        shown = set(support.y[task][support.mask[task]].tolist())
        assert shown == set(context.classes[task].nonzero().flatten().tolist())
        assert set(query.y[task][query.mask[task]].tolist()) <= shown
    assert query.mask.float().mean() > 0.95
    assert {2, 3, 4, 5} <= set(context.classes.sum(1).tolist())


def test_tables_are_various() -> None:
    x = drawn().support.x
    columns = x.transpose(1, 2).flatten(0, 1)
    levels = torch.tensor([len(set(column[~column.isnan()].tolist())) for column in columns])
    assert (levels == 2).any()
    assert ((levels > 2) & (levels < 9)).any()
    assert (levels > 19).any()
    assert (levels == 1).any()  # beyond the columns of a task
    assert x.isnan().any()
    assert not x.isinf().any()


def test_invented_values_are_standard() -> None:
    episode = drawn(predicts="values")
    y = torch.cat([episode.support.y, episode.query.y], 1)
    assert y.shape[2] == 1
    close(y.mean(1), torch.zeros(40, 1), atol=1e-5, rtol=0)
    close(y.std(1), torch.ones(40, 1), atol=1e-4, rtol=0)


def test_a_design_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(DataError, match="at least 2 classes"):
        Episodes(InventedTables(), "train", EpisodeDesign(way=1, shot=5, queries=5))
    with pytest.raises(ValueError, match="must ascend"):
        InventedTables(columns=2, fewest_columns=3)


def test_the_rules_alone_know_what_there_is_to_know() -> None:
    """Untrained, the learner is a mixture of classical rules: it beats the most frequent class by far."""
    world = InventedTables(columns=8, fewest_columns=8)
    design = EpisodeDesign(way=2, shot=100, queries=40)
    episode = Episodes(world, "validation", design, tasks=60)[0]
    learner = Tables(TableEncoder(), width=8, layers=1, heads=2).eval()
    with torch.no_grad():
        state = learner.adapt(episode.support, episode.context)
        outputs = learner.predict(state, episode.query.x, episode.context)
    score = learner.likelihood.task_score(outputs, episode.query, episode.context).mean()
    frequent = torch.nn.functional.one_hot(episode.support.y, 2).sum(1).argmax(1, keepdim=True)
    chance = (frequent == episode.query.y).float().mean()
    assert score > chance + 0.08


def test_invented_tables_can_be_evaluated_without_an_exact_answer() -> None:
    learner = Tables(TableEncoder(), width=8, layers=1, heads=2).eval()
    design = EpisodeDesign(way=2, shot=20, queries=5)
    found = evaluate(learner, InventedTables(columns=3), design=design, episodes=4)
    assert 0 <= found["mean"] <= 1
    assert found["baselines"] == {}
    assert set(found["before_adaptation"]) == {"mean", "ci95"}
