"""Meta-training with Lightning's Trainer: from a configuration to an artifact."""

from __future__ import annotations

import copy
import importlib
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from quickstudy.artifact import Artifact, save_artifact
from quickstudy.build import build_learner, build_source, fitted, suited
from quickstudy.config import ConfigError, RunConfig, config_to_yaml, load_config, parse_config
from quickstudy.data.draw import Episodes
from quickstudy.data.features import with_features
from quickstudy.data.source import TaskSource
from quickstudy.data.streams import Streams
from quickstudy.data.unlabelled import without_labels
from quickstudy.doctor import MALICIOUS_LIGHTNING
from quickstudy.durable import write_file
from quickstudy.episode import Episode, Stream
from quickstudy.evaluation.contest import answering, score_tasks
from quickstudy.evaluation.intervals import interval
from quickstudy.evaluation.measures import summary
from quickstudy.functional import keep_large_blocks
from quickstudy.learners import semi_supervised_learners
from quickstudy.learners.base import Learner
from quickstudy.machine import hardware
from quickstudy.training.keeping import (
    DurableCheckpoints,
    Interrupted,
    KeepCheckpoint,
    Record,
    Stop,
)
from quickstudy.training.module import MetaTraining, TrainingError
from quickstudy.training.neighbours import with_neighbours
from quickstudy.training.pace import with_fastest_tasks, with_tasks
from quickstudy.training.plateau import log
from quickstudy.training.tasks import TaskData

__all__ = ["Interrupted", "TrainingError", "is_main_process", "train"]

CHATTER = (
    r".*does not have many workers.*",
    r".*in eval mode.*",
    r".*GPU available but not used.*",
    r".*`srun` command is available.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
)
"""Advice of Lightning that does not apply (tasks are drawn cheaply, frozen parts are meant to be so), and its debts."""


def is_main_process() -> bool:
    """Whether this process is the one that writes and prints; the others of a run should stay silent."""
    return int(rank_zero_only.rank or 0) == 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's tips away from standard error; its errors stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in CHATTER:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check(config: RunConfig) -> None:
    """Refuse what cannot work before anything is built."""
    training = config.training
    if lightning.__version__ in MALICIOUS_LIGHTNING:
        raise TrainingError(
            f"lightning {lightning.__version__} is malware (GHSA-w37p-236h-pfx3); replace it now with another version, "
            "and change the credentials of this machine."
        )
    if training.precision == "16-mixed" and not (
        training.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    ):
        raise ConfigError(
            "The precision 16-mixed needs a GPU (a CPU is 25 times slower with it); set training.precision to "
            "bf16-mixed or 32-true."
        )
    bare = max(config.episode.unlabelled, config.validation.unlabelled)
    learner = config.learner["name"]
    if bare and learner not in semi_supervised_learners():
        raise ConfigError(
            f"Tasks have {bare} examples without a label, from which the learner {learner} learns nothing; set "
            "episode.unlabelled and validation.unlabelled to 0, or learner to one of "
            f"{', '.join(semi_supervised_learners())}."
        )
    processes = training.devices * training.nodes
    if training.measure_tasks and processes > 1:
        raise ConfigError(
            f"training.measure_tasks is for one process, and the run has {processes}, which might find different "
            "numbers; measure in one process first, and give what it found as learner.tasks_at_once."
        )
    if config.episode.tasks % processes:
        raise ConfigError(
            f"{config.episode.tasks} tasks of a step cannot be shared equally by {processes} processes; set "
            f"episode.tasks to a multiple of {processes}."
        )
    if config.validation.episodes < processes:
        raise ConfigError(
            f"{config.validation.episodes} validation tasks are too few for {processes} processes; set "
            f"validation.episodes to at least {processes}."
        )


