"""Training against a plain loop, its schedule, its budgets, and what it refuses."""

from __future__ import annotations

import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

sys.path.append(str(Path(__file__).parents[1] / "system"))

from toy import ToySource, rows, signal_at, toy_config

from quickstudy import training
from quickstudy.artifact import load_artifact, save_artifact
from quickstudy.build import build_learner
from quickstudy.config import ConfigError, RunConfig, with_overrides
from quickstudy.data import SOURCES
from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.data.source import DataError
from quickstudy.episode import Episode, tree_map
from quickstudy.learners.context import InContext
from quickstudy.learners.metric import ProtoNet
from quickstudy.likelihood import Categorical
from quickstudy.training import Interrupted, TrainingError, train
from quickstudy.training.module import MetaTraining
from quickstudy.training.optimizer import Muon


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "toy", ToySource)


def by_hand(config: RunConfig) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """The same training as a plain loop: last weights, and their moving average."""
    part = config.training
    torch.manual_seed(part.seed)
    source = ToySource()
    learner = build_learner(config.learner, config.encoder).double()
    count = part.steps * config.episode.tasks * part.accumulate
    design = EpisodeDesign(config.episode.way, config.episode.shot, config.episode.queries)
    tasks = Episodes(source, "train", design, length=count, seed=part.seed, augment=True)
    weights = list(learner.parameters())
    if part.optimizer == "muon":
        optimizer: torch.optim.Optimizer = Muon(
            [
                {"params": [w for w in weights if w.ndim > 1], "orthogonal": True},
                {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
            ],
            weight_decay=part.weight_decay,
        )
    else:
        optimizer = torch.optim.AdamW(
            [
                {"params": [w for w in weights if w.ndim > 1], "weight_decay": part.weight_decay},
                {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
            ]
        )
    average = [w.detach().clone() for w in weights]
    each = config.episode.tasks
    for step in range(part.steps):
        share = max(0, step - part.warmup) / (part.steps - part.warmup)
        for group in optimizer.param_groups:
            rise = min(1, (step + 1) / part.warmup)
            left = (1 + math.cos(math.pi * share)) / 2 if part.schedule == "cosine" else 1 - share
            group["lr"] = part.rate * rise * left
        optimizer.zero_grad()
        for batch in range(step * part.accumulate, (step + 1) * part.accumulate):
            drawn = [tasks[batch * each + i] for i in range(each)]
            episode = tree_map(lambda *parts: torch.cat(parts), *drawn)
            episode = tree_map(lambda t: t.double() if t.is_floating_point() else t, episode)
            (learner(episode) / part.accumulate).backward()
        if part.sharpness:
            here = [w.detach().clone() for w in weights]
            length = torch.cat([w.grad.flatten() for w in weights]).norm()
            with torch.no_grad():
                for w in weights:
                    w += part.sharpness * w.grad / length
            optimizer.zero_grad()
            learner(episode).backward()
            with torch.no_grad():
                for w, old in zip(weights, here, strict=True):
                    w.copy_(old)
        clip_grad_norm_(weights, part.clip)
        optimizer.step()
        decay = min(part.average, (1 + step) / (10 + step))
        for mean, weight in zip(average, weights, strict=True):
            mean.mul_(decay).add_(weight.detach(), alpha=1 - decay)
    return learner.state_dict(), average


@pytest.mark.parametrize(
    "choice",
    [
        {"optimizer": "muon", "schedule": "linear", "accumulate": 2},
        {"optimizer": "adamw", "schedule": "cosine", "accumulate": 2},
        {"optimizer": "adamw", "sharpness": 0.3},
        {"optimizer": "muon", "sharpness": 0.3},
    ],
    ids=lambda choice: "-".join(map(str, choice.values())),
)
def test_it_equals_a_plain_loop(tmp_path: Path, choice: dict[str, Any]) -> None:
    config = toy_config(precision="64-true", average=0.8, clip=0.5, steps=10, **choice)
    train(config, tmp_path, progress=False)
    found = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    weights, average = by_hand(config)
    for name, tensor in weights.items():
        torch.testing.assert_close(
            found["state_dict"][f"learner.{name}"], tensor, rtol=0, atol=1e-12
        )
    torch.testing.assert_close(found["run"]["average"], average, rtol=0, atol=1e-12)


WITH_DROPOUT = "learner={name: in_context, width: 8, layers: 1, heads: 2, bank: 4, dropout: 0.2}"


def test_both_gradients_of_a_sharpness_aware_step_drop_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    plain = InContext.outputs

    def watched(self: InContext, episode: Episode) -> torch.Tensor:
        seen.append((torch.get_rng_state(), episode.query.y))
        return plain(self, episode)

    monkeypatch.setattr(InContext, "outputs", watched)
    config = with_overrides(toy_config(steps=3, sharpness=0.1), [WITH_DROPOUT])
    train(config, tmp_path, progress=False)
    assert len(seen) == 6
    for here, there in zip(seen[::2], seen[1::2], strict=True):
        assert all(map(torch.equal, here, there))
    assert not torch.equal(seen[0][0], seen[2][0])


def test_a_sharpness_aware_run_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(toy_config(steps=9, sharpness=0.1, average=0.9), [WITH_DROPOUT])
    train(config, tmp_path / "whole", progress=False)
    monkeypatch.setattr(ToySource, "on_draw", staticmethod(signal_at(36, signal.SIGTERM)))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "broken", progress=False)
    train(config, tmp_path / "broken", progress=False, resume=True)
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    whole, broken = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        for name in ("whole", "broken")
    )
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(broken[part], whole[part], rtol=0, atol=0)
    torch.testing.assert_close(broken["run"]["average"], whole["run"]["average"], rtol=0, atol=0)


