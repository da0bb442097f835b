"""Learners and adapted tasks as programs that run without quickstudy: torch.export and ONNX."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import ConstraintViolationError

from quickstudy.adapted import AdaptedTask
from quickstudy.artifact import Artifact
from quickstudy.durable import ArtifactError, write_file
from quickstudy.episode import Context, Examples
from quickstudy.learners.base import Learner, State
from quickstudy.likelihood import (
    Categorical,
    Gaussian,
    JointGaussian,
    Likelihood,
    predicted_values,
)
from quickstudy.nn.encoders import RawEncoder

SUFFIXES = (".onnx", ".pt2")
"""What the name of an exported file ends with, and so what it is."""

TASKS, SUPPORT, QUERIES = 3, 7, 5
"""Sizes of the example that is traced. Any others will do in use, but sizes 0 and 1 would be taken for constants."""


def answered(likelihood: Likelihood, outputs: Tensor, context: Context) -> tuple[Tensor, ...]:
    """What an exported program gives of a learner's outputs.

    Class probabilities (task, query, way); of numbers, their means (task, query, values), and their standard deviations
    where the learner has them.
    """
    if isinstance(likelihood, Categorical):
        return (likelihood.probabilities(outputs, context),)
    if isinstance(likelihood, Gaussian | JointGaussian):
        return likelihood.distribution(outputs)
    return (predicted_values(likelihood, outputs),)


def output_names(likelihood: Likelihood) -> list[str]:
    """The names of what :func:`answered` gives."""
    if isinstance(likelihood, Categorical):
        return ["probabilities"]
    knows = isinstance(likelihood, Gaussian | JointGaussian)
    return ["mean", "deviation"] if knows else ["mean"]


def _bare_context(classes: Tensor) -> Context:
    tasks, way = classes.shape
    none = torch.zeros(tasks, 0, device=classes.device)
    names = torch.zeros(tasks, way, 0, dtype=torch.int64, device=classes.device)
    return Context(classes, none, names)


class Unadapted(nn.Module):
    """Adapts and answers in one call, many tasks at a time.

    Args:
        learner: without an inner loop.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(
        self,
        support_x: Tensor,
        support_y: Tensor,
        support_mask: Tensor,
        classes: Tensor,
        query_x: Tensor,
    ) -> tuple[Tensor, ...]:
        """Answers (task, query, way or values).

        Args:
            support_x: (task, support, …).
            support_y: classes, int64 (task, support), or values, float (task, support, dim).
            support_mask: bool (task, support); False is padding.
            classes: bool (task, way): which classes, or values, exist.
            query_x: (task, query, …).
        """
        context = _bare_context(classes)
        state = self.learner.adapt(Examples(support_x, support_y, support_mask), context)
        outputs = self.learner.predict(state, query_x, context)
        return answered(self.learner.likelihood, outputs, context)


class Adapted(nn.Module):
    """Answers the queries of one task, which it holds as constants.

    Args:
        learner: without an inner loop.
        state: of the task, a batch of one.
        context: likewise.
    """

    def __init__(self, learner: Learner, state: State, context: Context) -> None:
        super().__init__()
        self.learner = learner
        fields = state if isinstance(state, dict) else state._asdict()
        self.fields, self.kind = list(fields), type(state)
        for name, tensor in fields.items():
            self.register_buffer(_buffer_of(name), tensor.detach().clone())
        for name, tensor in context._asdict().items():
            self.register_buffer(f"context_{name}", tensor.detach().clone())

    def forward(self, query_x: Tensor) -> tuple[Tensor, ...]:
        """Answers (query, way or values) of queries (query, …)."""
        parts = {name: getattr(self, _buffer_of(name)) for name in self.fields}
        context = Context(*(getattr(self, f"context_{name}") for name in Context._fields))
        outputs = self.learner.predict(self.kind(**parts), query_x[None], context)
        return tuple(each[0] for each in answered(self.learner.likelihood, outputs, context))


def _buffer_of(field: str) -> str:
    """Where a part of a state is kept; the name of a buffer may hold no dot."""
    return f"state_{field.replace('.', '/')}"


def export(
    artifact: Artifact, path: str | Path, *, task: AdaptedTask | None = None, way: int | None = None
) -> ExportedProgram:
    """Write a learner, or a task that it has adapted to, as a program of its own.

    The numbers of tasks, of support examples and of queries stay open. Inputs are named as in :class:`Unadapted`
    (``support_x``, ``support_y``, ``support_mask``, ``classes``, ``query_x``) or, of a task, ``query_x`` alone,
    without an axis of tasks; outputs are ``probabilities``, or ``mean`` and ``deviation``. Images are uint8, as files
    hold them.

    Args:
        artifact: a learner without an inner loop.
        path: ends in ``.onnx`` (ONNX, for onnxruntime and others) or ``.pt2`` (``torch.export.load``).
        task: adapted with that artifact.
        way: most classes of a task; those of the artifact's validation where it is absent.

    Returns:
        The program that was written.

    Raises:
        ArtifactError: a learner with an inner loop or of another way for each size, an encoder whose inputs nobody can
            guess, another ending, a package that is missing, or a file that cannot be written.
    """
    path, learner = Path(path), artifact.learner
    if path.suffix not in SUFFIXES:
        raise ArtifactError(
            f"An exported program ends in {' or '.join(SUFFIXES)}; found {path.name!r}."
        )
    if path.suffix == ".onnx" and importlib.util.find_spec("onnxscript") is None:
        raise ArtifactError(
            'ONNX needs packages that are not installed; run pip install "quickstudy[export]", or write a .pt2 file.'
        )
    if learner.inner_loop:
        raise ArtifactError(
            f"The learner {artifact.config.learner['name']!r} takes gradients while it adapts, which an exported "
            "program cannot; export a learner that adapts in one forward pass, such as in_context."
        )
    example = one_example(artifact)
    if task is None:
        program = _unadapted(artifact, example, way)
    else:
        program = _adapted(learner, task, example)
    _write(program, path, output_names(learner.likelihood))
    return program


