"""Tasks from plain text: the word is hidden, stands in one split, and is told to nobody."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import Tensor

from quickstudy.build import build_learner, build_source
from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.data.hidden_words import HiddenWords
from quickstudy.data.mixture import Mixture
from quickstudy.data.sampling import at_most
from quickstudy.data.source import DataError, DataNote
from quickstudy.evaluation.compare import TextTasks
from quickstudy.nn.minilm import minilm_folder
from quickstudy.nn.reading import Reader
from quickstudy.nn.several import WordsEncoder

NOUNS = [f"{a}{b}" for a in ("fox", "wolf", "bear", "hare") for b in ("ling", "kin", "ish")]
FEW = "least=4,share=0.2"


def sentences(each: int = 8, seed: int = 0) -> list[str]:
    """Sentences with one or two of the nouns, each of its own, and with words that stand in all of them."""
    draw = random.Random(seed)
    rows = [
        f"the {noun} met a {draw.choice(NOUNS)} in {'abcdefgh'[i]}{noun}town, said {noun.upper()}"
        for noun in NOUNS
        for i in range(each)
    ]
    draw.shuffle(rows)
    return rows


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.txt"
    path.write_text("\n\n".join(sentences()), encoding="utf-8")
    return path


def test_the_word_is_hidden_wherever_it_stands_and_every_sentence_has_one_class(
    plain: Path,
) -> None:
    source = build_source(f"hidden_words:{plain},{FEW}")
    assert isinstance(source, HiddenWords)
    originals, words, seen = set(sentences()), set(), []
    for split in ("train", "validation", "test"):
        for one in source.parts[split]:
            assert one.name not in words
            words.add(one.name)
            for row in one.rows:
                text = source.texts[row]
                assert "[MASK]" in text
                assert one.name not in re.findall(r"[a-z]+", text.casefold())
                # What was hidden, whatever its case, makes the sentence whole again.
                pattern = re.escape(text).replace(re.escape("[MASK]"), f"(?:(?i:{one.name}))")
                (whole,) = (each for each in originals if re.fullmatch(pattern, each))
                seen.append(whole)
    assert words <= set(NOUNS)
    assert len(words) > len(NOUNS) / 2
    assert len(seen) == len(set(seen)) > 40
    counts = source.describe()["splits"]
    assert min(part["classes"] for part in counts.values()) >= 2


def test_a_table_and_a_packed_file_are_the_same_tasks(plain: Path, tmp_path: Path) -> None:
    first = build_source(f"hidden_words:{plain},{FEW}")
    (tmp_path / "plain.txt.gz").write_bytes(gzip.compress(plain.read_bytes()))
    rows = [json.dumps({"said": text, "by": i}) for i, text in enumerate(sentences())]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    for spec in (f"{plain}.gz,{FEW}", f"{tmp_path / 'a.jsonl'},text=said,{FEW}"):
        other = build_source(f"hidden_words:{spec}")
        assert isinstance(first, HiddenWords)
        assert isinstance(other, HiddenWords)
        assert other.texts == first.texts
        assert other.parts == first.parts


def test_frequency_bounds_and_the_number_of_words_are_kept(plain: Path) -> None:
    def of(**options: float) -> dict[str, int]:
        source = HiddenWords(str(plain), **options)  # type: ignore[arg-type]
        return {one.name: len(one.rows) for part in source.parts.values() for one in part}

    assert max(of(least=4, most=5, share=0.2).values()) == 5
    assert min(of(least=6, share=0.2).values()) >= 6
    assert "the" not in of(least=4, share=0.9)
    assert len(of(least=4, share=0.2, words=3)) <= 3
    assert of(least=4, share=0.2, words=3, seed=1) != of(least=4, share=0.2, words=3)


def test_what_is_kept_of_a_long_line_lies_around_the_hidden_word(tmp_path: Path) -> None:
    def line(word: str, number: int) -> str:
        before = " ".join(f"b{word}{'xyzuvw'[number]}{'i' * i}" for i in range(1, 60))
        return f"{before} {word} {before} {word}"

    path = tmp_path / "long.txt"
    lines = [line(word, i) for word in ("ant", "bee") for i in range(6)]
    path.write_text("\n".join(lines), encoding="utf-8")
    found = HiddenWords(str(path), least=2, share=0.5)
    shown = [text for text in found.texts if "[MASK]" in text]
    assert shown
    for text in shown:
        assert len(text.split()) == 49
        assert text.split()[24] == "[MASK]"


def test_two_sentences_that_are_equal_when_their_words_are_hidden_are_left_out(
    plain: Path,
) -> None:
    first = HiddenWords(str(plain), least=4, share=0.2)
    same = [f"we all like our {one.name}" for one in first.parts["train"][:2]]
    plain.write_text("\n".join([*sentences(), *same]), encoding="utf-8")
    with pytest.warns(
        DataNote, match=r"Left out 2 of .*'we all like our \[MASK\]' has two classes"
    ):
        source = HiddenWords(str(plain), least=4, share=0.2)
    assert "we all like our [MASK]" not in [
        source.texts[row] for part in source.parts.values() for one in part for row in one.rows
    ]


def test_the_names_of_the_classes_reach_no_learner(plain: Path, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    rows = [f"{label} number {i},{label}" for label in "klmnopqr" for i in range(6)]
    table.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    specs = f"(hidden_words:{plain},{FEW})+(text:{table})"
    learner = build_learner(
        {"name": "protonet", "names": True}, {"name": "words", "width": 8}
    ).eval()
    design = EpisodeDesign(way=2, shot=1, queries=2)
    alone = build_source(f"hidden_words:{plain},{FEW}")
    alone.prepare(learner.encoder)
    episode = Episodes(alone, "train", design, tasks=3)[0]
    assert episode.context.names.shape == (3, 2, 0)
    assert episode.context.description.shape[1] == 0
    mixture = build_source(f"mixture:{specs}")
    assert isinstance(mixture, Mixture)
    mixture.prepare(learner.encoder)
    episode = Episodes(mixture, "train", design, tasks=12)[0]
    named = (episode.context.names >= 0).flatten(1).any(1)
    masked = torch.tensor(
        [
            any("[MASK]" in bytes(row[row >= 0].tolist()).decode() for row in x)
            for x in episode.support.x
        ]
    )
    assert named.any()
    assert masked.any()
    assert torch.equal(named, ~masked)
    assert learner(episode).isfinite()
    # Nor those that learners are compared with.
    tasks = TextTasks(alone, "train", design, episodes=2, seed=0)  # type: ignore[arg-type]
    assert {label[:6] for task in tasks for label in task[1]} == {"class "}


class Reads:
    """An encoder as far as a source sees it: MiniLM's tokenizer without its weights."""

    def __init__(self) -> None:
        tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
        self.reading = Reader(tokenizer, words=64)
        self.mask, self.words = self.reading.mask, self.reading.words

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.reading(texts).tokens


