"""A configuration survives its round trip, and each fault in it is one sentence that names the right keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.config import (
    ConfigError,
    RunConfig,
    config_to_yaml,
    load_config,
    parse_config,
    with_overrides,
)

spans = st.one_of(st.integers(2, 50), st.tuples(st.integers(2, 5), st.integers(5, 50)).map(list))
options = st.dictionaries(
    st.from_regex(r"[a-m][a-z_]{0,8}", fullmatch=True),
    st.one_of(st.integers(), st.booleans(), st.text(), st.floats(allow_nan=False), st.none()),
)


@given(
    way=spans,
    learner=options,
    data=st.text(),
    minutes=st.one_of(st.none(), st.floats(0.1, 100)),
    precision=st.sampled_from(["32-true", "bf16-mixed", "16-mixed", "64-true"]),
)
def test_yaml_round_trip(
    way: Any, learner: dict[str, Any], data: str, minutes: float | None, precision: str
) -> None:
    config = parse_config(
        {
            "data": data,
            "learner": {"name": "ridge", **{f"o_{key}": value for key, value in learner.items()}},
            "episode": {"way": way},
            "training": {"minutes": minutes, "precision": precision},
        }
    )
    assert parse_config(yaml.safe_load(config_to_yaml(config))) == config


def test_an_infinite_option_stays_so() -> None:
    config = parse_config({"learner": {"name": "ridge", "strength": float("inf")}})
    assert parse_config(yaml.safe_load(config_to_yaml(config))) == config


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = parse_config({"data": "bücher", "episode": {"way": [2, 5]}})
    path = tmp_path / "run.yaml"
    path.write_text(config_to_yaml(config), encoding="utf-8")
    assert load_config(path) == config
    path.write_text("", encoding="utf-8")
    assert load_config(path) == RunConfig()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"trainin": {}}, r"no key 'trainin'; the keys are data, learner, encoder, episode, valid"),
        (
            {"training": {"stepz": 3}},
            r"no key 'training\.stepz'; the keys of 'training' are steps,",
        ),
        ({"training": {"steps": "ten"}}, r"training\.steps must be a whole number; found 'ten'"),
        (
            {"training": {"steps": 0}},
            r"training\.steps must be greater than or equal to 1; found 0",
        ),
        ({"training": {"rate": "fast"}}, r"training\.rate must be a number; found 'fast'"),
        ({"training": {"precision": "fp8"}}, r"must be '32-true', 'bf16-mixed', .*; found 'fp8'"),
        ({"training": 3}, r"training must be a mapping with keys of its own; found 3"),
        ({"episode": {"way": [5, 2]}}, r"episode\.way must be at least 2, and a range must ascend"),
        ({"episode": {"way": "few"}}, r"episode\.way must be a whole number or a range \[fewest, "),
        ({"episode": {"within_group": "so"}}, r"within_group must be true or false; found 'so'"),
        ({"learner": {"temperature": 3}}, r"learner must be a name, or a mapping with a name and "),
        ({"data": 3}, r"data must be text; found 3"),
        ([1], r"A configuration is a mapping of keys; found \[1\]"),
    ],
)
def test_faults_are_named(values: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as raised:
        parse_config(values)
    assert "\n" not in str(raised.value)


def test_faults_of_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        load_config(path)
    path.write_bytes(b"data: \xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(path)
    path.write_text("data: glyphs\nlearner: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is no YAML: .* in line 2"):
        load_config(path)
    path.write_text("dat: glyphs", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.yaml: .*no key 'dat'"):
        load_config(path)


def test_overrides_are_yaml_values_of_dotted_keys() -> None:
    config = with_overrides(
        RunConfig(),
        [
            "training.rate=1e-2",
            "training.minutes=null",
            "episode.way=[2, 5]",
            "data=images:/a/b,size=28",
            "learner=ridge",
            "learner.penalty=0.5",
        ],
    )
    assert config.training.rate == 0.01
    assert config.training.minutes is None
    assert config.episode.way == (2, 5)
    assert config.data == "images:/a/b,size=28"
    assert config.learner == {"name": "ridge", "penalty": 0.5}
    assert RunConfig() == parse_config(None)  # the defaults are left alone


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.steps", r"written key=value, such as training\.steps=100; found"),
        ("=3", "written key=value"),
        ("training.stepz=3", "the keys of 'training' are steps"),
        ("training.steps.most=3", r"no part 'training\.steps' with keys of its own"),
        ("trainer.steps=3", r"no part 'trainer'.*the configuration are data"),
        ("training.steps=[", "is no YAML"),
    ],
)
def test_wrong_overrides_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        with_overrides(RunConfig(), [override])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["accumulate=2", "sharpness=0.1"], r"training\.sharpness must be 0 beside accumulate"),
        (["sharpness=0.1", "accumulate=2"], r"training\.sharpness must be 0 beside accumulate"),
        (["sharpness=0.1", "strategy=fsdp"], r"training\.strategy must be auto or ddp .* 'fsdp'"),
        (["sharpness=-1"], r"training\.sharpness must be greater than or equal to 0; found -1"),
    ],
)
def test_what_does_not_go_with_sharpness_is_named(options: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        with_overrides(RunConfig(), [f"training.{option}" for option in options])
    assert with_overrides(RunConfig(), ["training.sharpness=0.1"]).training.sharpness == 0.1
