"""Names become classes in one place, which answers a wrong one with the right ones."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from quickstudy.build import (
    BuildError,
    build_design,
    build_encoder,
    build_learner,
    build_source,
    fitted,
    names_and_summaries,
    parse_spec,
    suited,
)
from quickstudy.config import RunConfig, with_overrides
from quickstudy.data import SOURCES
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import Pool, PoolSource, Split

VECTOR = {"name": "vector", "inputs": 4, "width": 8, "layers": 1}


class Odd(PoolSource):
    """A source with an option of every kind."""

    kind = "vector"

    def __init__(
        self,
        path: str | None = None,
        *,
        whole: int = 1,
        part: float = 0.5,
        really: bool = False,
        way: Literal["up", "down"] = "up",
        most: int | None = None,
    ) -> None:
        self.options = (path, whole, part, really, way, most)

    def pool(self, split: Split) -> Pool:
        raise NotImplementedError


class Needy(Odd):
    """A source that cannot do without a path and an option."""

    def __init__(self, path: str, *, column: str) -> None:
        super().__init__(path)


class Pathless(Odd):
    """A source without a path."""

    def __init__(self) -> None:
        super().__init__()


@pytest.fixture(autouse=True)
def _sources(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (Odd, Needy, Pathless):
        monkeypatch.setitem(SOURCES, cls.__name__.lower(), cls)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("glyphs", ("glyphs", None, {})),
        ("glyphs,size=32", ("glyphs", None, {"size": "32"})),
        ("text:file.csv, seed=3", ("text", "file.csv", {"seed": "3"})),
        ("images:C:\\my, own\\a", ("images", "C:\\my, own\\a", {})),
        ("images:/a=b/c,d,size=28,vary=no", ("images", "/a=b/c,d", {"size": "28", "vary": "no"})),
        ("odd:x,part=", ("odd", "x", {"part": ""})),
    ],
)
def test_specs_are_taken_apart(spec: str, parts: Any) -> None:
    assert parse_spec(spec) == parts


@pytest.mark.parametrize("spec", ["", "images:", "two words", ":path", "a,x=1,x=2"])
def test_wrong_specs_are_refused(spec: str) -> None:
    with pytest.raises(BuildError):
        parse_spec(spec)


def options(spec: str) -> Any:
    source = build_source(spec)
    assert isinstance(source, Odd)
    return source.options


def test_options_are_converted_by_annotation() -> None:
    assert options("odd") == (None, 1, 0.5, False, "up", None)
    spec = "odd:here,whole=3,part=1e-3,really=yes,way=down,most=7"
    assert options(spec) == ("here", 3, 0.001, True, "down", 7)
    assert options("odd,whole=1e3,most=9007199254740993")[1::4] == (1000, 2**53 + 1)
    assert options("odd,most=none,really=false") == (None, 1, 0.5, False, "up", None)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("even", "no data source named 'even'; the data sources are .*odd"),
        ("odd,size=3", "no option 'size'; its options are whole, part, really, way, most"),
        ("odd,whole=2.5", "option 'whole' .* must be a whole number; found '2.5'"),
        ("odd,whole=inf", "must be a whole number"),
        ("odd,part=half", "must be a number; found 'half'"),
        ("odd,really=maybe", "must be true or false; found 'maybe'"),
        ("odd,way=left", "must be up or down; found 'left'"),
        ("odd,most=all", "must be a whole number or none; found 'all'"),
        ("needy,column=a", "needs a path: needy:PATH"),
        ("needy:here", r"needs the option 'column' \(text\)"),
        ("pathless:here", "takes no path; found 'here'"),
        ("pathless,size=1", "it has no options"),
    ],
)
def test_faults_list_what_is_right(spec: str, sentence: str) -> None:
    with pytest.raises(BuildError, match=sentence) as raised:
        build_source(spec)
    assert "\n" not in str(raised.value)


def test_a_learner_is_built_on_its_encoder() -> None:
    learner = build_learner({"name": "protonet", "temperature": "5"}, {**VECTOR, "width": "16"})
    assert learner.encoder.width == 16
    torch.testing.assert_close(learner.log_temperature.exp(), torch.tensor(5.0))


@pytest.mark.parametrize(
    ("learner", "encoder", "sentence"),
    [
        ({"name": "protonet", "heat": 5}, VECTOR, "learner 'protonet' has no option 'heat'"),
        (
            {"name": "prototype"},
            VECTOR,
            "no learner named 'prototype'; the learners are .*protonet",
        ),
        ({"name": "protonet"}, {"name": "vektor"}, "no encoder named 'vektor'"),
        ({"name": "protonet"}, {"name": "vector", "width": True}, "must be a whole number"),
        ({"temperature": 5}, VECTOR, "needs a name"),
        ({"name": "protonet", "temperature": -5}, VECTOR, "must be positive"),
    ],
)
def test_faults_of_parts_are_named(learner: Any, encoder: Any, sentence: str) -> None:
    with pytest.raises(BuildError, match=sentence):
        build_learner(learner, encoder)


def test_encoder_and_learner_are_no_options_of_a_learner() -> None:
    with pytest.raises(BuildError, match="no option 'encoder'"):
        build_learner({"name": "protonet", "encoder": "x"}, VECTOR)


class Counted(PoolSource):
    """A source with so many examples of each class."""

    kind = "vector"

    def __init__(self, *counts: int) -> None:
        classes = len(counts)
        groups = torch.arange(classes) % 2
        names = [str(number) for number in range(classes)]
        x = torch.zeros(sum(counts), 2)
        self.fixed = Pool(x, torch.tensor(counts), names, groups, ["a", "b"])

    def pool(self, split: Split) -> Pool:
        return self.fixed


def test_what_a_config_leaves_open_fits_the_data() -> None:
    config = RunConfig()
    plenty, few = Counted(*[20] * 150), Counted(3, 4, 9)
    assert build_design(config.episode, plenty, "train") == EpisodeDesign(120, 1, 1)
    assert build_design(config.validation, plenty, "validation") == EpisodeDesign(20, 1, 5)
    assert build_design(config.episode, few, "train") == EpisodeDesign(3, 1, 2)
    inside = with_overrides(config, ["episode.within_group=true", "episode.queries=3"])
    within = EpisodeDesign(2, 1, 3, within_group=True)
    assert build_design(inside.episode, few, "train") == within
    fewer = build_design(config.episode, plenty, "train", most_way=12)
    assert fewer == EpisodeDesign(12, 1, 19)
    asked = with_overrides(config, ["episode.way=7", "episode.shot=[1, 2]", "episode.queries=9"])
    assert build_design(asked.episode, few, "train") == EpisodeDesign(7, (1, 2), 9)


@pytest.mark.parametrize(
    ("learner", "way"),
    [("protonet", 120), ("maml", 20), ({"name": "in_context", "bank": 30}, 30)],
)
def test_open_ways_fit_the_learner(learner: Any, way: int) -> None:
    config = RunConfig(learner=learner)
    run = fitted(config, Counted(*[20] * 150), build_learner(config.learner, VECTOR))
    assert (run.episode.way, run.validation.way) == (way, 20)


def test_a_run_on_a_world_predicts_as_many_numbers_as_its_tasks_do() -> None:
    config = RunConfig(data="linear,dims=3", learner={"name": "maml", "steps": 2}, encoder="vector")
    source = build_source(config.data)
    run = suited(config, source)
    assert run.learner == {"name": "maml", "steps": 2, "values": 1}
    assert run.encoder == {"name": "vector", "inputs": 3}
    learner = build_learner(run.learner, run.encoder)
    spelled = fitted(run, source, learner)
    assert (spelled.episode.way, spelled.episode.queries) == (None, 239)
    assert (spelled.validation.way, spelled.validation.queries) == (None, 119)
    assert suited(spelled, source) == spelled
    wider = RunConfig(data=config.data, learner="maml", encoder={"name": "vector", "inputs": 9})
    assert suited(wider, source).encoder["inputs"] == 9


@pytest.mark.parametrize(
    ("data", "learner", "sentence"),
    [
        ("sinusoid", {"name": "protonet"}, "'protonet' tells classes apart; .* numbers: .*maml"),
        ("sinusoid", {"name": "maml", "values": 2}, "given values=2, .* predict 1 a query"),
        ("odd", {"name": "maml", "values": 1}, "given values=1, .* predict a class"),
        ("sinusoid", {"name": "mammal"}, "no learner named 'mammal'"),
    ],
)
def test_classes_and_numbers_are_not_confused(data: str, learner: Any, sentence: str) -> None:
    with pytest.raises(BuildError, match=sentence):
        suited(RunConfig(data=data, learner=learner, encoder="vector"), build_source(data))


def test_classes_leave_a_run_as_it_is() -> None:
    config = RunConfig(data="odd", learner="protonet", encoder="vector")
    assert suited(config, build_source("odd")) is config


def test_everything_that_can_be_built_has_a_summary() -> None:
    tables = names_and_summaries()
    assert tables["sources"]["odd"] == "A source with an option of every kind."
    assert all(line for table in tables.values() for line in table.values())


def test_building_an_encoder_takes_values_as_they_are() -> None:
    assert build_encoder(VECTOR).width == 8
