"""Texts that training and test have in common: none is missed, none is invented, and what to do is up to the reader."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.artifact import save_artifact
from quickstudy.build import build_learner, build_source
from quickstudy.cli import main
from quickstudy.config import RunConfig
from quickstudy.data import overlap as overlap_module
from quickstudy.data.overlap import (
    overlap,
    shared_origin,
    shingles,
    twins,
    without_overlap,
    words_in,
)
from quickstudy.data.text import TextSource, texts_of_rows
from quickstudy.data.text_tasks import Texts
from tiny_corpora import Letters

# Few words, so that many texts are alike.
TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join), max_size=12)


@given(training=TEXTS, tested=TEXTS, near=st.sampled_from([0.3, 0.5, 0.6, 0.8, 1.0]))
def test_what_is_found_is_what_comparing_all_pairs_finds(
    training: list[str], tested: list[str], near: float
) -> None:
    found = {twin.tested: twin for twin in twins(training, tested, near=near)}
    for row, text in enumerate(tested):
        own, words = shingles(words_in(text)), words_in(text)
        best = max(
            (
                len(own & other) / len(own | other)
                for other in (shingles(words_in(each)) for each in training)
            ),
            default=0.0,
        )
        same = any(words == words_in(each) for each in training)
        assert (row in found) == (best >= near or same)
        if row in found:
            assert found[row].exact == same
            assert found[row].similarity == pytest.approx(best)


def test_case_punctuation_blanks_and_width_of_letters_do_not_matter() -> None:
    (twin,) = twins(["unlike", "Where's my  CARD?"], ["where s ｍｙ card !"])
    assert (twin.training, twin.exact) == (1, True)


def test_pieces_are_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    training = [f"this is sentence number {i} of a few that are much alike" for i in range(9)]
    tested = [training[7].upper(), training[2].replace("few", "lot"), "none of these"]
    whole = twins(training, tested)
    assert [(twin.tested, twin.exact) for twin in whole] == [(0, True), (1, False)]
    assert whole[1].training == 2
    monkeypatch.setattr(overlap_module, "AT_ONCE", 2)
    assert twins(training, tested) == whole


def test_a_similarity_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="near must lie above 0"):
        twins([], [], near=0)


def table(path: Path, start: int, count: int, *, seen: tuple[str, ...] = ()) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "split"])
        for number in range(start, start + count):
            split = ("train", "validation", "test")[number % 3]
            writer.writerows(
                [f"w{number} of x{number}y{i} and z{i}", f"c{number}", split] for i in range(5)
            )
        writer.writerows([text, f"c{start + i}", ("train", "validation", "test")[(start + i) % 3]]
                         for i, text in enumerate(seen))  # fmt: skip
    return str(path)


SEEN = "W0 of x0y3, and z3!"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Two tables; a test text of the second is a training text of the first."""
    one = table(tmp_path / "one.csv", 0, 9)
    return one, table(tmp_path / "two.csv", 30, 9, seen=("a word", "some word", SEEN))


def test_texts_of_the_test_are_compared_with_those_of_the_training(pair: tuple[str, str]) -> None:
    one, two = TextSource(pair[0]), TextSource(pair[1])
    found = overlap(one, two, split="test")
    assert found is not None
    assert (found.tested, found.exact, found.near) == (16, 1, 0)
    assert found.examples == [
        {
            "tested": SEEN,
            "training": "w0 of x0y3 and z3",
            "similarity": 1.0,
        }
    ]
    less = without_overlap(two, found, split="test")
    assert isinstance(less, Texts)
    assert set(two.pool_texts("test")) - set(less.pool_texts("test")) == {SEEN}
    assert less.pool_texts("train") == two.pool_texts("train")
    assert overlap(one, TextSource(pair[0]), split="test") is None
    other = overlap(one, two, split="train")
    assert other is not None
    assert other.exact == 0


def test_the_sources_of_a_mixture_are_compared_with_each_other(pair: tuple[str, str]) -> None:
    mixture = build_source(f"mixture:(text:{pair[0]})+(text:{pair[1]}),temperature=2")
    mixture.prepare(Letters())
    found = overlap(mixture, mixture, split="test")
    assert found is not None
    assert found.exact == 1
    less = without_overlap(mixture, found, split="test")
    again = overlap(less, less, split="test")
    assert again is not None
    assert (again.exact, again.near) == (0, 0)


