"""Likelihoods against torch.distributions, and averages over tasks rather than queries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal

from quickstudy.episode import Context, Examples
from quickstudy.likelihood import Categorical, Gaussian, SquaredError, per_task_mean

close = torch.testing.assert_close

CLASSES = torch.tensor([[True, True, True, False], [True, True, False, False]])
MASK = torch.tensor([[True, True, True], [True, False, False]])


def context(classes: Tensor = CLASSES) -> Context:
    tasks, way = classes.shape
    return Context(classes, torch.zeros(tasks, 0), torch.zeros(tasks, way, 0, dtype=torch.int64))


def labelled(y: Tensor) -> Examples:
    return Examples(torch.zeros(*MASK.shape, 1), y, MASK)


def test_categorical_is_a_softmax_over_the_classes_that_exist() -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64)
    y = torch.tensor([[2, 0, 1], [1, 0, 0]])
    nll = Categorical().task_nll(logits, labelled(y), context())
    first = -TorchCategorical(logits=logits[0, :, :3]).log_prob(y[0]).mean()
    second = -TorchCategorical(logits=logits[1, :1, :2]).log_prob(y[1, :1]).mean()
    close(nll, torch.stack([first, second]))
    close(Categorical().nll(logits, labelled(y), context()), (first + second) / 2)


def test_label_smoothing_is_the_one_of_torch() -> None:
    logits = torch.randn(1, 5, 3, dtype=torch.float64)
    y = torch.randint(3, (1, 5))
    examples = Examples(torch.zeros(1, 5, 1), y, torch.ones(1, 5, dtype=torch.bool))
    expected = torch.nn.functional.cross_entropy(logits[0], y[0], label_smoothing=0.2)
    everything = context(torch.ones(1, 3, dtype=torch.bool))
    close(Categorical(label_smoothing=0.2).nll(logits, examples, everything), expected)


def test_probabilities_sum_to_one_and_skip_what_does_not_exist() -> None:
    chances = Categorical().probabilities(torch.randn(2, 3, 4) * 50, context())
    close(chances.sum(-1), torch.ones(2, 3))
    assert (chances.masked_select(~CLASSES[:, None].expand_as(chances)) == 0).all()


def test_accuracy_ignores_padding_and_missing_classes() -> None:
    logits = torch.zeros(2, 3, 4)
    logits[..., 3] = 9
    logits[0, :, 1] = 1
    logits[1, 0, 0] = 1
    y = torch.tensor([[1, 1, 0], [0, 1, 1]])
    close(Categorical().task_score(logits, labelled(y), context()), torch.tensor([2 / 3, 1.0]))


def test_gaussian_is_a_normal_with_a_floor() -> None:
    outputs = torch.randn(2, 3, 8, dtype=torch.float64)
    y = torch.randn(2, 3, 4, dtype=torch.float64)
    scale = 0.01 + 0.99 * torch.nn.functional.softplus(outputs[..., 4:])
    log_p = Normal(outputs[..., :4], scale).log_prob(y)
    expected = torch.stack([-log_p[0, :, :3].sum(-1).mean(), -log_p[1, :1, :2].sum(-1).mean()])
    likelihood = Gaussian()
    examples = labelled(y)
    close(likelihood.task_nll(outputs, examples, context()), expected)
    error = (outputs[..., :4] - y) ** 2
    score = torch.stack([error[0, :, :3].mean(), error[1, :1, :2].mean()])
    close(likelihood.task_score(outputs, examples, context()), score)
    extreme = torch.full((2, 3, 8), -1e4, dtype=torch.float64)
    assert likelihood.distribution(extreme)[1].min() == 0.01


def test_a_squared_error_is_a_normal_of_scale_one_without_its_constant() -> None:
    means, y = (torch.randn(2, 3, 4, dtype=torch.float64) for _ in range(2))
    log_p = Normal(means, 1.0).log_prob(y) + 0.5 * torch.tensor(2 * torch.pi).double().log()
    expected = torch.stack([-log_p[0, :, :3].sum(-1).mean(), -log_p[1, :1, :2].sum(-1).mean()])
    likelihood = SquaredError()
    close(likelihood.task_nll(means, labelled(y), context()), expected)
    error = (means - y) ** 2
    score = torch.stack([error[0, :, :3].mean(), error[1, :1, :2].mean()])
    close(likelihood.task_score(means, labelled(y), context()), score)


def test_a_task_without_queries_scores_zero_not_nan() -> None:
    values = torch.tensor([[float("nan"), 1.0], [2.0, 4.0]])
    mask = torch.tensor([[False, False], [True, True]])
    assert per_task_mean(values, mask).tolist() == [0, 3]


def test_the_output_width_follows_the_way() -> None:
    kinds = (Categorical, SquaredError, Gaussian)
    assert [kind().width(5) for kind in kinds] == [5, 5, 10]
