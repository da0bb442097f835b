"""Fine-tuning on the support of each task, and putting it on an encoder that is trained already."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from named_tasks import Words, text_task
from quickstudy.artifact import Artifact, ArtifactError, load_artifact
from quickstudy.build import BuildError, build_learner
from quickstudy.cli import main
from quickstudy.config import RunConfig
from quickstudy.derive import derive
from quickstudy.episode import Episode, Task, collate
from quickstudy.learners.base import Learner
from quickstudy.learners.closed_form import LinearHead
from quickstudy.learners.fine_tuning import FineTuning
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import Encoder, VectorEncoder
from quickstudy.nn.pretrained import HuggingFaceEncoder
from tiny_models import save_model

close = torch.testing.assert_close
NUMBERS = {"name": "vector", "inputs": 3, "width": 8, "layers": 1}


def answer(learner: Learner, episode: Episode) -> Tensor:
    found = learner.predict(
        learner.adapt(episode.support, episode.context), episode.query.x, episode.context
    )
    return learner.likelihood.probabilities(found, episode.context)


def task_of_numbers(examples: int = 9) -> Task:
    return Task(
        torch.randn(examples, 3).double(),
        torch.arange(examples) % 3,
        torch.randn(6, 3).double(),
        torch.arange(6) % 3,
        way=3,
    )


def test_one_step_is_that_of_adamw_and_the_head_is_that_of_scikit_learn() -> None:
    encoder = VectorEncoder(3, width=8, layers=1).double()
    rate, head_rate = 0.01, 0.02
    learner = FineTuning(encoder, passes=1, batch=99, rate=rate, head_rate=head_rate, penalty=0.5)
    task = task_of_numbers()
    x, y = task.support_x, task.support_y
    by_hand = copy.deepcopy(encoder)
    features = F.normalize(by_hand(x), dim=-1)
    means = torch.stack([features[y == c].mean(0) for c in range(3)])
    # The first step of AdamW: whatever the slope, as far as the rate, and a hundredth of it back to zero. With one
    # step, warming up takes no part of it.
    loss = F.cross_entropy(3 * math.log(3) * features @ F.normalize(means.detach(), dim=-1).T, y)
    loss.backward()
    with torch.no_grad():
        for value in by_hand.parameters():
            slope = value.grad
            value += -rate * slope / (slope.abs() + 1e-8) - rate * 0.01 * value
        tuned = F.normalize(by_hand(x), dim=-1)
        queries = F.normalize(by_hand(task.query_x), dim=-1)
    fitted = LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000).fit(tuned.numpy(), y.numpy())
    expected = torch.from_numpy(fitted.predict_proba(queries.numpy()))
    close(answer(learner, collate([task]))[0], expected, atol=1e-6, rtol=0)
    assert (
        answer(LinearHead(encoder, penalty=0.5), collate([task]))[0] - expected
    ).abs().max() > 1e-3


def test_with_nothing_to_tune_it_is_a_linear_head() -> None:
    encoder = VectorEncoder(3, width=8, layers=1).double().requires_grad_(False)
    episode = collate([task_of_numbers()])
    close(answer(FineTuning(encoder), episode), answer(LinearHead(encoder), episode))


def test_a_name_of_weight_two_is_two_examples() -> None:
    learner = FineTuning(Words(), names=True, passes=3, batch=99, rate=0.01).double().eval()
    deaf = FineTuning(Words(), passes=3, batch=99, rate=0.01).double().eval()
    deaf.encoder = learner.encoder
    nn.init.constant_(learner.log_name_weight, math.log(2.0))
    bare = text_task(torch.zeros(3, 0, dtype=torch.int64))
    named = bare._replace(names=torch.randint(20, (3, 4)))
    thrice = bare._replace(
        support_x=torch.cat([bare.support_x, named.names, named.names]),
        support_y=torch.cat([bare.support_y, torch.arange(3), torch.arange(3)]),
    )
    found = answer(learner, collate([named]))
    close(found, answer(deaf, collate([thrice])), atol=1e-9, rtol=1e-9)
    assert (found - answer(deaf, collate([bare]))).abs().max() > 1e-3


class Halves(Encoder):
    """Reads two tensors, with dropout between."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.inner = nn.Sequential(nn.Linear(3, 12), nn.Dropout(0.5), nn.Linear(12, 6))

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        return self.inner(torch.cat(x, -1))