def test_the_loss_that_is_told_is_the_one_here(tmp_path: Path) -> None:
    plain, sharp = (
        train(toy_config(steps=1, sharpness=distance), tmp_path / str(distance), progress=False)
        for distance in (0.0, 0.5)
    )
    told = [rows(tmp_path / name)[1][1] for name in ("0.0", "0.5")]
    assert told[0] == told[1] != ""
    assert plain.id != sharp.id


def test_what_is_kept_is_the_average_that_did_best(tmp_path: Path) -> None:
    artifact = train(toy_config(steps=12), tmp_path, progress=False)
    table = rows(tmp_path)
    column = table[0].index("validation_accuracy")
    seen = {int(row[0]): float(row[column]) for row in table[1:] if row[column]}
    assert list(seen) == [4, 8, 12]
    score = artifact.scores["validation"]
    assert score["step"] == max(seen, key=lambda step: seen[step])
    assert score["mean"] == max(seen.values())
    assert artifact.facts["data"]["licence"] == "none needed"


def test_of_models_of_values_the_likeliest_is_kept(tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "data": "sinusoid",
            "learner": {"name": "conditional_process", "width": 8, "values": 1},
            "encoder": {"name": "raw", "inputs": 1},
            "episode": {"shot": 5, "queries": 9, "tasks": 2},
            "validation": {"shot": 5, "queries": 9, "episodes": 4, "every": 2},
            "training": {"steps": 16, "rate": 0.05},
        }
    )
    artifact = train(config, tmp_path, progress=False)
    table = rows(tmp_path)
    column = table[0].index("validation_loss")
    seen = {int(row[0]): float(row[column]) for row in table[1:] if row[column]}
    assert len(seen) == 8
    assert artifact.scores["validation"]["step"] == min(seen, key=lambda step: seen[step])


def module_at(step: int, *, elapsed: float = 0.0, **options: Any) -> MetaTraining:
    config = toy_config(steps=100, warmup=10, rate=1.0, **options)
    module = MetaTraining(build_learner(config.learner, config.encoder), config)
    module.step, module.elapsed = step, elapsed
    return module


def test_the_rate_rises_and_falls_by_steps_or_time_whichever_is_further() -> None:
    assert module_at(0).rate() == pytest.approx(0.1)
    assert module_at(10).rate() == pytest.approx(1.0)
    assert module_at(55).rate() == pytest.approx(0.5)
    assert module_at(100).rate() == pytest.approx(0.0)
    assert module_at(55, minutes=1, elapsed=3).rate() == pytest.approx(0.5)
    assert module_at(11, minutes=1, elapsed=30).rate() == pytest.approx(0.5)
    assert module_at(11, minutes=1, elapsed=61).rate() == pytest.approx(0.0)


def test_the_share_that_is_over_is_a_function_of_the_step_or_of_the_time() -> None:
    assert [module_at(step).share() for step in (0, 50, 100, 120)] == [0.0, 0.5, 1.0, 1.0]
    assert module_at(50, minutes=1, elapsed=45).share() == 0.75


def test_the_learner_is_told_how_far_the_training_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(ProtoNet, "progress", lambda self, share: told.append(share))
    config = toy_config(steps=5, accumulate=2)
    train(config, tmp_path, progress=False)
    expected = [share for share in (0.0, 0.2, 0.4, 0.6, 0.8) for _ in range(2)]
    assert told == pytest.approx([*expected, 1.0])
    told.clear()
    longer = with_overrides(config, ["training.steps=10"])
    train(longer, tmp_path, progress=False, resume=True)
    assert told[:2] == [0.5, 0.5]


def test_a_budget_of_time_ends_with_a_validation(tmp_path: Path) -> None:
    config = toy_config(steps=100_000, minutes=0.005)
    config = with_overrides(config, ["validation.every=100000"])
    artifact = train(config, tmp_path, progress=False)
    steps = artifact.facts["training"]["steps"]
    assert 0 < steps < 100_000
    assert artifact.scores["validation"]["step"] == steps


def test_patience_ends_a_run_that_does_not_improve(tmp_path: Path) -> None:
    config = with_overrides(toy_config(steps=60, rate=1e-12, patience=2), ["validation.every=2"])
    artifact = train(config, tmp_path, progress=False)
    assert artifact.scores["validation"]["step"] == 2
    assert artifact.facts["training"]["steps"] == 6


