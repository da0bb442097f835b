"""Heads that are solved: both forms of ridge, and logistic regression by Newton's method against accelerated gradients.

Ridge solves the smaller of its two forms; the same tasks with places for more examples than features make it take the
other. Logistic regression is compared with the accelerated gradient steps (Nesterov 1983) that a head may be fitted by
instead, differentiated through all of them, and its error is that of the probabilities of queries against scikit-learn.

python benchmarks/heads.py [--smoke]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from quickstudy.episode import Context, Examples
from quickstudy.learners.closed_form import Ridge
from quickstudy.learners.logistic import fit_logistic
from quickstudy.nn.encoders import RawEncoder
from record import interleaved, record

SHAPES = {
    "5-way 5-shot, width 64": (5, 5, 64, 4),
    "5-way 5-shot, width 384": (5, 5, 384, 4),
    "20-way 5-shot, width 64": (20, 5, 64, 4),
    "77-way 5-shot, width 384": (77, 5, 384, 1),
}
"""Way, shot, width, tasks side by side."""
STEPS = 64


def tasks_of(way: int, shot: int, width: int, tasks: int) -> tuple[Examples, Tensor, Context]:
    """Support of unit vectors about the centre of each class, as many queries, and the context."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(way).repeat_interleave(shot)
    centres = torch.randn(tasks, way, width, generator=generator)[:, labels]
    support, query = (
        F.normalize(centres + torch.randn(centres.shape, generator=generator), dim=-1)
        for _ in range(2)
    )
    mask = torch.ones(tasks, len(labels), dtype=torch.bool)
    examples = Examples(support, labels.expand(tasks, -1).contiguous(), mask)
    classes = torch.ones(tasks, way, dtype=torch.bool)
    return examples, query, Context(classes, torch.zeros(tasks, 0), torch.zeros(tasks, way, 0))


def accelerated(examples: Examples, context: Context, *, penalty: float) -> tuple[Tensor, Tensor]:
    """Logistic regression by so many accelerated gradient steps from zero, and by autograd through all of them."""
    centre = examples.x.mean(1, keepdim=True)
    rows = examples.x - centre
    columns = rows.transpose(1, 2)
    way, count = context.classes.shape[1], rows.shape[1]
    target = F.one_hot(examples.y, way).to(rows.dtype)
    few = count <= rows.shape[2]
    gram = rows @ columns if few else columns @ rows
    largest = torch.linalg.eigvalsh(gram.detach())[:, -1:, None]
    rate = 1 / (largest / 2 + penalty)
    root = (penalty * rate).sqrt()
    weights = rows.new_zeros(len(rows), gram.shape[1], way)
    bias = rows.new_zeros(len(rows), 1, way)
    ahead, bias_ahead = weights, bias
    for step in range(STEPS):
        error = ((gram if few else rows) @ ahead + bias_ahead).softmax(-1) - target
        moved = ahead - rate * ((error if few else columns @ error) + penalty * ahead)
        bias_moved = bias_ahead - 2 / count * error.sum(1, keepdim=True)
        momentum = ((1 - root) / (1 + root)).clamp(max=step / (step + 3))
        ahead = moved + momentum * (moved - weights)
        bias_ahead = bias_moved + momentum * (bias_moved - bias)
        weights, bias = moved, bias_moved
    weights = columns @ weights if few else weights
    return weights, bias - centre @ weights