def _trainer(config: RunConfig, out: Path | None, callbacks: list[pl.Callback]) -> pl.Trainer:
    training = config.training
    logger: Any = False
    if training.logger == "tensorboard" and out is not None:
        importlib.import_module("tensorboard")  # where it is missing, its name is in the error
        from lightning.pytorch.loggers import TensorBoardLogger

        logger = TensorBoardLogger(out, name="", version="tensorboard")
    return pl.Trainer(
        accelerator=training.accelerator,
        devices=training.devices,
        num_nodes=training.nodes,
        strategy=training.strategy,
        precision=training.precision,
        max_epochs=-1,
        accumulate_grad_batches=training.accumulate,
        gradient_clip_val=training.clip or None,
        callbacks=callbacks,
        plugins=[DurableCheckpoints()],
        logger=logger,
        default_root_dir=out,
        log_every_n_steps=1,  # rows are written by Record; this only silences advice about short runs
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        inference_mode=False,  # learners may take derivatives while they adapt
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _settled(learner: Learner, data: TaskData, scores: dict[str, Any]) -> dict[str, Any]:
    """The validation score of a learner that has chosen something by validation tasks, if it has."""
    tasks = data.validation
    with answering(learner):
        changed = learner.settle(_firsts(tasks))
    if not changed or isinstance(tasks, Streams):
        return {}
    return {"validation": scores["validation"] | summary(score_tasks(learner, _firsts(tasks)))}


def _firsts(tasks: Episodes | Streams) -> Iterator[Episode]:
    """Tasks, of streams the first ones; none is drawn before it is asked for."""
    for index in range(len(tasks)):
        each = tasks[index]
        yield each.episodes[0] if isinstance(each, Stream) else each


def _fit(
    trainer: pl.Trainer, module: MetaTraining, data: TaskData, checkpoint: Path | None
) -> None:
    """Run the Trainer; an interruption leaves as :class:`Interrupted`."""
    try:
        trainer.fit(module, data, ckpt_path=checkpoint)
    except Stop as stop:
        saved = "" if trainer.callbacks[0].path is None else "; the checkpoint is saved"
        raise Interrupted(
            f"Training was stopped after step {module.step}{saved}.", stop.signal
        ) from None
    except SystemExit as leaving:
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise Interrupted(
                f"Training was stopped at once in step {module.step + 1}; the last checkpoint is that of the last "
                "validation.",
                signal.SIGINT,
            ) from None
        raise


def _is_complete(module: MetaTraining, path: Path) -> bool:
    """Whether a checkpoint has all the steps that are asked for; if so, it is what the module then holds."""
    checkpoint = DurableCheckpoints().load_checkpoint(path)
    module.on_load_checkpoint(checkpoint)
    steps = module.config.training.steps
    if module.step < steps:
        return False
    if module.step > steps:
        raise ConfigError(
            f"The run has {module.step} steps already and cannot end after {steps}; set training.steps to more, or to "
            f"{module.step} to leave it as it is."
        )
    if module.best["scores"] is None:
        raise ConfigError(
            f"The run was stopped after step {module.step}, before its first validation, and so has no weights to "
            f"keep; set training.steps to more than {module.step}."
        )
    return True


def _facts(module: MetaTraining, source: TaskSource, trainer: pl.Trainer) -> dict[str, Any]:
    """What the model card says of the run."""
    parameters = list(module.learner.parameters())
    return {
        "data": source.describe(),
        "training": {
            "steps": module.step,
            "best_step": module.best["step"],
            "minutes": round(module.elapsed / 60, 2),
            "seed": module.config.training.seed,
            "parameters": sum(p.numel() for p in parameters),
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        },
        "hardware": {**hardware(), "device": str(module.device), "processes": trainer.world_size},
    }


def _scores(module: MetaTraining) -> dict[str, Any]:
    """The validation score of the weights that were kept."""
    part = module.config.validation
    mean, ci95 = interval(module.best["scores"])
    return {
        "validation": {
            "metric": module.metric,
            "mean": mean,
            "ci95": ci95,
            "episodes": part.episodes,
            "way": part.way,
            "shot": part.shot,
            "queries": part.queries,
            "within_group": part.within_group,
            "split": "validation",
            "step": module.best["step"],
            "inductive": True,
            "stream": module.config.validation_stream,
        }
    }


def training_tasks(config: RunConfig, source: TaskSource, learner: Learner) -> TaskSource:
    """The tasks that a run draws from a source, in the form that its encoder reads."""
    source = with_features(source, learner.encoder)
    if config.episode.neighbours:
        source = with_neighbours(source, learner.encoder)
    return without_labels(source) if config.episode.labels == "none" else source


def _begun(config: RunConfig, start: Learner | None) -> Learner:
    """The learner as its training begins."""
    torch.manual_seed(config.training.seed)
    if start is not None:
        learner = copy.deepcopy(start).train()
    else:
        learner = build_learner(config.learner, config.encoder)
    if config.training.precision == "64-true":
        learner.double()  # Lightning would do it only after it has read a checkpoint into rounded weights
    return learner


def train(
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    dry_run: bool = False,
    start: Learner | None = None,
    source: TaskSource | None = None,
) -> Artifact:
    """Meta-train a learner and keep the weights that do best on the validation tasks.

    Args:
        config: the run.
        out: folder for ``artifact/``, ``config.yaml``, ``checkpoints/last.ckpt`` and ``metrics.csv``.
        resume: go on from the checkpoint in ``out``, bit for bit as if the run had not stopped (for
            a budget of steps); without one, begin.
        progress: show a bar on standard error, if that is a terminal.
        dry_run: build everything, take one step and validate once, and write nothing.
        start: a learner of this config, whose weights the training begins at and which stays as it is; random ones by
            default.
        source: where tasks come from, in the form that the encoder reads, in place of what the config's data name.

    Returns:
        The artifact; its ``path`` is ``None`` after a dry run.

    Raises:
        BuildError, ConfigError: the configuration cannot be used, or not for the run that is to go on.
        DataError: the data cannot fill the tasks.
        ArtifactError: something cannot be written or read; older files are intact.
        TrainingError: the loss is not finite.
        Interrupted: Ctrl-C or SIGTERM came; a checkpoint was saved.
    """
    config, out = parse_config(config), Path(out)
    _check(config)
    if dry_run:
        values = config.model_dump()
        values["training"] |= {"steps": 1, "minutes": None, "logger": "csv"}
        values["validation"]["episodes"] = max(2, config.training.devices * config.training.nodes)
        config = parse_config(values)
    keep_large_blocks()
    if source is None:
        named = build_source(config.data)
        config = suited(config, named)
        learner = _begun(config, start)
        source = training_tasks(config, named, learner)
    else:
        learner = _begun(config, start)
    config = fitted(config, source, learner)
    if config.episode.stream > 1 and not learner.has_memory and is_main_process():
        log.warning(
            f"The learner {config.learner['name']} carries nothing from task to task, so the {config.episode.stream} "
            "tasks of a stream are as any others to it; learner=meta_transformer has a memory."
        )
    path = out / "checkpoints" / "last.ckpt"
    begun = resume and path.exists()
    data = TaskData(source, config)
    if config.training.measure_tasks and start is None:
        # What was measured once stays, since rounding depends on it and a run goes on bit for bit.
        kept = load_config(out / "config.yaml").learner["tasks_at_once"] if begun else 0
        config = (
            with_tasks(config, kept) if kept else with_fastest_tasks(config, data.first_batch())
        )
        learner = _begun(config, None)
    module = MetaTraining(learner, config)
    complete = begun and _is_complete(module, path)
    if is_main_process() and not dry_run:
        for unfinished in path.parent.glob(".*.tmp"):
            unfinished.unlink()  # of a run that was killed while it saved
        if not begun:
            path.unlink(missing_ok=True)
        write_file(out / "config.yaml", config_to_yaml(config).encode())
    keep = KeepCheckpoint(None if dry_run else path)
    record = Record(None if dry_run else out / "metrics.csv", progress=progress)
    with _quiet():
        trainer = _trainer(config, None if dry_run else out, [record, keep])
        if not complete:
            _fit(trainer, module, data, path if begun else None)
    learner.load_state_dict(module.best["weights"], strict=False)
    learner.cpu()
    scores, facts = _scores(module), _facts(module, source, trainer)
    if start is None and not dry_run:
        scores |= _settled(learner, data, scores)
    if dry_run or not trainer.is_global_zero:
        where = None if dry_run else out / "artifact"
        return Artifact(learner.eval(), config, scores, "", where, facts)
    return save_artifact(out / "artifact", learner, config, scores, facts=facts)
