"""Names to objects: the only place where a name that somebody wrote becomes a class.

A class's signature is its schema: an option is an argument of its constructor, its annotation says
what values it takes, and a wrong name, option or value is answered with the right ones.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from quickstudy.config import EpisodeConfig, RunConfig, ValidationConfig
from quickstudy.data import SOURCES
from quickstudy.data.catalog import CATALOG
from quickstudy.data.design import EpisodeDesign, fit_design, span
from quickstudy.data.items import RecordSource
from quickstudy.data.mixture import Mixed, Mixture, read_mixture
from quickstudy.data.source import Prior, Split, TaskSource
from quickstudy.learners import LEARNERS
from quickstudy.learners.base import Learner
from quickstudy.learners.memory import Builder
from quickstudy.nn import ENCODERS
from quickstudy.nn.encoders import Encoder

T = TypeVar("T")

FIRST = ("encoder", "path", "sources", "parts")
"""Arguments of constructors that are no options."""
_OPTION = re.compile(r"[A-Za-z_]\w*=")


class BuildError(ValueError):
    """A name, an option or a value that does not exist; the message lists those that do."""


def _separated(spec: str) -> list[str]:
    """What lies between the commas of a spec, but for those in parentheses, as long as these are all closed."""
    parts, depth = [""], 0
    for letter in spec:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            break
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return spec.split(",") if depth else parts


def parse_spec(spec: str) -> tuple[str, str | None, dict[str, str]]:
    """Take ``name[:path][,option=value…]`` apart; a path may hold colons, commas and equal signs.

    Options are the comma-separated parts at the end that read ``option=value``; what is in parentheses stays together.

    Raises:
        BuildError: there is no name.

    >>> parse_spec("images:C:/my, photos,size=28")
    ('images', 'C:/my, photos', {'size': '28'})
    """
    parts = _separated(spec)
    first = len(parts)
    while first > 1 and _OPTION.match(parts[first - 1].strip()):
        first -= 1
    head, options = ",".join(parts[:first]), {}
    for part in parts[first:]:
        key, _, value = part.strip().partition("=")
        if key in options:
            raise BuildError(f"The option {key!r} is given twice in {spec!r}; give it once.")
        options[key] = value
    name, colon, path = head.partition(":")
    name = name.strip()
    if not re.fullmatch(r"[A-Za-z_][\w-]*", name) or (colon and not path):
        raise BuildError(
            f"Found {spec!r}; expected name[:path][,option=value…], such as images:photos,size=28."
        )
    return name, path or None, options


def _describe(annotation: Any) -> str:
    """What an annotation allows, in words."""
    if annotation == Builder:
        return "the name of a learner, or a mapping with a name and options"
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_describe(each) for each in get_args(annotation))
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return "none" if annotation is type(None) else plain.get(annotation, str(annotation))


def _convert(value: Any, annotation: Any) -> Any:
    """``value`` as the annotation wants it.

    Raises:
        ValueError: it does not fit.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if annotation == Builder:
        return value if callable(value) else _builder(value)
    if origin is Literal:
        for allowed in arguments:
            if value == allowed or (isinstance(value, str) and value == str(allowed)):
                return allowed
    elif origin in (Union, types.UnionType):
        # Text fits str, so the other members of a union are asked first.
        for member in sorted(arguments, key=lambda each: each is str):
            try:
                return _convert(value, member)
            except ValueError:
                continue
    elif annotation is type(None):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null", "")):
            return None
    elif annotation is bool:
        if isinstance(value, bool):
            return value
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() in known:
            return known[str(value).lower()]
    elif annotation is int:
        if not isinstance(value, bool) and float(value).is_integer():
            return int(value) if str(value).strip().lstrip("+-").isdigit() else int(float(value))
    elif annotation is float:
        if not isinstance(value, bool):
            return float(value)
    elif annotation is str:
        if isinstance(value, str | int | float):
            return str(value)
    elif origin in (list, tuple):
        if isinstance(value, list | tuple):
            member = arguments[0] if arguments else Any
            return origin(_convert(each, member) for each in value)
    elif isinstance(annotation, type) and isinstance(value, annotation):
        return value
    raise ValueError


