"""What a run leaves behind while it goes on: a checkpoint, a table of metrics, a bar for whoever watches."""

from __future__ import annotations

import csv
import io
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from quickstudy.durable import ArtifactError, write_file
from quickstudy.training.module import MetaTraining

LOG_EVERY = 10
"""Steps between two rows of the table, and between two looks at signals when there are several processes."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or SIGTERM.

    Args:
        message: what was saved and how to go on.
        number: of the signal.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal = number

    @property
    def exit_code(self) -> int:
        """What a program that ends for it should return: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


class Stop(BaseException):
    """Leaves Lightning's loops after an interruption was saved; Lightning would exit at a KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class DurableCheckpoints(TorchCheckpointIO):  # type: ignore[misc]
    """Lightning's checkpoints, written whole or not at all and read without unpickling code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        try:
            write_file(Path(path), lambda file: torch.save(checkpoint, file))
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__
            reason = (
                os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else error
            )
            raise ArtifactError(
                f"The checkpoint {path} cannot be saved: {reason}; the one before it is intact. Free some space and go "
                "on with resume."
            ) from error

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch reports damage in many ways
            raise ArtifactError(
                f"The checkpoint {path} is damaged and cannot be read; delete it and train again."
            ) from error


class KeepCheckpoint(pl.Callback):  # type: ignore[misc]
    """Saves a checkpoint after each validation, and at Ctrl-C or SIGTERM before leaving.

    A second signal does not wait for the end of the step.

    Args:
        path: the file; ``None`` saves nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.received = 0
        self._saved = -1

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, signal.default_int_handler)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Lightning puts the handlers of before back when it is done.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._receive)

    def _save(self, trainer: pl.Trainer, step: int) -> None:
        if self.path is not None and self._saved != step:
            trainer.save_checkpoint(self.path)
            self._saved = step

    def _leave_if_asked(self, trainer: pl.Trainer, step: int) -> None:
        number = self.received
        if trainer.world_size > 1:
            # All processes leave at the same step, whichever was asked.
            asked = torch.tensor(float(number), device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(asked, reduce_op="max"))
        if number and not trainer.should_stop:
            self._save(trainer, step)
            raise Stop(number)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any
    ) -> None:
        assert isinstance(module, MetaTraining)
        # Before a validation it would be lost: a run that is resumed begins behind it.
        validated_next = module.step % module.config.validation.every == 0
        if module.stepped(LOG_EVERY if trainer.world_size > 1 else 1) and not validated_next:
            self._leave_if_asked(trainer, module.step)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, MetaTraining)
        self._save(trainer, module.step)
        self._leave_if_asked(trainer, module.step)


class Record(pl.Callback):  # type: ignore[misc]
    """Writes ``metrics.csv``, one row every few steps and one at each validation, and shows a progress bar.

    The columns are step, loss (mean since the row before), validation_loss, validation_<metric>, rate and seconds.

    Args:
        path: of the table; ``None`` writes none.
        progress: show the bar, if standard error is a terminal.
    """

    def __init__(self, path: Path | None, *, progress: bool) -> None:
        self.path = path
        self.columns: list[str] = []
        self._watched = progress and sys.stderr.isatty()
        self._bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, MetaTraining)
        if not trainer.is_global_zero:
            self.path, self._watched = None, False
        metric = f"validation_{module.metric}"
        self.columns = ["step", "loss", "validation_loss", metric, "rate", "seconds"]
        if self.path is not None:
            # Rows behind the checkpoint belong to steps that are taken again.
            kept = read_rows(self.path, before=module.step) if module.step else []
            self._write(kept, whole=True)
        if self._watched:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            steps = module.config.training.steps
            self._bar.add_task("training", total=steps, completed=module.step, facts="")
            self._bar.start()

    def _write(self, rows: list[dict[str, Any]], *, whole: bool = False) -> None:
        assert self.path is not None
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        if whole:
            writer.writeheader()
        writer.writerows(rows)
        try:
            if whole:
                write_file(self.path, text.getvalue().encode())
            else:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(text.getvalue())
        except OSError as error:
            raise ArtifactError(
                f"The metrics {self.path} cannot be written: {error.strerror}; the last checkpoint is intact. Free "
                "some space and go on with resume."
            ) from error

    def _add_row(self, trainer: pl.Trainer, module: MetaTraining, facts: dict[str, float]) -> None:
        row: dict[str, Any] = {"step": module.step, "loss": module.take_loss(), **facts}
        row["rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = round(module.elapsed, 2)
        if self.path is not None:
            self._write([row])
        for logger in trainer.loggers:
            logger.log_metrics(
                {k: v for k, v in row.items() if k != "step" and v != ""}, module.step
            )
        if self._bar is not None:
            score = module.row.get(f"validation_{module.metric}")
            seen = "" if score is None else f", validation {module.metric} {score:.4f}"
            loss = f"loss {row['loss']:.4f}" if row["loss"] != "" else ""
            self._bar.update(self._bar.task_ids[0], completed=module.step, facts=loss + seen)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any
    ) -> None:
        assert isinstance(module, MetaTraining)
        validated = trainer.should_stop or module.step % module.config.validation.every == 0
        if module.stepped(LOG_EVERY) and not validated:
            self._add_row(trainer, module, {})

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, MetaTraining)
        if trainer.optimizers:
            self._add_row(trainer, module, module.row)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()


def read_rows(path: Path, *, before: int) -> list[dict[str, Any]]:
    """The rows of a table of metrics up to a step."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= before]
