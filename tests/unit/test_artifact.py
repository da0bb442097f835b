"""Artifacts and tasks come back as they were saved; whatever was damaged is refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from quickstudy.artifact import (
    AdaptedTask,
    Artifact,
    ArtifactError,
    answer,
    base_of,
    extend,
    keep_rejection,
    load_artifact,
    load_task,
    save_artifact,
    save_task,
)
from quickstudy.build import build_learner, options_of
from quickstudy.config import RunConfig, parse_config
from quickstudy.episode import leaves
from quickstudy.learners import LEARNERS
from quickstudy.pretrained import SUMMARIES, place_of, shipped, ships
from quickstudy.rejection import Rejection

ENCODER = {"name": "vector", "inputs": 4, "width": 8, "layers": 1}
SCORES = {"validation": {"metric": "accuracy", "mean": 0.9, "ci95": 0.01, "episodes": 200}}


OF_VALUES_ALONE = (
    "neural_process",
    "autoregressive_process",
    "conditional_process",
    "bayesian_linear",
    "deep_kernel",
)


def config_of(learner: str | dict[str, Any] = "protonet") -> RunConfig:
    return parse_config({"data": "somewhere", "learner": learner, "encoder": ENCODER})


def make(path: Path, learner: str | dict[str, Any] = "protonet", *, seed: int = 0) -> Artifact:
    torch.manual_seed(seed)
    config = config_of(learner)
    built = build_learner(config.learner, config.encoder).double()
    facts = {"data": {"name": "somewhere", "licence": "CC0"}, "hardware": {"cores": 2}}
    return save_artifact(path, built, config, SCORES, facts=facts)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make(tmp_path / "run" / "artifact")


def support(count: int = 6, *, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator, dtype=torch.float64)


def test_an_artifact_comes_back_as_it_was(artifact: Artifact, tmp_path: Path) -> None:
    assert artifact.path is not None
    before = torch.get_rng_state()
    loaded = load_artifact(artifact.path)
    assert torch.equal(torch.get_rng_state(), before)  # loading draws nothing
    for name in ("config", "scores", "facts", "id", "path", "inputs"):
        assert getattr(loaded, name) == getattr(artifact, name)
    assert not loaded.learner.training
    for name, tensor in artifact.learner.state_dict().items():
        assert torch.equal(loaded.learner.state_dict()[name], tensor)
    assert load_artifact(tmp_path / "run").id == artifact.id  # the run's folder will do


def test_the_id_is_that_of_weights_and_configuration(artifact: Artifact, tmp_path: Path) -> None:
    again = make(tmp_path / "again")
    assert again.id == artifact.id
    scored = save_artifact(tmp_path / "scored", again.learner, again.config, {"test": {"mean": 1}})
    assert scored.id == artifact.id
    assert make(tmp_path / "other", seed=1).id != artifact.id


def test_the_card_says_what_a_user_needs(artifact: Artifact) -> None:
    assert artifact.path is not None
    card = (artifact.path / "README.md").read_text(encoding="utf-8")
    for words in (
        "| validation | accuracy, ?-way ?-shot | 0.9000 ± 0.0100 | 200 |",
        "- licence: CC0",
        f"Id `{artifact.id}`",
        "quickstudy adapt artifact SUPPORT",
        "quickstudy train --config run.yaml",
        "name: protonet",
        "95 % over tasks",
        "## Limits",
    ):
        assert words in card


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda a: flip_a_byte(a / "model.safetensors"), "truncated or were changed"),
        (lambda a: os.truncate(a / "model.safetensors", 200), "truncated or were changed"),
        (lambda a: (a / "model.safetensors").unlink(), "cannot be read: No such file"),
        (lambda a: (a / "config.json").unlink(), "is no artifact: it has no config.json"),
        (lambda a: os.truncate(a / "config.json", 300), "its config.json cannot be read"),
        (lambda a: (a / "config.json").write_bytes(b"\xff"), "its config.json cannot be read"),
        (lambda a: (a / "config.json").write_text("[]"), "has format None"),
        (lambda a: edit_json(a / "config.json", scores={}), "was changed after it was written"),
        (lambda a: edit_json(a / "config.json", format=99), "has format 99"),
        (shutil.rmtree, "is no artifact"),
    ],
)
def test_damage_is_refused(artifact: Artifact, damage: Any, sentence: str) -> None:
    assert artifact.path is not None
    damage(artifact.path)
    with pytest.raises(ArtifactError, match=sentence) as raised:
        load_artifact(artifact.path)
    assert "\n" not in str(raised.value)


def test_nothing_else_is_overwritten(artifact: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    file = tmp_path / "notes"
    file.write_text("more work")
    for place in (folder, file):
        with pytest.raises(ArtifactError, match="exists and is no artifact"):
            save_artifact(place, artifact.learner, artifact.config, {})
    assert (folder / "chapter.tex").exists()
    assert file.exists()


def test_saving_again_replaces_and_leaves_nothing_behind(artifact: Artifact) -> None:
    assert artifact.path is not None
    (artifact.path / "old file").write_text("")
    save_artifact(artifact.path, artifact.learner, artifact.config, {})
    names = ["README.md", "config.json", "model.safetensors"]
    assert sorted(each.name for each in artifact.path.iterdir()) == names
    assert [each.name for each in artifact.path.parent.iterdir()] == ["artifact"]


CLASSES = [name for name in LEARNERS if name not in (*OF_VALUES_ALONE, "cross_encoder")]
"""A cross-encoder reads texts alone; its artifact is in test_cross_encoder.py."""
VALUES = [name for name, each in LEARNERS.items() if "values" in options_of(each)]


@pytest.mark.parametrize("learner", CLASSES)
def test_a_task_of_every_learner_of_classes_comes_back(learner: str, tmp_path: Path) -> None:
    artifact = make(tmp_path / "artifact", learner)
    task = extend(artifact, None, support(), list("aabbcc"))
    queries = support(5, seed=2)
    assert_goes_on(artifact, task, queries, list("ca"), tmp_path)
    assert task.class_names == ["a", "b", "c"]
    probabilities = answer(artifact, task, queries)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("learner", VALUES)
def test_a_task_of_every_learner_of_values_comes_back(learner: str, tmp_path: Path) -> None:
    wrapped = {"learner": "neural_process"} if learner == "meta_transformer" else {}
    artifact = make(tmp_path / "artifact", {"name": learner, "values": 1, **wrapped})
    task = extend(artifact, None, support(), support(seed=4)[:, :1])
    assert_goes_on(artifact, task, support(5, seed=2), support(2, seed=5)[:, :1], tmp_path)
    assert answer(artifact, task, support(5, seed=2)).isfinite().all()


def assert_goes_on(
    artifact: Artifact,
    task: AdaptedTask,
    queries: torch.Tensor,
    labels: list[str] | torch.Tensor,
    folder: Path,
) -> None:
    """Saved and loaded, a task answers and learns more as if it had never been on a disk."""
    save_task(folder / "my.task", task, base=artifact.path)
    artifact = load_artifact(base_of(folder / "my.task"))
    loaded = load_task(folder / "my.task", artifact)
    assert (loaded.class_names, loaded.examples) == (task.class_names, 6)
    assert all(leaf.data_ptr() % 64 == 0 for leaf in leaves((loaded.state, loaded.context)))
    answers = answer(artifact, loaded, queries)
    assert torch.equal(answers, answer(artifact, task, queries))
    assert not answers.requires_grad
    more = extend(artifact, loaded, support(2, seed=3), labels)
    same = extend(artifact, task, support(2, seed=3), labels)
    assert torch.equal(answer(artifact, more, queries), answer(artifact, same, queries))
    assert more.examples == 8
    assert loaded.examples == 6


def test_many_queries_are_answered_as_few_are(artifact: Artifact) -> None:
    task = extend(artifact, None, support(), list("aabbcc"))
    queries = support(1100, seed=2)
    one_by_one = torch.cat([answer(artifact, task, queries[i : i + 1]) for i in (0, 600, 1099)])
    torch.testing.assert_close(answer(artifact, task, queries)[[0, 600, 1099]], one_by_one)
    assert answer(artifact, task, queries[:0]).shape == (0, 3)


def test_classes_can_be_named_before_they_are_seen(artifact: Artifact) -> None:
    task = extend(artifact, None, support(1), ["b"], class_names=["a", "b"])
    assert task.class_names == ["a", "b"]
    assert answer(artifact, task, support(1))[0].argmax() == 1
    assert extend(artifact, task, support(2)[1:], ["a"]).examples == 2


def test_a_task_may_get_new_classes(artifact: Artifact, tmp_path: Path) -> None:
    task = extend(artifact, None, support(4), list("aabb"))
    save_task(tmp_path / "a.task", task)
    task = load_task(tmp_path / "a.task", artifact)
    grown = extend(artifact, task, support(2), ["d", "c"], new_classes=True)
    assert (grown.class_names, grown.examples) == (["a", "b", "c", "d"], 6)
    assert task.class_names == ["a", "b"]
    x = torch.cat([support(4), support(2)])
    whole = extend(artifact, None, x, [*"aabb", "d", "c"])
    close = torch.testing.assert_close
    close(answer(artifact, grown, support()), answer(artifact, whole, support()))
    save_task(tmp_path / "b.task", grown)
    kept = load_task(tmp_path / "b.task", artifact)
    close(answer(artifact, kept, support()), answer(artifact, grown, support()))
    artifact.learner.grows = False  # type: ignore[misc]
    with pytest.raises(
        ArtifactError, match="The class 'e' is new, but tasks of the learner protonet"
    ):
        extend(artifact, task, support(1), ["e"], new_classes=True)
    assert extend(artifact, task, support(1), ["a"], new_classes=True).class_names == ["a", "b"]


def test_wrong_labels_are_refused(artifact: Artifact) -> None:
    task = extend(artifact, None, support(), list("aabbcc"))
    with pytest.raises(ArtifactError, match="one class only, 'a'"):
        extend(artifact, None, support(2), ["a", "a"])
    with pytest.raises(ArtifactError, match=r"label 'd' is not among the classes .* a, b, c"):
        extend(artifact, task, support(1), ["d"])
    with pytest.raises(ArtifactError, match="2 examples and 1 labels"):
        extend(artifact, task, support(2), ["a"])
    with pytest.raises(ArtifactError, match="at least one example"):
        extend(artifact, None, support(0), [])


def test_a_task_of_another_artifact_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    other = make(tmp_path / "other", seed=1)
    task = extend(artifact, None, support(), list("aabbcc"))
    save_task(tmp_path / "my.task", task)
    both = f"{artifact.id}, but {other.id}"
    for attempt in (
        lambda: load_task(tmp_path / "my.task", other),
        lambda: answer(other, task, support()),
        lambda: extend(other, task, support(1), ["a"]),
    ):
        with pytest.raises(ArtifactError, match=both):
            attempt()


def rewritten(path: Path, **changes: Any) -> None:
    """The task file with other facts in it, as somebody might edit it."""
    with safetensors.safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["quickstudy"])
    save_file(load_file(path), path, metadata={"quickstudy": json.dumps(facts | changes)})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (flip_a_byte, "was changed after"),
        (lambda p: rewritten(p, class_names=["x", "y", "z"]), "was changed after"),
        (lambda p: os.truncate(p, 40), "is no task file, or it is truncated"),
        (lambda p: p.write_text("text"), "is no task file"),
        (lambda p: save_file({"a": torch.zeros(1)}, p), "is no task file"),
        (lambda p: p.unlink(), "There is no task file"),
    ],
)
def test_a_damaged_task_is_refused(
    artifact: Artifact, tmp_path: Path, damage: Any, sentence: str
) -> None:
    path = tmp_path / "my.task"
    save_task(path, extend(artifact, None, support(), list("aabbcc")))
    damage(path)
    with pytest.raises(ArtifactError, match=sentence):
        load_task(path, artifact)


def test_a_task_finds_its_artifact(artifact: Artifact, tmp_path: Path) -> None:
    task: AdaptedTask = extend(artifact, None, support(), list("aabbcc"))
    run = tmp_path / "run"
    save_task(run / "my.task", task, base=artifact.path)
    shutil.copy(run / "my.task", tmp_path / "moved.task")
    assert base_of(tmp_path / "moved.task") == artifact.path  # the file was moved
    run.rename(tmp_path / "elsewhere")
    assert base_of(tmp_path / "elsewhere/my.task") == tmp_path / "elsewhere/artifact"  # the run was
    with pytest.raises(ArtifactError, match=f"needs the artifact {artifact.id}, which is not at"):
        base_of(tmp_path / "moved.task")


def test_a_task_whose_inner_loop_diverges_is_no_task(tmp_path: Path) -> None:
    artifact = make(tmp_path / "run" / "artifact", "maml")
    artifact.learner.sizes.rate = 1e200
    told = "The task cannot be learned: inner step . of task 0 made .*; check the examples"
    with pytest.raises(ArtifactError, match=told):
        extend(artifact, None, support(), list("aabbcc"))


def test_a_shipped_artifact_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_artifact("tables").path == shipped("tables")
    assert load_artifact("tables/values").path == shipped("tables", "values")
    assert all(ships(place_of(name)) for name in SUMMARIES)
    with pytest.raises(ArtifactError, match="ships with the package and stays as it is"):
        keep_rejection(
            load_artifact("tables"), Rejection("probability", 0.5, 0.95, 5, 5, "validation")
        )
    (tmp_path / "tables").mkdir()
    with pytest.raises(ArtifactError, match="tables is no artifact"):
        load_artifact("tables")
