"""The one table of learners under test: a new learner adds a row here, and every law applies to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import NO_LABEL, Episode, Inputs, Task, collate
from quickstudy.learners import LEARNERS, MAML, InContext, Learner, TransformerNeuralProcess
from quickstudy.learners.bayesian_linear import BayesianLinear
from quickstudy.nn.encoders import Encoder, ImageEncoder, VectorEncoder
from quickstudy.nn.layers import Transformer

SIZE = 16
"""Height and width of the tiny images."""


class Row(NamedTuple):
    """A learner in one setting, and what it does not claim."""

    label: str
    name: str
    """Its name in LEARNERS."""
    options: dict[str, object]
    exact: bool = True
    """The gradient of ``meta_loss`` is its derivative; first-order methods say no."""
    exempt: frozenset[str] = frozenset()
    """Parameters that may stay without a gradient."""
    steps: int = 10
    """Of training on a toy, until it helps."""
    rate: float = 0.02
    """Of these steps; who must first find out where values lie takes larger ones."""
    pairs: bool = False
    """It needs an encoder that reads pairs."""
    bare: bool = False
    """The tasks of the laws have examples without a label."""
    offset: float = 0.0
    """How far the values of toy tasks lie from zero: what those find out in a few steps who must find all of it out."""

    @property
    def values(self) -> int:
        """Numbers that its tasks predict; 0: a class."""
        return int(str(self.options.get("values", 0)))

    @property
    def many(self) -> bool:
        """Whether the examples of its tasks may have any number of labels."""
        return self.options.get("labels") == "many"

    def build(self, encoder: Encoder) -> Learner:
        return LEARNERS[self.name](PairReader(encoder) if self.pairs else encoder, **self.options)


class PairReader(Encoder):
    """Any encoder as one that reads pairs: what it makes of both, and of what they have in common."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.width = encoder, encoder.width
        self.relate = nn.Linear(3 * self.width, self.width)

    def forward(self, x: Inputs) -> Tensor:
        return self.encoder(x)

    def read_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        one, two = self.encoder(first), self.encoder(second)
        return self.relate(torch.cat([one, two, one * two], -1)).tanh()


IN_CONTEXT = {"width": 8, "layers": 2, "heads": 2, "bank": 7}

PROCESS = {"width": 8, "layers": 2, "heads": 2, "waves": 3}
JOINT = {"width": 8, "layers": 1, "heads": 2, "waves": 0, "values": 2, "rank": 2}

SEQUENCE = {"filters": 4, "keys": 4, "rounds": 1, "length": 4}

WITH_MEMORY = {"width": 8, "slots": 2, "layers": 1, "heads": 2, "through_encoder": True}

TURNING = {
    "values": 2,
    "rates": 3,
    "slowest": 0.02,
    "fastest": 0.1,
    "kept": 4,
    "kept_in_training": 4,
    "steps": 2,
}

AT_REST = {"steps": 12, "rate": 0.045, "penalty": 20.0, "solver_steps": 8}
"""So firm a penalty that descent converges to rounding, and the implicit gradient is exact."""

