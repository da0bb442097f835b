"""Exported programs against the learners that they were made of, at many sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from quickstudy.artifact import Artifact, ArtifactError, answer, extend, save_artifact, save_task
from quickstudy.build import build_learner
from quickstudy.cli import main
from quickstudy.config import parse_config
from quickstudy.export import Unadapted, export

VECTOR = {"name": "vector", "inputs": 6, "width": 8, "layers": 1}
IN_CONTEXT = {"name": "in_context", "width": 16, "layers": 1, "heads": 2, "bank": 5}
PROCESS = {"name": "neural_process", "values": 1, "width": 8, "heads": 2}
SIZES = [(1, 1, 1), (2, 5, 4), (4, 20, 33), (1, 50, 2)]
"""Tasks, support examples and queries."""


def artifact_of(learner: dict[str, Any], encoder: dict[str, Any] | None = None) -> Artifact:
    config = parse_config({"data": "toy", "learner": learner, "encoder": encoder or VECTOR})
    torch.manual_seed(0)
    built = build_learner(config.learner, config.encoder).eval()
    with torch.no_grad():
        for value in built.parameters():
            value += 0.1 * torch.randn_like(value)
    return Artifact(built, config, {}, "0123456789abcdef", None)


def inputs_of(
    tasks: int, support: int, queries: int, *, values: bool = False, columns: int = 6
) -> dict[str, Tensor]:
    given = {
        "support_x": torch.randn(tasks, support, columns),
        "support_y": torch.randint(5, (tasks, support)),
        "support_mask": torch.rand(tasks, support) > 0.2,
        "classes": torch.arange(5).expand(tasks, 5) < torch.randint(2, 6, (tasks, 1)),
        "query_x": torch.randn(tasks, queries, columns),
    }
    if values:
        given["support_y"] = torch.randn(tasks, support, 1)
        given["classes"] = torch.ones(tasks, 1, dtype=torch.bool)
    return given


def expected(artifact: Artifact, given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        found: tuple[Tensor, ...] = Unadapted(artifact.learner)(**given)
    return found


def close(found: Any, wanted: Tensor) -> None:
    np.testing.assert_allclose(np.asarray(found), wanted.numpy(), rtol=0, atol=1e-5)


def run(path: Path, given: dict[str, Tensor], *names: str) -> list[np.ndarray]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(names, {name: x.numpy() for name, x in given.items()})


def test_an_in_context_learner_runs_in_onnxruntime_at_any_size(tmp_path: Path) -> None:
    """With more classes than its bank has, which it answers in groups."""
    artifact = artifact_of(IN_CONTEXT | {"bank": 3})
    path = tmp_path / "model.onnx"
    program = export(artifact, path, way=5).module()
    for size in SIZES:
        given = inputs_of(*size)
        wanted = expected(artifact, given)[0]
        close(run(path, given, "probabilities")[0], wanted)
        close(program(**given)[0].detach(), wanted)


def test_functions_of_raw_numbers_run_in_onnxruntime_at_any_size(tmp_path: Path) -> None:
    artifact = artifact_of(PROCESS | {"layers": 2, "rank": 2}, {"name": "raw", "inputs": 2})
    path = tmp_path / "model.onnx"
    program = export(artifact, path).module()
    for size in SIZES:
        given = inputs_of(*size, values=True, columns=2)
        found = zip(run(path, given, "mean", "deviation"), program(**given), strict=True)
        for (one, other), wanted in zip(found, expected(artifact, given), strict=True):
            close(one, wanted)
            close(other.detach(), wanted)


def test_a_task_runs_in_onnxruntime_with_any_number_of_queries(tmp_path: Path) -> None:
    artifact = artifact_of(IN_CONTEXT | {"ensemble": 2})
    labels = ["sun", "moon", "star"] * 4
    task = extend(artifact, None, torch.randn(12, 6), labels)
    path = tmp_path / "task.onnx"
    export(artifact, path, task=task)
    for queries in (1, 3, 40):
        x = torch.randn(queries, 6)
        close(run(path, {"query_x": x}, "probabilities")[0], answer(artifact, task, x))


@pytest.mark.parametrize(
    "learner",
    [
        {"name": "matching"},
        {"name": "relation"},
        {"name": "feat"},
        {"name": "conditional_process", "values": 1},
    ],
    ids=lambda learner: learner["name"],
)
def test_learners_without_an_inner_loop_run_in_torch_alone(
    learner: dict[str, Any], tmp_path: Path
) -> None:
    artifact = artifact_of(learner)
    path = tmp_path / "model.pt2"
    export(artifact, path, way=5)
    program = torch.export.load(path).module()
    for size in SIZES:
        given = inputs_of(*size, values="values" in learner)
        for found, wanted in zip(program(**given), expected(artifact, given), strict=True):
            close(found.detach(), wanted)


def test_images_are_bytes(tmp_path: Path) -> None:
    image = {"name": "image", "width": 8, "layers": 1, "heads": 2}
    artifact = artifact_of({"name": "protonet"}, image)
    path = tmp_path / "model.pt2"
    export(artifact, path, way=3)
    program = torch.export.load(path).module()
    for tasks, support, queries in SIZES[:3]:
        classes = torch.ones(tasks, 3, dtype=torch.bool)
        given = inputs_of(tasks, support, queries) | {"classes": classes}
        given["support_y"] %= 3
        for name, count in (("support_x", support), ("query_x", queries)):
            given[name] = torch.randint(256, (tasks, count, 1, 28, 28), dtype=torch.uint8)
        close(program(**given)[0].detach(), expected(artifact, given)[0])


@pytest.mark.parametrize(
    ("learner", "encoder", "name", "message"),
    [
        ({"name": "maml"}, None, "model.pt2", "takes gradients while it adapts"),
        ({"name": "cavia"}, None, "model.pt2", "cannot be written as one program"),
        ({"name": "ridge"}, None, "model.pt2", "tasks of different sizes in different ways"),
        ({"name": "protonet"}, None, "model.zip", "ends in .onnx or .pt2; found 'model.zip'"),
        ({"name": "protonet"}, {"name": "table"}, "model.pt2", "rows of numbers"),
    ],
)
def test_what_cannot_be_exported_is_named(
    learner: dict[str, Any], encoder: dict[str, Any] | None, name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=message):
        export(artifact_of(learner, encoder), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_models_and_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = artifact_of({"name": "protonet"})
    artifact = save_artifact(tmp_path / "model", made.learner, made.config, {})
    task = extend(artifact, None, torch.randn(4, 6), ["a", "b"] * 2)
    save_task(tmp_path / "some.task", task, base=artifact.path)
    out = tmp_path / "task.pt2"
    words = ["export", str(tmp_path / "some.task"), "--to", str(out)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{out}\n"
    x = torch.randn(3, 6)
    close(torch.export.load(out).module()(query_x=x)[0].detach(), answer(artifact, task, x))
    assert main(words) == 2
    assert "--replace" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none.task"), "--to", str(tmp_path / "none.pt2")]) == 1
    assert "There is no task file" in capsys.readouterr().err
    assert main([*words, "--replace", "--way", "3"]) == 2
    assert "leave --way out" in capsys.readouterr().err


def shaped(shape: str, learner: dict[str, Any], **options: Any) -> dict[str, Any]:
    wrapped = {"name": "meta_transformer", "width": 8, "heads": 2, "shape": shape}
    return wrapped | {"learner": learner} | options


def test_what_is_shaped_for_each_task_runs_in_onnxruntime_at_any_size(tmp_path: Path) -> None:
    artifact = artifact_of(shaped("film", {"name": "protonet"}))
    path = tmp_path / "model.onnx"
    export(artifact, path, way=5)
    for size in SIZES:
        given = inputs_of(*size)
        close(run(path, given, "probabilities")[0], expected(artifact, given)[0])


@pytest.mark.parametrize("shape", ["film", "lora", "none"])
@pytest.mark.parametrize("name", ["protonet", "in_context"])
def test_what_is_shaped_for_each_task_runs_in_torch_alone(
    name: str, shape: str, tmp_path: Path
) -> None:
    artifact = artifact_of(shaped(shape, {"protonet": {"name": name}}.get(name, IN_CONTEXT)))
    program = export(artifact, tmp_path / "model.pt2", way=5).module()
    for size in SIZES:
        given = inputs_of(*size)
        close(program(**given)[0].detach(), expected(artifact, given)[0])


def test_shaped_functions_and_images_run_in_torch_alone(tmp_path: Path) -> None:
    process = artifact_of(
        shaped("film", {"name": "neural_process", "width": 8, "heads": 2}, values=1),
        {"name": "raw", "inputs": 2},
    )
    program = export(process, tmp_path / "process.pt2").module()
    for size in SIZES:
        given = inputs_of(*size, values=True, columns=2)
        for found, wanted in zip(program(**given), expected(process, given), strict=True):
            close(found.detach(), wanted)
    images = artifact_of(
        shaped("film", {"name": "protonet"}), {"name": "image", "width": 8, "size": 8}
    )
    program = export(images, tmp_path / "images.pt2", way=5).module()
    for tasks, support, queries in SIZES:
        given = inputs_of(tasks, support, queries) | {
            name: torch.randint(0, 256, (tasks, examples, 1, 8, 8), dtype=torch.uint8)
            for name, examples in (("support_x", support), ("query_x", queries))
        }
        close(program(**given)[0].detach(), expected(images, given)[0])


def test_a_model_that_reads_names_is_exported_without_them(tmp_path: Path) -> None:
    artifact = artifact_of(shaped("film", {"name": "protonet"}, names=True))
    program = export(artifact, tmp_path / "model.pt2", way=5).module()
    for size in SIZES:
        given = inputs_of(*size)
        close(program(**given)[0].detach(), expected(artifact, given)[0])


def test_what_onnx_has_no_operation_for_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("a page of advice on the converter's own insides")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ArtifactError, match=r"ONNX has no operation .*write a \.pt2 file"):
        export(artifact_of({"name": "matching"}), tmp_path / "model.onnx", way=5)
    assert not list(tmp_path.iterdir())


def test_a_task_whose_classes_have_names_keeps_them(tmp_path: Path) -> None:
    """In its program, as it was shaped, and with a class that has no example."""
    artifact = artifact_of(shaped("film", {"name": "protonet"}, names=True))
    labels = ["sun", "moon", "star"] * 4
    names = [*sorted(set(labels)), "comet"]
    task = extend(artifact, None, torch.randn(12, 6), labels, class_names=names)
    program = export(artifact, tmp_path / "task.pt2", task=task).module()
    for queries in (1, 3, 40):
        x = torch.randn(queries, 6)
        found = program(query_x=x)[0].detach()
        assert found.shape == (queries, 4)
        close(found, answer(artifact, task, x))


def test_what_takes_inner_steps_is_no_one_program(tmp_path: Path) -> None:
    artifact = artifact_of(shaped("film", {"name": "maml", "steps": 1}))
    with pytest.raises(ArtifactError, match="takes gradients while it adapts"):
        export(artifact, tmp_path / "model.pt2", way=5)