def options_of(cls: type) -> dict[str, inspect.Parameter]:
    """The options of a class: the keyword arguments of its constructor."""
    parameters = inspect.signature(cls).parameters.values()
    return {each.name: each for each in parameters if each.name not in FIRST}


def look_up(kind: str, name: str, known: Mapping[str, type[T]]) -> type[T]:
    """The class of that name.

    Raises:
        BuildError: there is none; lists those that there are.
    """
    if name not in known:
        raise BuildError(
            f"There is no {kind} named {name!r}; the {kind}s are {', '.join(sorted(known))}."
        )
    return known[name]


def _checked(kind: str, name: str, cls: type[T], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a class that were written by a person, as its constructor wants them."""
    options, hints = options_of(cls), get_type_hints(cls.__init__)
    values = {}
    for key, value in given.items():
        if key not in options:
            right = f"its options are {', '.join(options)}" if options else "it has no options"
            raise BuildError(f"The {kind} {name!r} has no option {key!r}; {right}.")
        annotation = hints.get(key, Any)
        try:
            values[key] = _convert(value, annotation)
        except BuildError:
            raise
        except (ValueError, TypeError):
            raise BuildError(
                f"The option {key!r} of the {kind} {name!r} must be {_describe(annotation)}; found {value!r}."
            ) from None
    missing = [
        key
        for key, option in options.items()
        if option.default is inspect.Parameter.empty and key not in values
    ]
    if missing:
        raise BuildError(
            f"The {kind} {name!r} needs the option {missing[0]!r} ({_describe(hints.get(missing[0], Any))})."
        )
    return values


def _make(
    kind: str,
    name: str,
    cls: type[T],
    first: tuple[Any, ...],
    given: Mapping[str, Any],
    *,
    maker: Callable[..., T] | None = None,
) -> T:
    """Call a class, or another maker of it, with options that were written by a person."""
    values = _checked(kind, name, cls, given)
    try:
        return (maker or cls)(*first, **values)
    except ValueError as error:
        if type(error) is ValueError:  # an option out of range; other errors know more
            raise BuildError(f"The {kind} {name!r} cannot be built: {error}") from error
        raise


def build_source(spec: str, *, fit: Callable[[str], str] = str) -> TaskSource:
    """The task source that ``name[:path][,option=value…]`` names.

    Args:
        spec: of the source.
        fit: changes the spec before anything is built; of a mixture, that of each source, whose name stays.

    Raises:
        BuildError: a name, an option or a value that does not exist.
        DataError: the data cannot be used.
    """
    name, path, options = parse_spec(spec)
    if look_up("data source", name, SOURCES) is Mixture:
        mixed = [
            Mixed(part, weight, build_source(part, fit=fit)) for weight, part in read_mixture(path)
        ]
        return _make("data source", name, Mixture, (mixed,), options)
    name, path, options = parse_spec(fit(spec))
    cls = SOURCES[name]
    takes_path = inspect.signature(cls).parameters.get("path")
    if path is not None and takes_path is None:
        raise BuildError(f"The data source {name!r} takes no path; found {path!r}.")
    if path is None and takes_path is not None and takes_path.default is inspect.Parameter.empty:
        raise BuildError(f"The data source {name!r} needs a path: {name}:PATH.")
    return _make("data source", name, cls, () if path is None else (path,), options)


def located(spec: str, folder: str | Path) -> str:
    """The same spec, with the public data sets that name no folder taken from ``folder/NAME``, where that is there.

    >>> located("sinusoid", "data")
    'sinusoid'
    """
    name, path, options = parse_spec(spec)
    if look_up("data source", name, SOURCES) is Mixture:
        parts = [f"{weight:g}*({located(part, folder)})" for weight, part in read_mixture(path)]
        path = "+".join(parts)
    elif name in CATALOG and path is None and (Path(folder).expanduser() / name).is_dir():
        path = str(Path(folder).expanduser() / name)
    chosen = "".join(f",{key}={value}" for key, value in options.items())
    return f"{name}:{path}{chosen}" if path is not None else spec


def one_source(spec: str) -> str:
    """The spec itself, or of a mixture that of its first source, which has examples of the same kind and shape.

    >>> one_source("mixture:(glyphs,size=20)+(omniglot,size=20),temperature=2"), one_source("glyphs")
    ('glyphs,size=20', 'glyphs')
    """
    name, path, _ = parse_spec(spec)
    return one_source(read_mixture(path)[0][1]) if name == "mixture" else spec


def _named(kind: str, mapping: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    options = dict(mapping)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise BuildError(f"The {kind} needs a name; found {dict(mapping)!r}.")
    return name, options


def build_encoder(
    encoder: Mapping[str, Any], *, assets: Mapping[str, bytes] | None = None
) -> Encoder:
    """The encoder that a mapping of a name and options describes.

    Args:
        encoder: its name and options.
        assets: what an artifact kept of a pretrained model, which is then not looked up; its weights stay random.

    Raises:
        BuildError: a name, an option or a value that does not exist, or a value out of range.

    >>> build_encoder({"name": "vector", "inputs": "3", "width": 8}).width
    8
    """
    name, options = _named("encoder", encoder)
    cls = look_up("encoder", name, ENCODERS)
    if name == "several":
        parts = options.pop("parts", None)
        if not isinstance(parts, Mapping) or not all(
            isinstance(p, Mapping) for p in parts.values()
        ):
            raise BuildError(
                "The encoder 'several' needs parts, such as {image: {name: image}, text: {name: words}}; found "
                f"{parts!r}."
            )
        made = {
            part: build_encoder(
                each,
                assets={
                    file.removeprefix(f"{part}."): content
                    for file, content in (assets or {}).items()
                    if file.startswith(f"{part}.")
                },
            )
            for part, each in parts.items()
        }
        return _make("encoder", name, cls, (made,), options)
    maker = partial(cls.from_assets, assets) if assets else cls
    return _make("encoder", name, cls, (), options, maker=maker)


def build_learner(
    learner: Mapping[str, Any],
    encoder: Mapping[str, Any],
    *,
    assets: Mapping[str, bytes] | None = None,
) -> Learner:
    """The learner on the encoder that two mappings of a name and options describe.

    Raises:
        BuildError: a name, an option or a value that does not exist.
    """
    name, options = _named("learner", learner)
    cls = look_up("learner", name, LEARNERS)
    return _make("learner", name, cls, (build_encoder(encoder, assets=assets),), options)


def _builder(learner: str | Mapping[str, Any]) -> Builder:
    """What makes the learner that a name, or a mapping of a name and options, describes on any encoder."""
    name, options = _named("learner", {"name": learner} if isinstance(learner, str) else learner)
    cls = look_up("learner", name, LEARNERS)
    return partial(cls, **_checked("learner", name, cls, options))


def build_design(
    part: EpisodeConfig | ValidationConfig,
    source: TaskSource,
    split: Split,
    *,
    most_way: int | None = None,
) -> EpisodeDesign:
    """The shape of the tasks that a part of the configuration describes; what it leaves open fits the source.

    Args:
        part: of the configuration.
        source: where tasks come from.
        split: of the source.
        most_way: no more classes than so many where the way is left open.
    """
    design = fit_design(
        source,
        split,
        way=part.way,
        shot=part.shot,
        queries=part.queries,
        within_group=part.within_group,
        most_way=min(part.most_way, most_way or part.most_way),
        examples=part.examples,
        unlabelled=part.unlabelled,
        distractors=part.distractors,
    )
    near = part.neighbours if isinstance(part, EpisodeConfig) else 0.0
    return replace(design, neighbours=near)


def suited(config: RunConfig, source: TaskSource) -> RunConfig:
    """The same run with the learner's ``values`` or ``labels`` and the encoder's ``inputs`` as a source has them.

    Raises:
        BuildError: the source's tasks predict values, or have many labels for an example, and the learner tells classes
            apart; or the other way about.

    >>> from quickstudy.data.synthetic import Linear
    >>> run = suited(RunConfig(learner="maml", encoder="vector"), Linear(dims=3))
    >>> run.learner["values"], run.encoder["inputs"]
    (1, 3)
    """
    wanted = source.values if isinstance(source, Prior) else 0
    name, options = _named("learner", config.learner)
    known = options_of(look_up("learner", name, LEARNERS))
    if source.labels == "many" and "labels" not in known:
        able = ", ".join(each for each, cls in LEARNERS.items() if "labels" in options_of(cls))
        raise BuildError(
            f"An example of {config.data!r} may have many labels, but the learner {name!r} gives each one class; "
            f"choose a learner of many labels: {able}."
        )
    if options.get("labels", source.labels) != source.labels:
        raise BuildError(
            f"The learner {name!r} was given labels={options['labels']}, but an example of {config.data!r} has "
            + ("any number of labels" if source.labels == "many" else "one class")
            + "; leave the option out."
        )
    if wanted and "values" not in known:
        able = ", ".join(each for each, cls in LEARNERS.items() if "values" in options_of(cls))
        raise BuildError(
            f"The tasks of {config.data!r} are to predict numbers, but the learner {name!r} tells classes apart; "
            f"choose a learner that predicts numbers: {able}."
        )
    found = options.get("values", wanted)
    if str(found) != str(wanted):
        raise BuildError(
            f"The learner {name!r} was given values={found}, but tasks of {config.data!r} are to predict "
            + (f"{wanted} a query" if wanted else "a class")
            + "; leave the option out."
        )
    values = config.model_dump()
    if source.labels == "many":
        values["learner"]["labels"] = "many"
        return RunConfig.model_validate(values)
    if isinstance(source, RecordSource) and config.encoder["name"] == "several":
        values["encoder"].setdefault(
            "parts", {n: dict(each) for n, each in source.encoders.items()}
        )
        return RunConfig.model_validate(values)
    if not isinstance(source, Prior):
        return config
    if wanted:
        values["learner"]["values"] = wanted
    encoder = config.encoder["name"]
    if source.inputs and "inputs" in options_of(look_up("encoder", encoder, ENCODERS)):
        values["encoder"].setdefault("inputs", source.inputs)
    return RunConfig.model_validate(values)


INNER_LOOP_WAY = 20
"""Most classes of a task, where the way is left open, for learners that take derivatives while they adapt."""


def fitted(config: RunConfig, source: TaskSource, learner: Learner) -> RunConfig:
    """The same run with the shape of its tasks spelled out as data and learner allow, as it is saved beside results.

    Raises:
        BuildError: there are tasks without examples, and the learner does not read names.
    """
    most_way = getattr(learner, "bank", INNER_LOOP_WAY if learner.inner_loop else None)
    values = config.model_dump()
    splits: dict[str, Split] = {"episode": "train", "validation": "validation"}
    for part, split in splits.items():
        design = build_design(getattr(config, part), source, split, most_way=most_way)
        _check_shot(f"{part}.shot", design, config, learner)
        values[part]["queries"] = design.queries
        if not (isinstance(source, Prior) and source.values):
            values[part]["way"] = design.way
    return RunConfig.model_validate(values)


def _check_shot(key: str, design: EpisodeDesign, config: RunConfig, learner: Learner) -> None:
    """Refuse tasks without examples where nothing else is known of their classes."""
    if span(design.shot)[0] or learner.likelihood.of_values:
        return
    if not getattr(learner, "names", False):
        raise BuildError(
            f"The learner {config.learner['name']!r} does not read the names of classes, so without examples it could "
            f"only guess; set {key} to at least 1, or choose meta_transformer with learner.names=true."
        )


def names_and_summaries() -> dict[str, dict[str, str]]:
    """What can be built: for learners, sources and encoders, each name with its one-line summary.

    >>> sorted(names_and_summaries())
    ['encoders', 'learners', 'sources']
    """
    tables: dict[str, Mapping[str, type]] = {
        "learners": LEARNERS,
        "sources": SOURCES,
        "encoders": ENCODERS,
    }
    return {
        kind: {name: (inspect.getdoc(cls) or "").split("\n")[0] for name, cls in table.items()}
        for kind, table in tables.items()
    }