ROWS = [
    Row("protonet", "protonet", {"label_smoothing": 0.1}),
    Row("protonet-euclidean", "protonet", {"distance": "euclidean"}),
    Row("protonet-labels", "protonet", {"labels": "many"}, steps=40),
    Row("matching", "matching", {}),
    Row("matching-context", "matching", {"layers": 2, "heads": 2}),
    Row("soft_prototypes", "soft_prototypes", {}, bare=True),
    Row(
        "soft_prototypes-distractors",
        "soft_prototypes",
        {"distractors": True, "refinements": 2, "distance": "euclidean"},
        bare=True,
    ),
    Row("relation", "relation", {}),
    Row("feat", "feat", {"heads": 2}),
    Row("feat-euclidean", "feat", {"distance": "euclidean"}),
    Row("deepsets", "feat", {"set_function": "deepsets"}),
    Row("cross_encoder", "cross_encoder", {}, pairs=True),
    Row("cross_encoder-few", "cross_encoder", {"pairs": 4}, pairs=True),
    Row("ridge", "ridge", {}),
    Row("linear_head", "linear_head", {}),
    Row("linear_head-raw", "linear_head", {"unit_length": False}),
    Row("linear_head-unlabelled", "linear_head", {}, bare=True),
    Row("fine_tune-unlabelled", "fine_tune", {"passes": 1, "rate": 0.01}, bare=True),
    Row("fine_tune", "fine_tune", {"passes": 2, "batch": 3, "rate": 0.01}),
    Row("fine_tune-some", "fine_tune", {"passes": 1, "adapt": "norms"}),
    Row("linear_head-labels", "linear_head", {"labels": "many"}),
    Row("in_context", "in_context", IN_CONTEXT),
    Row("in_context-groups", "in_context", IN_CONTEXT | {"bank": 3}),
    Row("in_context-ensemble", "in_context", IN_CONTEXT | {"ensemble": 3}),
    Row("in_context-grouped", "in_context", IN_CONTEXT | {"attention": "grouped"}),
    Row("in_context-linear", "in_context", IN_CONTEXT | {"attention": "linear"}),
    Row("tables", "tables", {"width": 8, "layers": 2, "heads": 2}),
    Row("tables-values", "tables", {"width": 8, "layers": 2, "heads": 2, "values": 2}, steps=12),
    Row("maml", "maml", {"steps": 2, "rate": 0.3}),
    Row("maml-some", "maml", {"steps": 2, "rate": 0.3, "adapt": "norms,*.bias"}),
    Row("maml-head", "maml", {"steps": 3, "adapt": "head"}),
    Row("maml-first", "maml", {"steps": 2, "rate": 0.3, "strategy": "first"}, exact=False),
    Row("maml-sweep", "maml", {"steps": 3, "rate": 0.3, "strategy": "sweep", "tasks_at_once": 1}),
    Row("maml-sqrt", "maml", {"steps": 4, "rate": 0.3, "strategy": "sqrt", "tasks_at_once": 2}),
    Row("maml-fd", "maml", {"steps": 2, "rate": 0.3, "strategy": "fd"}),
    Row("boil", "maml", {"steps": 2, "rate": 0.3, "adapt": "body"}),
    Row("meta-sgd", "maml", {"steps": 2, "rate": 0.3, "rates": "element"}),
    Row(
        "meta-sgd-tensor", "maml", {"steps": 2, "rate": 0.3, "rates": "tensor", "strategy": "sweep"}
    ),
    Row("maml++", "maml", {"steps": 2, "rate": 0.3, "rates": "step", "adapt": "norms"}),
    Row("meta-curvature", "maml", {"steps": 2, "rate": 0.3, "rates": "curvature"}),
    Row("proto-maml", "maml", {"steps": 2, "rate": 0.3, "head": "prototypes", "strategy": "sweep"}),
    Row(
        "leopard",
        "maml",
        {"steps": 2, "rate": 0.3, "head": "generated", "adapt": "last:1", "rates": "tensor"},
    ),
    Row("maml-values", "maml", {"steps": 2, "values": 2}),
    Row("maml-values-sweep", "maml", {"steps": 2, "values": 1, "strategy": "sweep"}),
    Row("maml-values-head", "maml", {"steps": 3, "values": 2, "adapt": "head", "rates": "element"}),
    Row("maml-values-body", "maml", {"steps": 2, "values": 2, "adapt": "body"}),
    Row("maml-values-curvature", "maml", {"steps": 2, "values": 2, "rates": "curvature"}),
    Row("reptile", "reptile", {"steps": 2, "rate": 0.3}, exact=False),
    Row("reptile-values", "reptile", {"steps": 2, "values": 2}, exact=False),
    Row("imaml", "imaml", {"steps": 3, "rate": 0.3, "solver_steps": 2}, exact=False),
    Row("imaml-at-rest", "imaml", AT_REST),
    Row("imaml-values", "imaml", {"steps": 3, "solver_steps": 2, "values": 2}, exact=False),
    Row("cavia", "cavia", {"steps": 2, "context_width": 4}),
    Row("cavia-first", "cavia", {"context_width": 4, "strategy": "first"}, exact=False),
    Row(
        "neural_process",
        "neural_process",
        PROCESS | {"values": 2},
        steps=110,
        rate=0.05,
        offset=5.0,
    ),
    Row(
        "neural_process-grouped",
        "neural_process",
        PROCESS | {"values": 2, "attention": "grouped"},
        steps=80,
        rate=0.05,
        offset=5.0,
    ),
    Row(
        "neural_process-linear",
        "neural_process",
        PROCESS | {"values": 2, "attention": "linear"},
        steps=110,
        rate=0.05,
        offset=5.0,
    ),
    Row(
        "neural_process-products",
        "neural_process",
        PROCESS | {"values": 2, "attention": "products"},
        steps=110,
        rate=0.1,
        offset=5.0,
    ),
    Row(
        "neural_process-relative",
        "neural_process",
        PROCESS | {"values": 2, "relative": True},
        steps=60,
        rate=0.05,
        offset=5.0,
    ),
    Row("neural_process-joint", "neural_process", JOINT, steps=300, offset=3.0),
    Row(
        "autoregressive_process",
        "autoregressive_process",
        PROCESS | {"values": 2},
        steps=100,
        rate=0.05,
        offset=5.0,
    ),
    Row(
        "conditional_process",
        "conditional_process",
        {"values": 2, "width": 8, "layers": 1},
        steps=60,
        rate=0.05,
        offset=5.0,
    ),
    Row("bayesian_linear", "bayesian_linear", {"values": 2}, steps=60, rate=0.05, offset=5.0),
    Row("deep_kernel", "deep_kernel", TURNING, steps=30, rate=0.05),
    Row(
        "deep_kernel-fading",
        "deep_kernel",
        {"values": 2, "objective": "evidence"},
        exact=False,
        steps=50,
        rate=0.05,
    ),
    Row("meta_transformer", "meta_transformer", WITH_MEMORY),
    Row("meta_transformer-lora", "meta_transformer", WITH_MEMORY | {"shape": "lora", "rank": 2}),
    Row("meta_transformer-bottleneck", "meta_transformer", WITH_MEMORY | {"bottleneck": 3}),
    Row(
        "meta_transformer-in_context",
        "meta_transformer",
        WITH_MEMORY | {"learner": partial(InContext, **IN_CONTEXT)},
    ),
    Row(
        "meta_transformer-maml",
        "meta_transformer",
        WITH_MEMORY | {"learner": partial(MAML, steps=2, rate=0.3)},
    ),
    Row(
        "meta_transformer-maml-lora",
        "meta_transformer",
        WITH_MEMORY | {"learner": partial(MAML, steps=2, strategy="sweep"), "shape": "lora"},
    ),
    Row(
        "meta_transformer-values",
        "meta_transformer",
        WITH_MEMORY | {"learner": partial(TransformerNeuralProcess, **PROCESS), "values": 2},
        steps=100,
        rate=0.05,
        offset=5.0,
    ),
    Row(
        "meta_transformer-bayesian_linear",
        "meta_transformer",
        WITH_MEMORY | {"learner": BayesianLinear, "values": 2},
        steps=100,
        rate=0.05,
        offset=5.0,
    ),
    Row("snail", "snail", SEQUENCE | {"bank": 5, "label_smoothing": 0.1}, steps=90),
    Row("snail-values", "snail", SEQUENCE | {"values": 2}, steps=20, offset=5.0),
]


