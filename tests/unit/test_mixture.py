"""Mixtures of sources: how often each comes, that its tasks are its own, and what cannot be mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_source import same
from torch import Tensor

from quickstudy.build import BuildError, build_source, one_source, parse_spec
from quickstudy.data.design import EpisodeDesign, fit_design
from quickstudy.data.draw import Episodes
from quickstudy.data.mixture import Mixed, Mixture, read_mixture
from quickstudy.data.source import DataError
from quickstudy.data.streams import Streams
from quickstudy.data.synthetic import Linear, Sinusoid
from quickstudy.data.unlabelled import Unlabelled, without_labels
from quickstudy.evaluation.contest import Contest
from quickstudy.evaluation.mixed import mixture_scores
from tiny_corpora import Letters


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of images, each class of one grey: ``few`` has 40 to train on, ``many`` 160, all darker."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, classes, each, dark in (("few", 10, 8, 0), ("many", 10, 32, 128)):
        found[name] = tmp_path_factory.mktemp(name)
        for split, count in (("train", classes // 2), ("validation", 3), ("test", 3)):
            for grey in range(count):
                place = found[name] / split / f"{name}{split}{grey}"
                place.mkdir(parents=True)
                for number in range(each):
                    pixels = torch.randint(0, 100, (8, 8), generator=generator) + dark
                    Image.fromarray(pixels.to(torch.uint8).numpy()).save(place / f"{number}.png")
    return found


def mixed_folders(folders: dict[str, Path], *, more: str = "", options: str = "") -> Mixture:
    few, many = (f"(images:{folders[name]},size=8,invert=no{more})" for name in ("few", "many"))
    found = build_source(f"mixture:{few}+{many}{options}")
    assert isinstance(found, Mixture)
    return found


def test_a_mixture_is_written_with_parentheses() -> None:
    text = "(images:a (b), c,size=8)+2.5*(linear)+ 1e-1 * (sinusoid)"
    assert read_mixture(text) == [(1, "images:a (b), c,size=8"), (2.5, "linear"), (0.1, "sinusoid")]
    assert parse_spec(f"mixture:{text},temperature=2") == ("mixture", text, {"temperature": "2"})
    assert parse_spec("images:left (open,size=8") == ("images", "left (open", {"size": "8"})
    assert one_source("mixture:(mixture:(linear,dims=2)+(sinusoid))+(families)") == "linear,dims=2"


@pytest.mark.parametrize(
    "text",
    ["", "sinusoid", "(sinusoid)", "(sinusoid)+", "(sinusoid)(linear)", "(a)+x*(b)", "(a)+(b"],
)
def test_what_is_written_otherwise_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"mixture:\(SPEC\)\+\(SPEC\)"):
        read_mixture(text)


def test_shares_follow_weights_and_the_temperature_of_sizes(folders: dict[str, Path]) -> None:
    assert mixed_folders(folders).shares.tolist() == pytest.approx([0.5, 0.5])
    by_size = mixed_folders(folders, options=",temperature=1")
    assert by_size.shares.tolist() == pytest.approx([0.2, 0.8])
    softer = mixed_folders(folders, options=",temperature=2")
    assert softer.shares.tolist() == pytest.approx([1 / 3, 2 / 3])
    weighed = build_source("mixture:(sinusoid)+3*(linear),temperature=5")
    assert isinstance(weighed, Mixture)
    assert weighed.shares.tolist() == pytest.approx([0.25, 0.75])


def test_a_batch_mixes_tasks_of_worlds_that_are_each_its_own() -> None:
    world = build_source("mixture:(linear,dims=1)+3*(linear,dims=3)")
    design = EpisodeDesign(1, (3, 5), 6)
    episode = Episodes(world, "test", design, tasks=400, seed=1)[0]
    short = (episode.query.x[..., 1:] == 0).all(2).all(1)
    assert int(short.sum()) == pytest.approx(100, abs=30)
    for task in range(40):
        x, y = episode.query.x[task].double(), episode.query.y[task].double()
        weights = torch.linalg.lstsq(x, y, driver="gelsd").solution
        torch.testing.assert_close(x @ weights, y, rtol=1e-4, atol=1e-4)
    assert same(Episodes(world, "test", design, tasks=400, seed=1)[0], episode)
    assert not same(Episodes(world, "train", design, tasks=400, seed=1)[0], episode)


def test_tasks_of_data_sets_are_of_one_of_them(folders: dict[str, Path]) -> None:
    mixture = mixed_folders(folders)
    design = fit_design(
        mixture, "test", way=None, shot=2, queries=None, within_group=False, most_way=9, examples=99
    )
    assert design == EpisodeDesign(3, 2, 6)
    episode = Episodes(mixture, "test", design, tasks=60)[0]
    assert episode.support.x.shape == (60, 6, 1, 8, 8)
    dark = episode.query.x.flatten(1).min(1).values >= 128
    bright = episode.query.x.flatten(1).max(1).values < 128
    assert (dark ^ bright).all()
    assert 15 < int(dark.sum()) < 45
    single = Episodes(mixture, "train", design, length=9)
    assert single[3].support.x.shape == (1, 6, 1, 8, 8)
    names = {name.shape[-1] for name in (single[i].context.names for i in range(9))}
    assert len(names) == 1


def test_only_training_examples_are_varied(folders: dict[str, Path]) -> None:
    mixture = mixed_folders(folders)
    design = EpisodeDesign(2, 2, 2)
    for split, known in (("test", True), ("train", False)):
        images = {
            tuple(image.flatten().tolist())
            for part in mixture.sources.values()
            for image in part.pool(split).x  # type: ignore[attr-defined]
        }
        drawn = Episodes(mixture, split, design, tasks=4)[0].query.x.flatten(0, 1)  # type: ignore[arg-type]
        assert all(tuple(image.flatten().tolist()) in images for image in drawn) == known


def test_streams_stay_with_one_source() -> None:
    mixture = build_source("mixture:(linear,dims=1)+(linear,dims=3)")
    streams = Streams(mixture, "test", EpisodeDesign(1, 2, 3), positions=4, tasks=50)
    short = torch.stack(
        [(each.query.x[..., 1:] == 0).all(2).all(1) for each in streams[0].episodes]
    )
    assert (short.all(0) | ~short.any(0)).all()
    assert 10 < int(short[0].sum()) < 40


def test_each_source_of_a_mixture_can_do_without_labels(folders: dict[str, Path]) -> None:
    found = without_labels(mixed_folders(folders))
    assert all(isinstance(part, Unlabelled) for part in found.sources.values())
    episode = Episodes(found, "train", EpisodeDesign(3, 1, 2), tasks=3)[0]
    assert episode.query.x.shape == (3, 6, 1, 8, 8)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("(sinusoid)+(sinusoid)", "each once"),
        ("(sinusoid)+0*(linear)", "positive"),
        ("(sinusoid)+(tables)", "tasks of 1 values, but tables of classes"),
        ("(sinusoid)+(images:{few})", "examples of the kind vector, but images"),
        (
            "(images:{few},size=8)+(images:{many},size=12)",
            r"shape \(1, 8, 8\), but .*\(1, 12, 12\)",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(folders: dict[str, Path], spec: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        build_source(f"mixture:{spec.format(**folders)}")


def test_a_temperature_is_positive() -> None:
    parts = [Mixed("a", 1, Sinusoid()), Mixed("b", 1, Linear(dims=1))]
    with pytest.raises(ValueError, match="positive"):
        Mixture(parts, temperature=0)
    with pytest.raises(BuildError, match="temperature"):
        build_source("mixture:(sinusoid)+(linear),temperature=0")


def test_too_small_a_source_is_told_before_training(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="the smallest is 'fewtest"):
        Episodes(mixed_folders(folders), "test", EpisodeDesign(3, 5, 5))


def test_scores_are_those_of_a_stratified_sample() -> None:
    def scores(mean: float, exact: bool) -> dict[str, object]:
        row = {"mean": mean, "ci95": 0.3}
        baselines = {"mean_of_support": row, **({"exact": row} if exact else {})}
        paired = {"against": "x", "difference": mean, "ci95": 0.3}
        fixed = {
            "metric": "mean_squared_error",
            "episodes": 7,
            "inductive": True,
            "below_exact": None,
        }
        return {**row, **fixed, "baselines": baselines, "paired": paired}

    found = mixture_scores({"a": scores(1, exact=True), "b": scores(4, exact=False)}, [0.5, 0.5])
    half = 0.3 * math.sqrt(0.5)
    assert (found["mean"], found["ci95"]) == pytest.approx((2.5, half))
    assert found["baselines"] == {"mean_of_support": pytest.approx({"mean": 2.5, "ci95": half})}
    assert found["paired"] == {"against": "x", "difference": 2.5, "ci95": pytest.approx(half)}
    assert (found["episodes"], found["inductive"], found["below_exact"]) == (14, True, None)
    assert found["sources"]["b"]["source"] == "b"
    assert found["sources"]["b"]["share"] == 0.5


class Shifted(Letters):
    """Another tokenizer."""

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        tokens = super().tokenize(texts)
        return torch.where(tokens < 0, tokens, tokens + 1000)


def texts_of_two(folder: Path, options: str, more: str = "") -> str:
    """A mixture of a table of 6 classes and one of 12, six texts of each."""
    parts = []
    for name, classes in (("few", 6), ("many", 12)):
        rows = [f"{name}{c} text {i},{name}{c}" for c in range(classes) for i in range(6)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
        parts.append(f"(text:{folder / name}.csv,{options})")
    return f"mixture:{'+'.join(parts)}{more}"


@pytest.mark.parametrize(
    ("options", "more", "share"),
    [("test=1", "", 1 / 2), ("validation=0,test=0.5", ",temperature=1", 1 / 3)],
)
def test_each_contestant_reads_the_texts_of_a_mixture_by_its_own_encoder(
    tmp_path: Path, options: str, more: str, share: float
) -> None:
    source = build_source(texts_of_two(tmp_path, options, more))
    design, contest = EpisodeDesign(2, 1, 1), Contest(source, split="test")
    own, other = (contest.fed_to(encoder) for encoder in (Letters(), Shifted()))  # type: ignore[arg-type]
    assert isinstance(own, Mixture)
    assert own.shares[0] == pytest.approx(share)
    for index in range(4):
        one, two = (
            Episodes(each, "test", design, tasks=3, length=4)[index] for each in (own, other)
        )
        assert one.support.x.max() < 1000 <= two.support.x.max()
        assert torch.equal(
            one.query.x, torch.where(two.query.x < 0, two.query.x, two.query.x - 1000)
        )


def test_a_temperature_needs_training_examples_to_count(tmp_path: Path) -> None:
    spec = texts_of_two(tmp_path, "test=1", ",temperature=1")
    with pytest.raises(DataError, match=r"few.* has nothing to train on.*leave temperature out"):
        build_source(spec)