def test_examples_of_several_tensors_and_dropout_by_seed() -> None:
    task = task_of_numbers(12)
    halves = [(each[:, :1], each[:, 1:]) for each in (task.support_x, task.query_x)]
    episode = collate([task._replace(support_x=halves[0], query_x=halves[1])])
    encoder = Halves().double()
    learner = FineTuning(encoder, passes=2, batch=5, rate=0.01).eval()
    found = answer(learner, episode)
    assert torch.equal(answer(learner, episode), found)
    other = FineTuning(encoder, passes=2, batch=5, rate=0.01, seed=1).eval()
    assert (answer(other, episode) - found).abs().max() > 1e-4
    assert not any(part.training for part in encoder.modules())


@pytest.mark.parametrize("option", ["passes", "batch", "rate", "head_rate", "sharpness", "penalty"])
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be .*; found 0\."):
        FineTuning(VectorEncoder(2), **{option: 0})


def trained(learner: dict[str, object] | None = None) -> Artifact:
    config = RunConfig(data="numbers", learner=learner or {"name": "protonet"}, encoder=NUMBERS)
    made = build_learner(config.learner, config.encoder).double().eval()
    facts = {"data": "numbers", "rejection": {}}
    return Artifact(made, config, {"test": {}}, id="trained", path=None, facts=facts)


def test_another_learner_has_the_same_encoder_and_what_both_know() -> None:
    artifact = trained()
    assert isinstance(artifact.learner, ProtoNet)
    nn.init.constant_(artifact.learner.log_temperature, 3.0)
    tuned = derive(artifact, {"name": "fine_tune", "passes": 3})
    assert isinstance(tuned.learner, FineTuning)
    assert tuned.learner.passes == 3
    assert tuned.learner.log_temperature.item() == 3.0
    assert tuned.learner.encoder is not artifact.learner.encoder
    x = torch.randn(4, 3).double()
    assert torch.equal(tuned.learner.encoder(x), artifact.learner.encoder(x))
    assert tuned.scores == {}
    assert tuned.facts == {"data": "numbers", "derived_from": "trained"}
    assert tuned.id != artifact.id
    back = derive(tuned, "protonet")
    episode = collate([task_of_numbers()])
    assert torch.equal(answer(back.learner, episode), answer(artifact.learner, episode))


def test_a_learner_with_weights_of_its_own_is_refused() -> None:
    with pytest.raises(
        ArtifactError, match="'relation' has weights beside the encoder that only tr"
    ):
        derive(trained(), "relation")
    with pytest.raises(BuildError, match="no learner named 'tune'"):
        derive(trained(), "tune")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from quickstudy.artifact import save_artifact

    artifact = trained()
    save_artifact(tmp_path / "old", artifact.learner, artifact.config, {})
    command = ["derive", str(tmp_path / "old"), "--out", str(tmp_path / "new"), "--learner"]
    assert main([*command, "fine_tune,passes=2"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "new")
    made = load_artifact(tmp_path / "new")
    assert isinstance(made.learner, FineTuning)
    assert made.learner.passes == 2
    assert main([*command, "fine_tune"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_adapters_go_farther_than_the_weights_beside_them(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "bert"))
    rates = [
        FineTuning(HuggingFaceEncoder(folder, words=8, **options)).rate  # type: ignore[arg-type]
        for options in ({"lora": 2}, {"frozen": False}, {"lora": 2, "layers": 1})
    ]
    assert rates == [1e-3, 1e-4, 1e-4]