class TokenEncoder(Encoder):
    """Four quarters of an image as four tokens of a Transformer: all that a law needs, and nothing that may change."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.embed = nn.Linear(SIZE * SIZE // 4, 8)
        self.transformer = Transformer(8, layers=1, heads=2)

    def forward(self, x: Inputs) -> Tensor:
        return self.transformer(self.embed(x.flatten(1).unflatten(1, (4, -1)))).mean(1)


def image_encoder() -> Encoder:
    return ImageEncoder(width=8, layers=1, heads=2, size=SIZE)


def vector_encoder(inputs: int = 6, layers: int = 1) -> Encoder:
    return VectorEncoder(inputs, width=8, layers=layers)


def shaken(module: torch.nn.Module, scale: float = 0.3) -> torch.nn.Module:
    """In float64, every parameter moved, so that no zero of the initialisation hides a mistake."""
    module.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in module.parameters():
            value += scale * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return module


def learner_of(row: Row, encoder: Callable[[], Encoder] = TokenEncoder) -> Learner:
    torch.default_generator.manual_seed(0)
    learner = shaken(row.build(encoder()))
    assert isinstance(learner, Learner)
    return learner.eval()


def image_task(
    way: int, shots: list[int], queries: int, generator: torch.Generator, values: int = 0
) -> Task:
    """A task of random images, with as many support examples of each class as ``shots`` says.

    With ``values``, each image has so many random numbers in place of a class.
    """
    labels = torch.arange(way).repeat_interleave(torch.tensor(shots))
    order = torch.randperm(len(labels), generator=generator)

    def images(count: int) -> Tensor:
        size = (count, 1, SIZE, SIZE)
        return torch.rand(size, generator=generator, dtype=torch.float64)

    def numbers(count: int) -> Tensor:
        return torch.randn(count, values, generator=generator, dtype=torch.float64)

    task = Task(
        support_x=images(len(labels)),
        support_y=labels[order],
        query_x=images(queries),
        query_y=torch.randint(way, (queries,), generator=generator),
        way=way,
    )
    if not values:
        return task
    return task._replace(support_y=numbers(len(labels)), query_y=numbers(queries), way=values)


def with_labels(task: Task) -> Task:
    """The same task; every second example has the label of the next class as well, and every fifth has no label."""

    def labels(classes: Tensor) -> Tensor:
        place = torch.arange(len(classes))
        own = F.one_hot(classes, task.way)
        own = own | (own.roll(1, 1) * (place % 2 == 0)[:, None])
        return (own * (place % 5 != 4)[:, None]).to(task.support_x.dtype)

    return task._replace(support_y=labels(task.support_y), query_y=labels(task.query_y))


def with_unlabelled(task: Task, count: int) -> Task:
    """The same task; so many of its queries are in the support as well, without a label, in front and behind."""
    more, none = task.query_x[:count], torch.full((count,), NO_LABEL)
    return task._replace(
        support_x=torch.cat([more[:1], task.support_x, more[1:]]),
        support_y=torch.cat([none[:1], task.support_y, none[1:]]),
    )


def ragged_tasks(values: int = 0, *, many: bool = False, bare: bool = False) -> list[Task]:
    """Three tasks of different way, shot and number of queries."""
    generator = torch.Generator().manual_seed(2)
    tasks = [
        image_task(2, [1, 2], 2, generator, values),
        image_task(4, [2, 1, 1, 3], 5, generator, values),
        image_task(3, [1, 1, 1], 3, generator, values),
    ]
    if bare:
        tasks = [with_unlabelled(task, count) for task, count in zip(tasks, (2, 3, 0), strict=True)]
    return [with_labels(task) for task in tasks] if many else tasks


def ragged_episode(values: int = 0) -> Episode:
    return collate(ragged_tasks(values))
