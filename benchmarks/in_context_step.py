"""The in-context learner: a training step against one sequence for each query, and answers from a kept state.

The step is of a Transformer of width 256 with four layers over vectors that need no encoder, 16 tasks of 5 classes with
1 support example and 15 queries each. Useful work is counted as matrix products only, three times the forward pass, and
compared with the rate of a product of two 1024 x 1024 matrices. The answer is to one query of a task of 500 support
examples, from a state that was kept and from nothing: on those vectors, and on images through the default encoder.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quickstudy.episode import Context, Episode, Examples
from quickstudy.functional import keep_large_blocks
from quickstudy.learners.context import InContext
from quickstudy.nn.encoders import ImageEncoder, RawEncoder
from record import interleaved, record

TASKS, WAY, QUERIES, WIDTH, LAYERS = 16, 5, 75, 256, 4
SUPPORT = 500


def episode_of(tasks: int, support: int, queries: int, example: Callable[..., Tensor]) -> Episode:
    def examples(count: int) -> Examples:
        y = torch.arange(count).expand(tasks, count) % WAY
        return Examples(example(tasks, count), y, torch.ones(tasks, count, dtype=torch.bool))

    classes = torch.ones(tasks, WAY, dtype=torch.bool)
    names = torch.zeros(tasks, WAY, 0, dtype=torch.int64)
    context = Context(classes, torch.zeros(tasks, 0), names)
    return Episode(examples(support), examples(queries), context)


def one_sequence_each(learner: InContext, episode: Episode) -> Tensor:
    """The loss with the support read anew for each query."""
    support, query, context = episode
    examples = support._replace(x=learner.encode(support.x))
    codes, features = learner._deal(examples, context), learner.encode(query.x)
    tokens, asked = learner._tokens(examples, codes), learner._asked(features)
    count = tokens.shape[1]
    repeated = tokens[:, None].expand(-1, asked.shape[1], -1, -1)
    sequences = torch.cat([repeated, asked[:, :, None]], 2).flatten(0, 1)
    mask = torch.ones(count + 1, count + 1, dtype=torch.bool)
    mask[:count, count] = False
    read = learner.transformer(sequences, mask=mask)[:, -1].unflatten(0, asked.shape[:2])
    outputs = learner._logits(features, [read], examples, codes)
    return learner.likelihood.nll(outputs, query, context)


def operations() -> float:
    """Floating-point operations in matrix products of a step."""
    tokens = TASKS * (WAY + QUERIES)
    linear = 2 * tokens * WIDTH * WIDTH * (12 * LAYERS + 1)
    # The last layer of the support gives keys and values only.
    spared = 2 * TASKS * WAY * WIDTH * WIDTH * 10
    attended = 4 * TASKS * WIDTH * LAYERS * (WAY * WAY + QUERIES * (WAY + 1))
    return 3 * (linear - spared + attended)


def step_figures() -> dict[str, float]:
    torch.manual_seed(0)
    learner = InContext(RawEncoder(WIDTH), width=WIDTH, layers=LAYERS, heads=4)
    weights = list(learner.parameters())
    episode = episode_of(TASKS, WAY, QUERIES, lambda *axes: torch.randn(*axes, WIDTH))
    square = torch.randn(1024, 1024)

    def together() -> tuple[Tensor, ...]:
        return torch.autograd.grad(learner(episode), weights)

    def each() -> tuple[Tensor, ...]:
        return torch.autograd.grad(one_sequence_each(learner, episode), weights)

    first, second = (torch.cat([g.flatten() for g in way()]) for way in (together, each))
    ways = {"together": together, "one sequence each": each, "matmul": lambda: square @ square}
    seconds = interleaved(ways, rounds=15)
    peak = 2 * 1024**3 / seconds["matmul"]
    return {
        "speed_against_one_sequence_each": seconds["one sequence each"] / seconds["together"],
        "share_of_matmul_peak": operations() / seconds["together"] / peak,
        "episodes_per_second": TASKS / seconds["together"],
        "gradient_difference": ((first - second).norm() / second.norm()).item(),
    }


@torch.no_grad()
def answer_figures(learner: InContext, example: Callable[..., Tensor]) -> dict[str, float]:
    learner.eval()
    support, query, context = episode_of(1, SUPPORT, 1, example)
    state = learner.adapt(support, context)

    def kept() -> Tensor:
        return learner.predict(state, query.x, context)

    def from_nothing() -> Tensor:
        return learner.predict(learner.adapt(support, context), query.x, context)

    seconds = interleaved({"kept": kept, "from nothing": from_nothing}, rounds=9)
    return {
        "speed_from_a_kept_state": seconds["from nothing"] / seconds["kept"],
        "milliseconds_kept": 1000 * seconds["kept"],
        "milliseconds_from_nothing": 1000 * seconds["from nothing"],
    }


def main() -> None:
    torch.set_num_threads(1)
    keep_large_blocks()
    torch.manual_seed(0)
    vectors = InContext(RawEncoder(WIDTH), width=WIDTH, layers=LAYERS, heads=4)
    images = InContext(ImageEncoder())
    figures = {
        "threads": 1,
        "training_step": step_figures(),
        "one_query_500_support": {
            "vectors, width 256, 4 layers": answer_figures(
                vectors, lambda *axes: torch.randn(*axes, WIDTH)
            ),
            "images, default encoder and learner": answer_figures(
                images, lambda *axes: torch.randint(256, (*axes, 1, 28, 28), dtype=torch.uint8)
            ),
        },
    }
    record("in_context_step", figures)


if __name__ == "__main__":
    main()
