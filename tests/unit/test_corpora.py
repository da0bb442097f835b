"""Published corpora: what the files hold becomes classes, groups and splits, and what is missing is asked for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from quickstudy.build import build_source, located
from quickstudy.data.catalog import CATALOG, data_folder, download
from quickstudy.data.catalog_of_texts import TEXTS
from quickstudy.data.design import EpisodeDesign, fit_design
from quickstudy.data.draw import Episodes
from quickstudy.data.source import SPLITS, DataError, DataNote
from quickstudy.data.text_tasks import Texts
from tiny_corpora import Letters, ag_news, clinc150, fewrel, lines, spoken, write_all

RESTRICTED = [name for name, entry in TEXTS.items() if entry.restricted]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUICKSTUDY_DATA", str(write_all(tmp_path / "data")))
    return tmp_path / "data"


def source_of(spec: str) -> Texts:
    """A prepared source, its licence being none of our business here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DataNote)
        source = build_source(spec)
    assert isinstance(source, Texts)
    source.prepare(Letters())
    return source


def classes(source: Texts) -> dict[str, list[str]]:
    return {split: [one.name for one in source.parts[split]] for split in SPLITS}


def groups(source: Texts) -> list[set[str]]:
    return [{one.group for one in source.parts[split]} for split in SPLITS]


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "leopard"])
def test_every_corpus_makes_classes_of_its_texts(folder: Path, name: str) -> None:
    source = source_of(name)
    seen: set[str] = set()
    for split in SPLITS:
        if not source.parts[split]:
            continue
        pool = source.pool(split)
        assert [spoken(row) for row in pool.x] == source.pool_texts(split)
        assert not seen & set(pool.class_names)
        seen |= set(pool.class_names)
    assert len(seen) >= 4
    facts = source.describe()
    assert (facts["name"], facts["licence"]) == (name, TEXTS[name].licence)


def test_the_domains_of_clinc150_go_round(folder: Path) -> None:
    first, turned = groups(source_of("clinc150")), groups(source_of("clinc150,rotation=8"))
    assert first[0] == {"auto", "banking", "cards", "home"}
    assert first[1:] == [{"kitchen"}, {"meta", "talk", "travel", "utility", "work"}]
    assert turned[0] == {"utility", "work", "auto", "banking"}
    assert turned[1] == {"cards"}
    with pytest.raises(DataError, match="rotation must lie between 0 and 9; found 10"):
        source_of("clinc150,rotation=10")


def test_banking77_has_25_25_and_27_intents_by_the_seed(folder: Path) -> None:
    one, other = classes(source_of("banking77")), classes(source_of("banking77,seed=1"))
    assert [len(one[split]) for split in SPLITS] == [25, 25, 27]
    assert one == classes(source_of("banking77"))
    assert one != other


def test_splits_over_topics_are_the_published_ones(folder: Path) -> None:
    for name in ("huffpost", "reuters"):
        found = classes(source_of(name))
        assert [len(found[split]) for split in SPLITS] == [3, 2, 4]
        assert all(each.startswith("val ") for each in found["validation"])


def test_kinds_of_questions_are_held_out_by_group(folder: Path) -> None:
    source = source_of("trec")
    assert groups(source) == [{"DESC", "ENTY", "LOC"}, {"ABBR", "HUM"}, {"NUM"}]
    assert classes(source)["test"] == ["date", "NUM/other"]
    assert "ENTY/other" in classes(source)["train"]


def test_a_domain_is_left_out_and_the_next_one_validates(folder: Path) -> None:
    source = source_of("fdu_mtl,held_out=toys")
    assert groups(source) == [{"dvd", "electronics"}, {"books"}, {"toys"}]
    assert classes(source)["test"] == ["toys/negative", "toys/positive"]
    several = source_of("fdu_mtl,held_out=books+electronics")
    assert groups(several) == [{"dvd"}, {"toys"}, {"books", "electronics"}]
    with pytest.raises(DataError, match=r"expected one of .* that leave two domains or more"):
        source_of("fdu_mtl,held_out=books+dvd+electronics+toys")
    with pytest.raises(DataError, match=r"held_out=food .* expected one of books, dvd, electr"):
        source_of("fdu_mtl,held_out=food")
    with pytest.raises(DataError, match="with protocol=all"):
        source_of("fdu_mtl,held_out=toys,protocol=all")