def named(name: str, **facts: str) -> Texts:
    source = texts_of_rows([{"text": f"{i}", "label": f"{i % 2}"} for i in range(4)], name=name)
    source.facts |= facts
    return source


def test_data_sets_of_one_origin_are_known() -> None:
    assert "one collection" in shared_origin(
        named("x", path="a/HWU64.csv"), named("x", path="liu.csv")
    )
    assert shared_origin(named("leopard", task="sentiment_dvd"), named("fdu_mtl")).startswith(
        "leopard/sentiment_dvd and fdu_mtl: "
    )
    assert shared_origin(named("leopard", task="scitail"), named("fdu_mtl")) == ""
    assert "banking" in shared_origin(named("banking77"), named("clinc150"))
    assert shared_origin(named("clinc150"), named("clinc150")) == ""


@pytest.fixture
def artifact(pair: tuple[str, str], tmp_path: Path) -> str:
    config = RunConfig(
        data=f"text:{pair[0]}",
        encoder={"name": "words", "width": 8},
        episode={"way": 2, "queries": 1},
        validation={"way": 2, "queries": 1},
    )
    save_artifact(tmp_path / "model", build_learner(config.learner, config.encoder), config, {})
    return str(tmp_path / "model")


def scores(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, object], str]:
    assert main(["evaluate", *words, "--json", "--episodes", "3"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def test_evaluate_reports_and_drops(
    artifact: str, pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    found, said = scores(capsys, artifact, "--data", f"text:{pair[1]}")
    assert "Note: Of 16 texts of the test, 1 are in the training too and 0 nearly so" in said
    assert "Leave them out by --drop-duplicates." in said
    overlapping = found["overlap"]
    assert isinstance(overlapping, dict)
    assert (overlapping["exact"], overlapping["dropped"]) == (1, False)
    found, said = scores(capsys, artifact, "--data", f"text:{pair[1]}", "--drop-duplicates")
    assert "They are left out." in said
    found, said = scores(capsys, artifact)
    assert "overlap" not in found
    both = f"mixture:(text:{pair[0]})+(text:{pair[1]})"
    found, said = scores(capsys, artifact, "--data", both, "--way", "2")
    assert [each["source"] for each in found["sources"].values()] == [f"text:{p}" for p in pair]  # type: ignore[attr-defined]
    assert found["overlap"]["exact"] == 1  # type: ignore[index]
    Path(pair[0]).unlink()
    found, said = scores(capsys, artifact, "--data", f"text:{pair[1]}")
    assert "Note: The training texts cannot be compared" in said
    assert "overlap" not in found


class ClassLabel:
    names = ("no", "yes")


class Rows(list[dict[str, object]]):
    """As far as a source sees it, a data set of Hugging Face."""

    features = {"text": object(), "label": ClassLabel()}  # noqa: RUF012


def test_numbers_of_labels_become_names() -> None:
    rows = Rows({"text": f"text {i}", "label": i % 2} for i in range(6))
    source = texts_of_rows(rows, test=1)
    assert [one.name for one in source.parts["test"]] == ["no", "yes"]
    rows[2]["label"] = -1
    with pytest.raises(ValueError, match=r"rows, line 3: found the label -1, expected .* 0 to 1"):
        texts_of_rows(rows)
    with pytest.raises(ValueError, match="There are no rows"):
        texts_of_rows([])
    with pytest.raises(ValueError, match="line 1: there is no column 'label', only 'text'"):
        texts_of_rows([{"text": "a"}])


def test_rows_and_a_table_of_them_are_the_same_tasks(pair: tuple[str, str]) -> None:
    with Path(pair[0]).open(encoding="utf-8") as file:
        source = texts_of_rows(list(csv.DictReader(file)), name="mine")
    from_file = build_source(f"text:{pair[0]}")
    assert isinstance(from_file, Texts)
    assert (source.parts, source.texts) == (from_file.parts, from_file.texts)