def ridge(shape: tuple[int, int, int, int], rounds: int) -> dict[str, Any]:
    """Milliseconds of adapting and predicting, and of their gradient too, by the form that is chosen and the other."""
    way, shot, width, _ = shape
    examples, query, context = tasks_of(*shape)
    learner = Ridge(RawEncoder(width))
    more = max(0, width + 2 - way * shot)
    other = Examples(
        F.pad(examples.x, (0, 0, 0, more)),
        F.pad(examples.y, (0, more)),
        F.pad(examples.mask, (0, more)),
    )
    forms = {"chosen": examples} | ({"other": other} if more else {})

    def call(part: Examples, *, gradient: bool) -> Callable[[], Tensor]:
        def run() -> Tensor:
            x = part.x.detach().requires_grad_(gradient)
            with torch.set_grad_enabled(gradient):
                state = learner.adapt(part._replace(x=x), context)
                outputs = learner.predict(state, query, context)
                return torch.autograd.grad(outputs.square().mean(), x)[0] if gradient else outputs

        return run

    times = interleaved(
        {
            f"{name} {kind}": call(part, gradient=kind == "gradient")
            for name, part in forms.items()
            for kind in ("forward", "gradient")
        },
        rounds=rounds,
        shortest=0.05,
    )
    with torch.no_grad():
        states = {name: learner.adapt(part, context) for name, part in forms.items()}
        outputs = [learner.predict(state, query, context) for state in states.values()]
    found: dict[str, Any] = {f"{name} milliseconds": 1000 * time for name, time in times.items()}
    if more:
        numbers = {name: sum(leaf[0].numel() for leaf in state) for name, state in states.items()}
        found |= {
            "form": "dual",
            "speed_forward": times["other forward"] / times["chosen forward"],
            "speed_gradient": times["other gradient"] / times["chosen gradient"],
            "numbers_of_a_state": numbers,
            "largest_difference": float((outputs[0] - outputs[1]).abs().max()),
        }
    return found


def logistic(shape: tuple[int, int, int, int], penalty: float, rounds: int) -> dict[str, Any]:
    """Error of the probabilities and milliseconds of a fit, without and with its gradient, in single precision."""
    examples, query, context = tasks_of(*shape)
    reference = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
    reference.fit(examples.x[0].double().numpy(), examples.y[0].numpy())
    expected = torch.from_numpy(reference.predict_proba(query[0].double().numpy()))
    ways: dict[str, Callable[[Examples], tuple[Tensor, Tensor]]] = {
        "newton": lambda part: fit_logistic(part, context, penalty=penalty, steps=32),
        "accelerated": lambda part: accelerated(part, context, penalty=penalty),
    }

    def call(name: str, *, gradient: bool) -> Callable[[], Any]:
        def run() -> Any:
            x = examples.x.detach().requires_grad_(gradient)
            with torch.set_grad_enabled(gradient):
                weights, bias = ways[name](examples._replace(x=x))
                if not gradient:
                    return weights
                chances = (query @ weights + bias).log_softmax(-1)
                return torch.autograd.grad(chances[..., 0].mean(), x)

        return run

    times = interleaved(
        {
            f"{name} {kind}": call(name, gradient=kind == "gradient")
            for name in ways
            for kind in ("forward", "gradient")
        },
        rounds=rounds,
        shortest=0.05,
    )

    def slope(name: str, dtype: torch.dtype) -> Tensor:
        """Of the mean log-probability of the first class in the features of the support."""
        x = examples.x.to(dtype).requires_grad_()
        weights, bias = ways[name](examples._replace(x=x))
        chances = (query.to(dtype) @ weights + bias).log_softmax(-1)
        return torch.autograd.grad(chances[..., 0].mean(), x)[0].double()

    exact = slope("newton", torch.float64)
    slopes = {
        f"{name} single": float((slope(name, torch.float32) - exact).norm() / exact.norm())
        for name in ways
    }
    errors = {}
    for name, fit in ways.items():
        for kind, dtype in (("single", torch.float32), ("double", torch.float64)):
            weights, bias = fit(examples._replace(x=examples.x.to(dtype)))
            chances = (query.to(dtype) @ weights + bias).softmax(-1)[0]
            errors[f"{name} {kind}"] = float((chances.detach().double() - expected).abs().max())
    assert all(math.isfinite(error) for error in errors.values())
    return {
        "error_of_probabilities": errors,
        "error_of_gradient_against_newton_double": slopes,
        **{f"{name} milliseconds": 1000 * time for name, time in times.items()},
        "speed_forward": times["accelerated forward"] / times["newton forward"],
        "speed_gradient": times["accelerated gradient"] / times["newton gradient"],
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    smoke = parser.parse_args().smoke
    rounds = 1 if smoke else 3
    shapes = dict(list(SHAPES.items())[:2]) if smoke else SHAPES
    record(
        "heads",
        {
            "threads": 1,
            "accelerated_steps": STEPS,
            "ridge": {name: ridge(shape, rounds) for name, shape in shapes.items()},
            "logistic": {
                f"{name}, penalty {penalty}": logistic(shape, penalty, rounds)
                for name, shape in shapes.items()
                for penalty in (0.1, 0.01)
            },
        },
        keep=not smoke,
    )


if __name__ == "__main__":
    main()