def test_the_two_things_of_a_relation_are_marked(folder: Path) -> None:
    source = source_of("fewrel")
    assert "In val_wiki [E1] Ada Byron [/E1] met [E2] 0-0 [/E2] ." in source.texts
    # Two relations have one name, so each says which it is.
    named = {name for part in classes(source).values() for name in part}
    assert {"relation 0 (P0)", "relation 0 (P7)", "relation 1"} <= named


def test_a_relation_of_the_test_is_in_no_training(folder: Path) -> None:
    found = classes(source_of("fewrel,target=nyt"))
    assert found["test"] == ["relation 6", "relation 0 (P7)", "relation 8", "relation 9"]
    assert sorted(found["train"] + found["validation"]) == [
        "relation 0 (P0)",
        *(f"relation {n}" for n in range(1, 6)),
    ]
    assert len(classes(source_of("fewrel,target=semeval"))["test"]) == 3


def test_relations_train_on_the_training_file_where_there_is_one(tmp_path: Path) -> None:
    fewrel(tmp_path / "fewrel", train=True)
    found = classes(source_of(f"fewrel:{tmp_path / 'fewrel'}"))
    assert len(found["test"]) == 8
    assert set(found["train"] + found["validation"]) == {f"P{n}" for n in range(30, 40)}