def test_each_encoder_reads_its_own_mask(plain: Path) -> None:
    minilm = Reads()
    number = minilm.reading.tokenizer.token_to_id(minilm.mask)
    assert minilm.tokenize(["a [MASK]."])[0, 2] == number
    source = HiddenWords(str(plain), least=4, share=0.2)
    source.prepare(minilm)
    assert bool((source.pool("train").x == number).any(1).all())

    class Roberta(WordsEncoder):
        mask = "<mask>"

    source.prepare(Roberta(8))
    (text, *_) = (bytes(row[row >= 0].tolist()).decode() for row in source.pool("train").x)
    assert "<mask>" in text
    assert "[MASK]" not in text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            "",
            DataError,
            r"holds 96 sentences, .* 20 or more .* 5% of all, 0 have 20 sentences of their own; a task",
        ),
        ("least=1", ValueError, "found least=1, most=100, words=1000 and share=0.05"),
        ("least=9,most=8", ValueError, "least is at least 2 and at most most"),
        ("share=0", ValueError, "share above 0"),
    ],
)
def test_what_cannot_be_used_is_said(
    plain: Path, options: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_source(f"hidden_words:{plain},{options}" if options else f"hidden_words:{plain}")


def test_there_must_be_a_file_of_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hidden_words:FILE\.txt"):
        HiddenWords()
    (tmp_path / "a.csv").write_text("words\nx\n")
    with pytest.raises(DataError, match="line 2: there is no column 'text', only 'words'"):
        HiddenWords(str(tmp_path / "a.csv"))
    (tmp_path / "a.txt").write_bytes(b"x\n\ny\n\xff\n")
    with pytest.raises(DataError, match="line 4: the byte 0xff is not UTF-8"):
        HiddenWords(str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_bytes(b" \n")
    with pytest.raises(DataError, match="is empty; expected a text on each line"):
        HiddenWords(str(tmp_path / "a.txt"))


ITEMS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=40)


@settings(max_examples=50, deadline=None)
@given(items=ITEMS, most=st.integers(1, 6), seed=st.integers(0, 9), order=st.randoms())
def test_who_is_kept_depends_on_what_there_is_alone(
    items: list[tuple[str, int]], most: int, seed: int, order: random.Random
) -> None:
    def kept(rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
        return at_most(rows, most, of=lambda row: row[0], mark=str, seed=seed)

    found = kept(items)
    assert len(found) == len(set(found))
    for name in "abc":
        there = {row for row in items if row[0] == name}
        mine = [row for row in found if row[0] == name]
        assert len(mine) == min(most, len(there))
        assert set(mine) == set(kept([row for row in items if row[0] == name]))
    places = [items.index(row) for row in found]
    assert places == sorted(places)
    mixed = items * 2
    order.shuffle(mixed)
    assert set(kept(mixed)) == set(found)


def test_all_are_kept_as_often() -> None:
    rows = [str(i) for i in range(20)]
    counts = dict.fromkeys(rows, 0)
    for seed in range(1000):
        for row in at_most(rows, 5, of=lambda _: "", mark=str, seed=seed):
            counts[row] += 1
    # Each 250 times, with a deviation of 13.7; five of them either way.
    assert min(counts.values()) > 180
    assert max(counts.values()) < 320
    with pytest.raises(ValueError, match="at least 1; found 0"):
        at_most(rows, 0, of=str, mark=str)


def test_words_do_not_starve_one_another(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = [f"{a}{b}" for a in "bcdfghklmnprstvz" for b in ("ane", "ole", "ust")]
    path = tmp_path / "plain.txt"
    rows = [" ".join(draw.sample(words, 8)) + f" the end {i}" for i in range(240)]
    path.write_text("\n".join(rows), encoding="utf-8")
    source = HiddenWords(str(path), least=10, share=1.0)
    kept = [one for part in source.parts.values() for one in part]
    # A sentence serves one word, so 24 can have ten; shared out evenly, each of 48 would have five, and none stay.
    assert len(kept) > 18
    assert all(len(one.rows) >= 10 for one in kept)
