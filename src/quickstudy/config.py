"""A run as data: what is trained on what, and how; it survives its YAML round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

Span = int | tuple[int, int]
"""A number, or (fewest, most)."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, what was found and what is right."""


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, ser_json_inf_nan="constants"
    )


class _Design(_Part):
    way: Span | None = None
    shot: Span = 1
    queries: int | None = Field(default=None, ge=1)
    within_group: bool = False
    unlabelled: int = Field(default=0, ge=0)
    distractors: int = Field(default=0, ge=0)

    @field_validator("way", "shot")
    @classmethod
    def _ascending(cls, value: Span | None, info: Any) -> Span | None:
        if value is None:
            return None
        low, high = (value, value) if isinstance(value, int) else value
        least = 2 if info.field_name == "way" else 0
        if not least <= low <= high:
            raise ValueError(f"must be at least {least}, and a range must ascend")
        return value


class EpisodeConfig(_Design):
    """The tasks that the learner is trained on.

    Args:
        way: classes of a task, or [fewest, most]; null for all that the data have, at most 120.
        shot: support examples of a class, or [fewest, most]; from 0 for learners that read names of classes: of [0, n],
            one task in n + 1 has no example at all.
        queries: query examples of a class; null for what brings a task to 240 examples.
        within_group: all classes of a task come from one group.
        unlabelled: examples of a task's classes without a label that it learns from too, all classes together; for
            learners that use such.
        distractors: classes that a task does not have, whose examples are among those without a label.
        neighbours: share of the tasks whose classes are near one another, as the encoder sees them before training:
            harder ones, from which a pretrained encoder learns more. The others have any classes.
        tasks: tasks of a training step, over all processes together.
        same_shot: the tasks of a step share one shot of the range and are drawn at once, by a world: nothing is padded.
        labels: given, or none to train and validate without reading any: an image and its variations are a class.
        projected: share of the training tasks whose images or rows of numbers go through a random linear map, one to a
            task, so that one data set has no end of tasks.
        stream: tasks that follow one another, each from what a learner with a memory keeps of those before; above 1,
            ``tasks`` counts such streams.
        horizon: tasks of a stream through which the gradient goes back; 0 for all.
        habit: in streams, here and in validation, how many known classes a user calls by one label, and does so for the
            whole stream; 0 for streams whose classes are of one group.
    """

    most_way: ClassVar[int] = 120
    examples: ClassVar[int] = 240
    neighbours: float = Field(default=0.0, ge=0, le=1)
    tasks: int = Field(default=1, ge=1)
    same_shot: bool = False
    labels: Literal["given", "none"] = "given"
    projected: float = Field(default=0.0, ge=0, le=1)
    stream: int = Field(default=1, ge=1)
    horizon: int = Field(default=0, ge=0)
    habit: int = Field(default=0, ge=0)

    @field_validator("neighbours")
    @classmethod
    def _near_in_all_groups(cls, value: float, info: Any) -> float:
        if value and info.data.get("within_group"):
            raise ValueError(
                "must be 0 beside within_group, which says itself where the classes of a task are from"
            )
        return value

    @field_validator("labels")
    @classmethod
    def _near_classes_are_known(cls, value: str, info: Any) -> str:
        if value == "none" and info.data.get("neighbours"):
            raise ValueError("must be given beside neighbours, which are of classes")
        return value

    @field_validator("stream")
    @classmethod
    def _streams_of_plain_tasks(cls, value: int, info: Any) -> int:
        for key in ("same_shot", "projected", "unlabelled", "distractors", "neighbours"):
            if value > 1 and info.data.get(key):
                raise ValueError(f"must be 1 beside {key}, which is for tasks by themselves")
        return value

    @field_validator("horizon", "habit")
    @classmethod
    def _of_streams(cls, value: int, info: Any) -> int:
        if value and info.data.get("stream", 2) == 1:
            raise ValueError("must be 0 where episode.stream is 1, so that no task follows another")
        return value


class ValidationConfig(_Design):
    """The fixed tasks that choose the best weights.

    Args:
        way: as in training, at most 20 when null.
        shot: as in training.
        queries: as in training; null for what brings a task to 120 examples.
        within_group: as in training.
        unlabelled: as in training.
        distractors: as in training.
        episodes: number of tasks, or of streams.
        every: training steps between two validations.
        stream: tasks of a stream, whose score is the mean over them; null for as many as in training.
    """

    most_way: ClassVar[int] = 20
    examples: ClassVar[int] = 120
    episodes: int = Field(default=60, ge=2)
    every: int = Field(default=200, ge=1)
    stream: int | None = Field(default=None, ge=1)