def test_a_dry_run_leaves_nothing_and_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = train(toy_config(), tmp_path / "run", dry_run=True)
    assert artifact.path is None
    assert artifact.facts["training"]["steps"] == 1
    assert artifact.facts["training"]["parameters"] == 145
    assert not (tmp_path / "run").exists()
    assert capfd.readouterr() == ("", "")


def test_tensorboard_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(toy_config(steps=2, logger="tensorboard"), tmp_path)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert capfd.readouterr() == ("", "")


def test_frozen_weights_stay_and_are_in_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def frozen(*parts: Any) -> Any:
        learner = build_learner(*parts)
        learner.encoder.embed.requires_grad_(False)
        return learner

    monkeypatch.setattr(training, "build_learner", frozen)
    config = toy_config(steps=4)
    torch.manual_seed(config.training.seed)
    before = frozen(config.learner, config.encoder).encoder.embed.weight
    artifact = train(config, tmp_path, progress=False)
    assert torch.equal(artifact.learner.encoder.embed.weight, before)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert not any("embed" in name for name in saved["state_dict"])
    longer = with_overrides(config, ["training.steps=6"])
    resumed = train(longer, tmp_path, progress=False, resume=True)
    assert torch.equal(resumed.learner.encoder.embed.weight, before)


def test_a_loss_that_is_not_finite_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToySource, "augment", lambda self, x, generator: x * math.nan)
    with pytest.raises(TrainingError, match=r"became nan .* lower training\.rate \(0\.01\)"):
        train(toy_config(), tmp_path, progress=False)


def test_an_inner_loop_that_diverges_is_told_by_its_steps(tmp_path: Path) -> None:
    config = toy_config().model_copy(update={"learner": {"name": "maml", "rate": 1e25}})
    told = r"In step 1, inner step \d of task \d made the (loss|weight \S+) infinite .* the losses"
    with pytest.raises(TrainingError, match=told):
        train(config, tmp_path, progress=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["training.precision=16-mixed"], "16-mixed needs a GPU"),
        (["training.devices=3"], "4 tasks of a step cannot be shared equally by 3 processes"),
        (["training.nodes=4", "validation.episodes=2"], "2 validation tasks are too few for 4"),
    ],
)
def test_what_cannot_work_is_refused_first(
    options: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        train(with_overrides(toy_config(), options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_fill_the_tasks_are_refused_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Episodes of 40 classes"):
        train(with_overrides(toy_config(), ["episode.way=40"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_malware_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.lightning, "__version__", "2.6.3")
    with pytest.raises(TrainingError, match="malware"):
        train(toy_config(), tmp_path / "run")


@pytest.mark.parametrize("metric", ["accuracy", "nats"])
def test_weights_whose_answers_are_finite_are_preferred_to_any_others(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Categorical.task_nll
    calls = []

    def broken_at_first(self: Categorical, *given: Any) -> torch.Tensor:
        found = plain(self, *given)
        if torch.is_grad_enabled():
            return found
        calls.append(1)
        return found * math.nan if len(calls) <= 1 else found

    monkeypatch.setattr(Categorical, "task_nll", broken_at_first)
    monkeypatch.setattr(Categorical, "metric", metric)
    config = with_overrides(toy_config(steps=6), ["validation.every=2", "validation.episodes=2"])
    artifact = train(config, tmp_path, progress=False)
    assert artifact.facts["training"]["best_step"] > 2
    warned = [each for each in caplog.messages if "not finite" in each]
    assert len(warned) == 1
    assert warned[0].startswith("After step 2 the answers to some validation tasks are not finite;")
    assert "Lower training.rate (0.01)" in warned[0]


def test_scores_that_are_not_finite_leave_a_json_that_everybody_reads(tmp_path: Path) -> None:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    learner = build_learner(toy_config().learner, toy_config().encoder)
    scores = {"validation": {"metric": "accuracy", "mean": math.nan, "ci95": math.inf}}
    save_artifact(tmp_path / "artifact", learner, toy_config(), scores)
    text = (tmp_path / "artifact" / "config.json").read_text()
    assert json.loads(text, parse_constant=no_constant)["scores"]["validation"]["mean"] is None
    assert load_artifact(tmp_path / "artifact").scores["validation"]["ci95"] is None
    assert "not finite ± not finite" in (tmp_path / "artifact" / "README.md").read_text()


def test_a_run_does_not_end_before_the_step_it_has_reached(tmp_path: Path) -> None:
    train(toy_config(steps=6), tmp_path, progress=False)
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="has 6 steps already and cannot end after 4; set"):
        train(toy_config(steps=4), tmp_path, resume=True, progress=False)
    assert (tmp_path / "config.yaml").read_bytes() == before
    assert train(toy_config(steps=6), tmp_path, resume=True, progress=False).scores


def test_warmup_takes_a_third_of_a_short_run_at_most() -> None:
    config = toy_config(steps=9, warmup=50, rate=1.0, schedule="linear")
    module = MetaTraining(build_learner(config.learner, config.encoder), config)
    rates = []
    for module.step in range(9):
        rates.append(module.rate())
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
