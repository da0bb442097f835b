"""``export``: a model, or a task that it has learned, as a program for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.console import print_result, say
from quickstudy.cli.errors import WrongUse
from quickstudy.cli.many import refuse_many


def export(
    source: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|TASK", help="A model's folder, or a task file.")
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", help="The file: model.onnx or model.pt2.")
    ],
    way: Annotated[
        int | None, typer.Option(min=2, help="Most classes of a task; of a model only.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write anew where the file exists already.")
    ] = False,
) -> None:
    """Write a model or a learned task as a program that runs without quickstudy.

    An ONNX file runs in onnxruntime and many others, a .pt2 file in torch alone. The program of a model takes support
    and queries of any number of tasks at once; that of a task takes queries. Only models that adapt without gradients
    can be exported: in_context, protonet and their like, on images or rows of numbers.

    \b
    Examples:
      quickstudy export runs/demo/artifact --to model.onnx --way 5
      quickstudy export photos.task --to photos.onnx
    """
    if to.exists() and not replace:
        raise WrongUse(
            f"{to} exists already and is not overwritten; write it anew with --replace, or choose another --to."
        )
    from quickstudy.artifact import base_of, load_artifact, load_task
    from quickstudy.export import export as write

    is_task = source.is_file() or source.suffix == ".task"
    if is_task and way is not None:
        raise WrongUse("A task has the classes that it has; leave --way out.")
    model = load_artifact(base_of(source) if is_task else source)
    refuse_many(model, "export")
    task = load_task(source, model) if is_task else None
    program = write(model, to, task=task, way=way)
    inputs = program.graph_signature.user_inputs
    say(f"Wrote a program with the inputs {', '.join(map(str, inputs))}.")
    print_result(str(to))
