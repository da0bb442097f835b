"""What Lightning's Trainer runs: a module that takes steps and validates.

Everything random is a function of the seed and the step, so a run that was stopped goes on as if it
had not been, and the number of processes or workers changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from quickstudy.config import ConfigError, RunConfig, parse_config
from quickstudy.durable import ArtifactError
from quickstudy.episode import Episode, Stream, positions
from quickstudy.functional import widened
from quickstudy.learners.base import Learner
from quickstudy.learners.streams import stream_outputs
from quickstudy.training.optimizer import optimizer_of, uphill
from quickstudy.training.plateau import PlateauWatch, log
from quickstudy.training.tasks import Drawn
from quickstudy.training.threads import TaskThreads


class TrainingError(RuntimeError):
    """A training that cannot go on; the message says what happened and what to change."""


class MetaTraining(pl.LightningModule):  # type: ignore[misc]
    """Fits a learner's weights to tasks, and keeps those that do best on the validation tasks: accuracy, or likelihood.

    ``θ ← Muon(θ, ∇ mean_t meta_loss_t(θ))``, or AdamW, with a rate that rises over ``warmup`` steps and then falls to
    zero along a line or a cosine, and ``θ̄ ← d θ̄ + (1 - d) θ`` with ``d = min(average, (1 + n) / (10 + n))``, which is
    what is validated and kept. With ``sharpness``, the gradient is taken :func:`quickstudy.training.optimizer.uphill`.

    Args:
        learner: whose weights.
        config: the run.
    """

    def __init__(self, learner: Learner, config: RunConfig) -> None:
        super().__init__()
        self.learner, self.config = learner, config
        self.step = 0
        self.elapsed = 0.0
        self.row: dict[str, float] = {}
        self.best: dict[str, Any] = {
            "step": -1,
            "validations_since": 0,
            "merit": -math.inf,
            "scores": None,
            "weights": {},
        }
        self.metric = learner.likelihood.metric
        self._loss, self._losses = torch.zeros(()), 0
        self._plateau = PlateauWatch(learner.likelihood, config)
        self._trouble, self._has_diverged = "", False
        self._is_uphill = False
        self._threads: TaskThreads | None = None
        self._average: list[Tensor] = []
        self._started = 0.0
        self._validation_started = self._validation_seconds = 0.0
        self._scores, self._nll = torch.zeros(0), torch.zeros(0)
        self.strict_loading = False  # frozen weights are not in a checkpoint

    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, p) for name, p in self.learner.named_parameters() if p.requires_grad]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        training = self.config.training
        return optimizer_of(
            self.learner,
            training.optimizer,
            rate=training.rate,
            weight_decay=training.weight_decay,
            # Lightning does not clip for a fused one under autocast.
            fused="mixed" not in training.precision,
        )

    def on_train_start(self) -> None:
        if self.config.training.average and not self._average:
            self._average = [p.detach().clone() for _, p in self._trained()]
        self._average = [tensor.to(self.device) for tensor in self._average]
        self._loss = self._loss.to(self.device)
        if self.config.training.threads > 1:
            if self.device.type != "cpu":
                raise ConfigError(
                    f"training.threads shares tasks out among the cores of a CPU; found the device {self.device}. "
                    "Leave it out, or set training.accelerator=cpu."
                )
            self._threads = TaskThreads(self.learner, self.config.training.threads)
        self._started = time.monotonic() - self.elapsed

    def _measure_time(self) -> None:
        """Seconds since the first step, the same in every process."""
        self.elapsed = time.monotonic() - self._started
        if self.config.training.minutes is not None and self.trainer.world_size > 1:
            now = (self.elapsed, self._validation_seconds)
            self.elapsed, self._validation_seconds = self.trainer.strategy.broadcast(now)

    def share(self, *, after: int = 0) -> float:
        """How much of the training is over, counted from the step ``after``: of its steps or of its minutes, the more.

        It is a function of the step alone where no minutes are set, 0 … 1.
        """
        training = self.config.training
        share = (self.step - after) / max(1, training.steps - after)
        if training.minutes is not None:
            share = max(share, self.elapsed / (60 * training.minutes))
        return min(max(share, 0.0), 1.0)

    def rate(self) -> float:
        """The learning rate of this step."""
        training = self.config.training
        warmup = min(training.warmup, training.steps // 3)
        rise = min(1.0, (self.step + 1) / max(1, warmup))
        left = 1 - self.share(after=warmup)
        if training.schedule == "cosine":
            left = 0.5 * (1 - math.cos(math.pi * left))
        return training.rate * rise * left

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._measure_time()
        (self._threads or self.learner).progress(self.share())
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.rate()
        self._seed(batch_idx % self.config.training.accumulate)

    def _seed(self, part: int) -> None:
        """What a learner draws for itself (dropout) is a function of the step as well."""
        key = [self.config.training.seed, self.step, part, self.global_rank]
        number = int(np.random.SeedSequence(key).generate_state(1)[0])
        # torch.manual_seed would do, but it formats the stack for every kind of accelerator that is absent, which takes
        # a millisecond.
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def training_step(self, batch: Drawn, batch_idx: int) -> Tensor:
        horizon, episodes = self.config.episode.horizon, positions(batch[1])
        loss: Tensor = (self._threads or self.learner)(batch[1], horizon=horizon)
        if self._is_uphill:
            return loss
        # Where a step is long or nothing runs ahead, looking at once costs nothing, and tells most.
        look = self.learner.inner_loop or self.device.type == "cpu"
        if look:
            self._look(loss, episodes[0], f"step {self.step + 1}")
        self._loss += loss.detach()
        self._losses += 1
        for episode in episodes:
            self._plateau.meet(episode)
        return loss

    def _look(self, loss: Tensor, episode: Episode, when: str) -> None:
        """Keep why a loss is not finite, the first time that one is not, if the learner can tell."""
        if self._trouble or bool(loss.isfinite().all()):
            return
        found = self.learner.trouble(episode.support, episode.context)
        self._trouble = f" In {when}, {found}." if found else ""

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any]
    ) -> None:
        closure = optimizer_closure
        if self.config.training.sharpness:
            closure = partial(self._sharpness_aware, optimizer_closure)
        super().optimizer_step(epoch, batch_idx, optimizer, closure)
        self._update_average()
        self.step += 1
        training = self.config.training
        if self.step >= training.steps:
            self.trainer.should_stop = True
        elif training.minutes is not None:
            left = 60 * training.minutes - self.elapsed
            self.trainer.should_stop = left <= self._validation_seconds

    def _sharpness_aware(self, closure: Callable[[], Any]) -> Any:
        """The loss here, and the gradient uphill of here, of the same tasks and random numbers.

        Both gradients are means over all processes, so all go the same way.
        """
        loss = closure()
        self._seed(0)
        self._is_uphill = True
        try:
            with uphill((p for _, p in self._trained()), self.config.training.sharpness):
                closure()
        finally:
            self._is_uphill = False
        return loss

    def on_train_end(self) -> None:
        self.learner.progress(1.0)

    def _update_average(self) -> None:
        if self._average:
            decay = min(self.config.training.average, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self._average, [p for _, p in self._trained()], 1 - decay)

    def _swap_average(self) -> None:
        """Exchange the weights and their moving average."""
        for at, (_, parameter) in enumerate(self._trained() if self._average else []):
            parameter.data, self._average[at] = self._average[at], parameter.data

    def stepped(self, every: int) -> bool:
        """Whether the batch that just ended completed a step whose number is a multiple of ``every``."""
        complete = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return complete % self.config.training.accumulate == 0 and self.step % every == 0

    def take_loss(self) -> float | str:
        """The mean training loss since the last call; empty without a step in between.

        Raises:
            TrainingError: it is not finite.
        """
        if not self._losses:
            return ""
        loss = float(self.trainer.strategy.reduce(self._loss / self._losses, reduce_op="mean"))
        self._loss, self._losses = torch.zeros_like(self._loss), 0
        if not math.isfinite(loss):
            raise TrainingError(
                f"The training loss became {loss} before step {self.step}; lower training.rate "
                f"({self.config.training.rate}), or set training.clip.{self._trouble}"
            )
        remark = self._plateau.judge(self.step, self.share(), loss)
        if remark and self.trainer.is_global_zero:
            log.warning(remark)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._validation_started = time.monotonic()
        self._swap_average()
        tasks = self.config.validation.episodes
        self._scores = torch.zeros(tasks, dtype=torch.float64, device=self.device)
        self._nll = torch.zeros_like(self._scores)

    def validation_step(self, batch: Drawn, batch_idx: int) -> None:
        which, likelihood = batch[0], self.learner.likelihood
        stream = batch[1] if isinstance(batch[1], Stream) else Stream((batch[1],))
        scores, nlls = [], []
        with torch.no_grad():
            for episode, outputs in stream_outputs(self.learner, stream):
                outputs = widened(outputs)
                scores.append(likelihood.task_score(outputs, episode.query, episode.context))
                nlls.append(likelihood.task_nll(outputs, episode.query, episode.context))
                self._look(nlls[-1], episode, f"a validation after step {self.step}")
        mine = slice(len(which))
        self._scores[which] = torch.stack(scores).double().mean(0)[mine]
        self._nll[which] = torch.stack(nlls).double().mean(0)[mine]

    def on_validation_epoch_end(self) -> None:
        together = self.trainer.strategy.reduce
        self._scores = together(self._scores, reduce_op="sum")
        self._nll = together(self._nll, reduce_op="sum")
        mean, loss = float(self._scores.mean()), float(self._nll.mean())
        # Of two models that err alike, the one that knows by how much is better.
        merit = mean if self.metric == "accuracy" else -loss
        if not math.isfinite(merit) or math.isnan(loss):
            self._say_that_validation_diverges()
            merit = -math.inf
        if self.best["scores"] is None or merit > self.best["merit"]:
            frozen = {name for name, p in self.learner.named_parameters() if not p.requires_grad}
            weights = self.learner.state_dict()
            self.best = {
                "step": self.step,
                "validations_since": 0,
                "merit": merit,
                "scores": self._scores.cpu().clone(),
                "weights": {n: t.cpu().clone() for n, t in weights.items() if n not in frozen},
            }
        else:
            self.best["validations_since"] += 1
        self._swap_average()
        self.row = {"validation_loss": loss, f"validation_{self.metric}": mean}
        patience = self.config.training.patience
        if patience and self.best["validations_since"] >= patience:
            self.trainer.should_stop = True
        self._validation_seconds = time.monotonic() - self._validation_started

    def _say_that_validation_diverges(self) -> None:
        """Once in a training: the weights might still be kept, if no others are better."""
        if self.trainer.is_global_zero and not self._has_diverged:
            log.warning(
                f"After step {self.step} the answers to some validation tasks are not finite; weights that answer all "
                "of them are preferred, if there are any. Lower training.rate "
                f"({self.config.training.rate}), or the rate or the number of inner steps if the learner has any, or "
                f"set training.clip.{self._trouble}"
            )
        self._has_diverged = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        frozen = {f"learner.{n}" for n, p in self.learner.named_parameters() if not p.requires_grad}
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {n: t for n, t in weights.items() if n not in frozen}
        # The step says which tasks come next; Lightning's counters of epochs and loaders would only disagree with it.
        del checkpoint["loops"]
        checkpoint["epoch"], checkpoint["global_step"] = 0, self.step
        checkpoint["run"] = {
            "config": self.config.model_dump(mode="json"),
            "step": self.step,
            "elapsed": time.monotonic() - self._started,
            "best": self.best,
            "average": self._average,
            "loss": (self._loss, self._losses),
            "plateau": self._plateau.rows,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        run = checkpoint.get("run")
        if run is None:
            raise ArtifactError("The checkpoint is not one of quickstudy's; train without resume.")
        # What the run knew nothing of, because a later version brought it, was as it is when nobody sets it.
        begun = parse_config(run["config"]).model_dump(mode="json")
        now = self.config.model_dump(mode="json")
        for part in ("data", "learner", "encoder", "episode", "validation"):
            if begun[part] != now[part]:
                raise ConfigError(
                    f"The run to resume was begun with {part} {begun[part]}, but {now[part]} was given; resume "
                    "it as it was begun, or begin a new run elsewhere."
                )
        self.step, self.elapsed, self.best = run["step"], run["elapsed"], run["best"]
        self.best.setdefault("merit", -math.inf)  # of a run that an earlier version began
        self._average = run["average"]
        self._loss, self._losses = run["loss"]
        self._plateau.rows = run.get("plateau", [])