class TrainingConfig(_Part):
    """How the weights are fitted.

    Args:
        steps: most optimiser steps.
        minutes: most minutes; null for no limit.
        rate: highest learning rate.
        optimizer: muon, whose steps turn every matrix equally fast in all directions, or adamw, which is the safer
            choice for weights that were trained elsewhere.
        weight_decay: of matrices, which are drawn to zero by ``rate · weight_decay`` of themselves in a step.
        warmup: steps over which the rate rises, at most a third of all; it falls to zero afterwards.
        schedule: how the rate falls: linear, or along a cosine.
        clip: largest norm of the gradient; 0 for no limit.
        accumulate: batches of tasks for one step.
        sharpness: ρ of sharpness-aware steps, such as 0.05: the gradient is taken at this distance uphill, in twice the
            time; 0 for plain steps. Needs accumulate 1 and the strategy auto or ddp.
        precision: as Lightning names it; 16-mixed needs a GPU.
        patience: validations without improvement before training stops; 0 never stops early.
        average: decay of the moving average of the weights that is validated and kept; 0 for none.
        seed: decides the initial weights and the training tasks.
        devices: processes of a machine.
        nodes: machines.
        strategy: as Lightning names it, such as auto or ddp.
        accelerator: as Lightning names it, such as auto, cpu or gpu.
        measure_tasks: time the first gradient with several numbers of tasks side by side and keep the fastest, for
            learners with ``tasks_at_once``; of one process.
        threads: that share the tasks of a batch on a CPU, each with a core, which inner loops use better than all cores
            together; for learners without dropout.
        workers: processes that draw tasks ahead; 0 draws in the training process.
        logger: csv, or tensorboard beside it.
    """

    steps: int = Field(default=1000, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    rate: float = Field(default=5e-3, gt=0)
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: int = Field(default=50, ge=0)
    schedule: Literal["linear", "cosine"] = "linear"
    clip: float = Field(default=1.0, ge=0)
    accumulate: int = Field(default=1, ge=1)
    sharpness: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    patience: int = Field(default=0, ge=0)
    average: float = Field(default=0.995, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    devices: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    strategy: str = "auto"
    accelerator: str = "auto"
    measure_tasks: bool = False
    threads: int = Field(default=1, ge=1)
    workers: int = Field(default=0, ge=0)
    logger: Literal["csv", "tensorboard"] = "csv"

    @field_validator("sharpness")
    @classmethod
    def _of_one_batch(cls, value: float, info: Any) -> float:
        if value and info.data.get("accumulate", 1) > 1:
            raise ValueError(
                "must be 0 beside accumulate above 1, since the way uphill is that of one batch; set episode.tasks in "
                "place of accumulate"
            )
        return value

    @field_validator("strategy")
    @classmethod
    def _whole_gradient(cls, value: str, info: Any) -> str:
        if info.data.get("sharpness") and not (value == "auto" or value.startswith("ddp")):
            raise ValueError("must be auto or ddp beside sharpness, which needs the whole gradient")
        return value


class RunConfig(_Part):
    """A whole run: data, learner, encoder, tasks, validation and training.

    Args:
        data: where tasks come from, ``name[:path][,option=value…]``.
        learner: ``name`` and options of the learner; a name alone will do.
        encoder: ``name`` and options of the encoder; a name alone will do.

    >>> RunConfig(learner="ridge").learner
    {'name': 'ridge'}
    """

    data: str = "glyphs"
    learner: dict[str, Any] = {"name": "protonet"}
    encoder: dict[str, Any] = {"name": "image"}
    episode: EpisodeConfig = EpisodeConfig()
    validation: ValidationConfig = ValidationConfig()
    training: TrainingConfig = TrainingConfig()

    @property
    def validation_stream(self) -> int:
        """Tasks in a stream of the validation; 1 for tasks by themselves."""
        return self.validation.stream or self.episode.stream

    @field_validator("learner", "encoder", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ValueError("must be a name, or a mapping with a name and options")
        return value


def _keys_at(location: Sequence[str | int]) -> tuple[str, list[str]]:
    """The deepest part of the configuration that ``location`` reaches, and its keys."""
    model: type[BaseModel] = RunConfig
    path: list[str] = []
    for step in location[:-1]:
        field = model.model_fields.get(str(step))
        if field is None:
            break
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
        path.append(str(step))
    return ".".join(path), list(model.model_fields)


def _sentence(error: ValidationError) -> str:
    """The first fault of a configuration in one sentence."""
    fault = error.errors()[0]
    location = [part for part in fault["loc"] if not str(part).startswith(("tuple[", "int"))]
    key = ".".join(map(str, location))
    if fault["type"] == "extra_forbidden":
        where, keys = _keys_at(location)
        whole = f"the keys of {where!r}" if where else "the keys"
        return f"The configuration has no key {key!r}; {whole} are {', '.join(keys)}."
    if not location:
        return f"A configuration is a mapping of keys; found {fault['input']!r}."
    return f"The configuration's {key} must {_expectation(fault)}; found {fault['input']!r}."


def _expectation(fault: Any) -> str:
    """What a value must be, in the words of this library."""
    if "tuple" in str(fault["loc"]) or fault["loc"][-1] == "int":
        return "be a whole number or a range [fewest, most]"
    plain = {
        "int_parsing": "be a whole number",
        "int_type": "be a whole number",
        "int_from_float": "be a whole number",
        "float_parsing": "be a number",
        "float_type": "be a number",
        "bool_parsing": "be true or false",
        "bool_type": "be true or false",
        "string_type": "be text",
        "model_type": "be a mapping with keys of its own",
        "model_attributes_type": "be a mapping with keys of its own",
    }
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    return plain.get(fault["type"], message.removeprefix("must "))


def parse_config(values: Any) -> RunConfig:
    """The configuration that a mapping describes; keys that are absent have their defaults.

    Raises:
        ConfigError: a key that does not exist, or a value that does not fit.

    >>> parse_config({"training": {"steps": 10}}).training.steps
    10
    """
    if isinstance(values, RunConfig):
        return values
    try:
        return RunConfig.model_validate({} if values is None else values)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def load_config(path: str | Path) -> RunConfig:
    """Read a configuration from a YAML file.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or has a wrong key or value.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"The configuration {str(path)!r} cannot be read: {reason}; give a YAML file."
        ) from None
    try:
        return parse_config(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The configuration {str(path)!r} is no YAML: {_where(error)}; correct that line."
        ) from None
    except ConfigError as error:
        raise ConfigError(f"In {path}: {error}") from None


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    return f"{problem} in line {mark.line + 1}" if mark else str(problem)


def with_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The same configuration with some keys set, each as ``key.key=value`` with a YAML value.

    A learner or an encoder that is set as a whole (``learner=ridge``) has its default options.

    Raises:
        ConfigError: an override without ``=``, a key that does not exist, or a value that does not
            fit.

    >>> with_overrides(RunConfig(), ["training.steps=10", "learner.temperature=5"]).learner
    {'name': 'protonet', 'temperature': 5}
    """
    values = config.model_dump(mode="json")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(
                f"An override is written key=value, such as training.steps=100; found {override!r}."
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"The value of the override {override!r} is no YAML: {_where(error)}; quote it."
            ) from None
        *parents, last = key.split(".")
        part: Any = values
        for depth, parent in enumerate(parents):
            if not isinstance(part.get(parent), dict):
                where, keys = _keys_at(parents[: depth + 1])
                raise ConfigError(
                    f"The configuration has no part {'.'.join(parents[: depth + 1])!r} with keys of its own; "
                    f"the keys of {where or 'the configuration'} are {', '.join(keys)}."
                )
            part = part[parent]
        part[last] = value
        # Validated one by one: a later override of the same part then meets a whole mapping.
        values = parse_config(values).model_dump(mode="json")
    return parse_config(values)


def config_to_yaml(config: RunConfig) -> str:
    """The configuration as YAML, every key written out.

    >>> parse_config(yaml.safe_load(config_to_yaml(RunConfig()))) == RunConfig()
    True
    """
    text: str = yaml.dump(
        config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True
    )
    return text


class _Dumper(yaml.SafeDumper):
    """Writes a mapping over several lines and a list, such as a range, in one."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        return super().represent_sequence(tag, sequence, flow_style=True)