def one_example(artifact: Artifact) -> Tensor:
    """An example of the kind that the artifact's encoder reads.

    Raises:
        ArtifactError: it reads neither images nor rows of numbers.
    """
    inputs, encoder = artifact.inputs, artifact.learner.encoder
    raw = isinstance(encoder, RawEncoder)
    if inputs["kind"] == "image":
        sides = ("channels", "size", "size")
        shape = (encoder.width,) if raw else tuple(inputs[side] for side in sides)
        return torch.randint(0, 256, shape, dtype=torch.uint8)
    columns = encoder.width if raw else getattr(encoder, "inputs", None)
    if inputs["kind"] in ("vector", "raw") and columns:
        return torch.randn(columns).to(next(artifact.learner.parameters()))
    raise ArtifactError(
        f"The encoder {artifact.config.encoder['name']!r} reads {inputs['kind']} examples, but only encoders of images "
        "and of rows of numbers are exported."
    )


def _examples(example: Tensor, *axes: int) -> Tensor:
    return example.expand(*axes, *example.shape).contiguous()


def _unadapted(artifact: Artifact, example: Tensor, way: int | None) -> ExportedProgram:
    learner = artifact.learner
    named = artifact.config.validation.way
    way = way or (named if isinstance(named, int) else max(named or (5,)))
    classes = isinstance(learner.likelihood, Categorical)
    if not classes:
        way = int(artifact.config.learner.get("values", 1))
    given: dict[str, Tensor] = {
        "support_x": _examples(example, TASKS, SUPPORT),
        "support_y": torch.arange(TASKS * SUPPORT).view(TASKS, SUPPORT) % way
        if classes
        else _examples(torch.randn(way).to(example), TASKS, SUPPORT),
        "support_mask": torch.ones(TASKS, SUPPORT, dtype=torch.bool),
        "classes": torch.ones(TASKS, way, dtype=torch.bool),
        "query_x": _examples(example, TASKS, QUERIES),
    }
    task, support, query = (Dim(name, min=1) for name in ("task", "support", "query"))
    open_axes = {
        "support_x": {0: task, 1: support},
        "support_y": {0: task, 1: support},
        "support_mask": {0: task, 1: support},
        "classes": {0: task},
        "query_x": {0: task, 1: query},
    }
    return _traced(Unadapted(learner), given, open_axes)


def _adapted(learner: Learner, task: AdaptedTask, example: Tensor) -> ExportedProgram:
    given = {"query_x": _examples(example, QUERIES)}
    module = Adapted(learner, task.state, task.context)
    return _traced(module, given, {"query_x": {0: Dim("query", min=1)}})


def _traced(module: nn.Module, given: dict[str, Tensor], axes: dict[str, Any]) -> ExportedProgram:
    with torch.no_grad(), _quiet():
        try:
            return torch.export.export(
                module.cpu().eval(), (), kwargs=given, dynamic_shapes=axes, strict=False
            )
        except (ConstraintViolationError, UserError) as error:
            raise ArtifactError(
                f"The learner {type(module.learner).__name__} computes tasks of different sizes in different ways, "
                "which one program cannot; export one such as in_context or protonet."
            ) from error
        except Exception as error:  # what torch cannot trace it says in many ways
            raise ArtifactError(
                f"The learner {type(module.learner).__name__} cannot be written as one program "
                f"({str(error).splitlines()[0]}); export one such as in_context or protonet."
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' advice on their own insides away."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _as_onnx(program: ExportedProgram, names: list[str]) -> bytes:
    """The program as the content of an ONNX file."""
    with _quiet():
        try:
            made = torch.onnx.export(
                program, output_names=names, dynamo=True, external_data=False, verbose=False
            )
        except Exception as error:  # what the converter does not know it says in many ways
            raise ArtifactError(
                f"The learner computes something for which ONNX has no operation ({type(error).__name__}); write a "
                ".pt2 file."
            ) from error
    assert made is not None
    content: bytes = made.model_proto.SerializeToString()
    return content


def _write(program: ExportedProgram, path: Path, names: list[str]) -> None:
    try:
        if path.suffix == ".pt2":
            write_file(path, lambda file: torch.export.save(program, file))
            return
        write_file(path, _as_onnx(program, names))
    except OSError as error:
        raise ArtifactError(
            f"The program {path} cannot be written: {error.strerror or os.strerror(error.errno or 0)}; free some space "
            "or choose another place."
        ) from error