ALL = ["clinc150", "banking77", "snips", "trec", "fdu_mtl"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_in_all_classes_tasks_support_never_holds_a_row_that_is_asked(
    folder: Path, name: str, split: str
) -> None:
    source = source_of(f"{name},protocol=all")
    known = {one.name for one in source.parts["train"]}
    assert known == {one.name for one in source.parts[split]}
    design = fit_design(
        source, split, way=None, shot=3, queries=None, within_group=False, most_way=5, examples=60
    )
    assert design.way == len(known)
    training = set(source.pool_texts("train"))
    tasks = Episodes(source, split, design, tasks=2, length=5)
    for index in range(5):
        episode = tasks[index]
        assert {spoken(row) for row in episode.support.x.flatten(0, 1)} <= training
        assert not {spoken(row) for row in episode.query.x.flatten(0, 1)} & training


def test_all_classes_need_both_published_parts(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no examples for train; .* leave protocol=all out"):
        source_of("ag_news,protocol=all")
    ag_news(tmp_path / "ag_news", train=True)
    assert source_of(f"ag_news:{tmp_path / 'ag_news'},protocol=all").pool("test").apart


def test_intents_bring_texts_of_no_intent(folder: Path) -> None:
    source = source_of("clinc150")
    strangers = source.strangers("test")
    assert strangers is not None
    assert [spoken(row) for row in strangers] == [f"stranger said test {i}" for i in range(10)]
    assert source_of("banking77").strangers("test") is None
    with pytest.raises(DataError, match=r"call prepare\(encoder\) before"):
        build_source("clinc150").strangers("test")


@pytest.mark.parametrize("name", RESTRICTED)
def test_a_restricted_licence_is_said(folder: Path, name: str) -> None:
    spec = f"{name},task=pairs" if name == "leopard" else name
    with pytest.warns(DataNote) as notes:
        build_source(spec)
    said = [str(note.message) for note in notes]
    assert f"Licence of {name}: {TEXTS[name].licence}." in said


def test_news_that_are_not_free_say_so_only_where_they_are_read(folder: Path) -> None:
    with pytest.warns(DataNote, match=r"those of val_nyt are not free"):
        build_source("fewrel,target=nyt")
    build_source("fewrel")  # a note would be an error


def test_a_record_without_text_is_left_out_with_a_note(folder: Path) -> None:
    with pytest.warns(DataNote) as notes:
        source = build_source("fdu_mtl")
    assert any("Left out 1 of 19 records" in str(note.message) for note in notes)
    assert isinstance(source, Texts)
    assert all(text.strip() for text in source.texts)


@pytest.mark.parametrize("name", list(TEXTS))
def test_missing_files_are_answered_with_what_to_do(tmp_path: Path, name: str) -> None:
    options = {"leopard": ",task=pairs"}.get(name, "")
    with pytest.raises(DataError) as caught:
        source_of(f"{name}:{tmp_path}{options}")
    wanted = f"run: quickstudy download {name};" if TEXTS[name].fetched else TEXTS[name].page
    assert wanted in str(caught.value)
    assert f"{name}:FOLDER" in str(caught.value)


def test_files_of_another_form_are_refused(folder: Path) -> None:
    (folder / "clinc150" / "domains.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match="not as published"):
        source_of("clinc150")
    (folder / "clinc150" / "domains.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"domains\.json is not JSON"):
        source_of("clinc150")
    (folder / "fewrel" / "val_wiki.json.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="is damaged"):
        source_of("fewrel")
    (folder / "fewrel" / "val_wiki.json.gz").unlink()
    (folder / "fewrel" / "val_wiki.json").write_text(json.dumps({"P1": [{"tokens": 3}]}))
    with pytest.raises(DataError, match="not as published"):
        source_of("fewrel")
    lines(folder / "fdu_mtl" / "books.jsonl", [{"split": "train", "label": 2, "text": "good"}])
    with pytest.raises(DataError, match=r"books\.jsonl, line 1: found the label '2'"):
        source_of("fdu_mtl")


def test_a_folder_of_data_sets_is_named_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data_folder("clinc150") == folder / "clinc150"
    assert data_folder("omniglot").parent.name == "data"  # not there, so where it is downloaded to
    monkeypatch.delenv("QUICKSTUDY_DATA")
    assert data_folder("clinc150") != folder / "clinc150"
    assert located("clinc150,rotation=2", folder) == f"clinc150:{folder / 'clinc150'},rotation=2"
    assert located("clinc150:mine", folder) == "clinc150:mine"
    assert located("glyphs", folder) == "glyphs"
    mixed = located("mixture:(snips)+2*(text:a.csv),temperature=2", folder)
    assert mixed == f"mixture:1*(snips:{folder / 'snips'})+2*(text:a.csv),temperature=2"


def test_what_cannot_be_fetched_says_where_people_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"snips cannot be fetched .* Get it from https://github"):
        download("snips", tmp_path)


def test_every_corpus_is_in_the_catalogue() -> None:
    assert set(TEXTS) < set(CATALOG)
    for entry in TEXTS.values():
        assert entry.page.startswith("https://") or entry.page.startswith("http://")
        for file in entry.files.values():
            assert all(known.startswith("sha256:") for known in file.checksums)
            assert all(len(known) == len("sha256:") + 64 for known in file.checksums)


def test_tasks_of_one_domain_know_its_name(folder: Path) -> None:
    source = source_of("fdu_mtl,held_out=books")
    design = EpisodeDesign(2, 2, 2, within_group=True)
    episode = Episodes(source, "test", design, tasks=1)[0]
    assert spoken(episode.context.description[0]) == "books"
    assert {spoken(name) for name in episode.context.names[0]} == {"negative", "positive"}


def test_a_source_can_do_without_some_texts(tmp_path: Path) -> None:
    clinc150(tmp_path / "c")
    source = source_of(f"clinc150:{tmp_path / 'c'},protocol=all")
    out = {
        "auto_0 said test 0",
        "auto_0 said train 1",
        *(f"work_1 said test {i}" for i in range(4)),
    }
    less = source.without("test", out)
    before, after = source.pool("test"), less.pool("test")
    assert int(before.counts.sum() - after.counts.sum()) == 6
    assert (before.asked - after.asked).tolist() == [1, *[0] * 18, 4]
    assert not set(less.pool_texts("test")) & out
    assert torch.equal(source.pool("train").x, less.pool("train").x)
