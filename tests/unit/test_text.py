"""Texts from tables: what is read is what was written, and what is wrong is said with its line."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quickstudy.data import records, text
from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.data.records import read_records
from quickstudy.data.source import DataError, DataNote
from quickstudy.data.text import TextSource


class Letters:
    """An encoder as far as a source sees it: a word is a letter's number."""

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        longest = max((len(text) for text in texts), default=0)
        rows = [[ord(letter) for letter in text] + [-1] * (longest - len(text)) for text in texts]
        return torch.tensor(rows, dtype=torch.int64)


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def intents(labels: int = 10, each: int = 3, groups: int = 0) -> list[dict[str, str]]:
    rows = []
    for label in range(labels):
        for number in range(each):
            row = {"text": f"{number} of {label}", "label": f"intent_{label}"}
            rows.append(row | ({"group": f"g{label % groups}"} if groups else {}))
    return rows


def spoken(row: Tensor) -> str:
    return "".join(chr(letter) for letter in row.tolist() if letter >= 0)


def test_texts_become_tokens_of_their_class(tmp_path: Path) -> None:
    source = TextSource(str(table(tmp_path / "übung.csv", intents())))
    source.prepare(Letters())
    seen = set()
    for split in ("train", "validation", "test"):
        pool = source.pool(split)
        assert [spoken(row) for row in pool.x] == source.pool_texts(split)
        for row, label in zip(pool.x, pool.labels.tolist(), strict=True):
            assert f"intent_{spoken(row).split()[-1]}" == pool.class_names[label]
        assert [spoken(name) for name in pool.names] == [
            n.replace("_", " ") for n in pool.class_names
        ]
        seen |= set(pool.class_names)
    assert len(seen) == 10
    episode = Episodes(source, "train", EpisodeDesign(way=2, shot=1, queries=2), tasks=3)[0]
    assert episode.support.x.dtype == torch.int64
    assert episode.context.names.shape[:2] == (3, 2)


def test_groups_are_held_out_whole_and_a_label_in_two_groups_is_two_classes(tmp_path: Path) -> None:
    rows = intents(labels=10, groups=5)
    rows += [{"text": "other", "label": "intent_0", "group": "g1"}]
    source = TextSource(str(table(tmp_path / "a.csv", rows)))
    groups = {split: {one.group for one in part} for split, part in source.parts.items()}
    assert [len(groups[split]) for split in ("train", "validation", "test")] == [3, 1, 1]
    names = {one.name for part in source.parts.values() for one in part}
    assert {"g0/intent_0", "g1/intent_0", "intent_1"} <= names
    assert len(names) == 11


def test_a_split_column_decides(tmp_path: Path) -> None:
    rows = intents(labels=3)
    for row in rows:
        row["split"] = {"intent_0": "train", "intent_1": "dev", "intent_2": "Test"}[row["label"]]
    path = table(tmp_path / "a.csv", rows)
    parts = TextSource(str(path)).parts
    assert {split: [one.name for one in part] for split, part in parts.items()} == {
        "train": ["intent_0"],
        "validation": ["intent_1"],
        "test": ["intent_2"],
    }
    rows[-1]["split"] = "train"
    with pytest.raises(DataError, match="'intent_2' is in the test and in the train split"):
        TextSource(str(table(path, rows)))
    rows[-1]["split"] = "holdout"
    with pytest.raises(
        DataError, match="line 10: the split 'holdout' is none of train, validation, test"
    ):
        TextSource(str(table(path, rows)))


def test_other_columns_may_hold_texts_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("utterance\tcategory\nhello, you\tgreet\nbye\tleave\n", encoding="utf-8")
    source = TextSource(str(path), text="utterance", label="category", test=1)
    assert source.pool_texts("test") == ["hello, you", "bye"]


def test_repeated_texts_and_conflicts_are_left_out_with_a_note_or_refused(tmp_path: Path) -> None:
    rows = intents(labels=3)
    path = table(tmp_path / "a.csv", [*rows, rows[1]])
    with pytest.warns(DataNote, match=r"Left out 1 of 10 examples.* line 11, equal to .* line 3\."):
        source = TextSource(str(path), test=1)
    assert source.pool_texts("test") == [row["text"] for row in rows]
    path = table(path, [*rows, rows[1] | {"label": "intent_2"}])
    with pytest.raises(
        DataError, match=r"'intent_0' at .* line 3 and 'intent_2' at .* line 11; keep"
    ):
        TextSource(str(path), conflicts="error")
    named = r"Left out 2 of 10 .* '1 of 0' has two classes: 'intent_0' at .* and 'intent_2' at"
    with pytest.warns(DataNote, match=named):
        assert len(TextSource(str(path), test=1).pool_texts("test")) == 8
    # One of each: both are said, and a text that is repeated and of two classes is counted once.
    path = table(path, [*rows, rows[1], rows[1] | {"label": "intent_2"}, rows[0]])
    with pytest.warns(DataNote) as notes:
        assert len(TextSource(str(path), test=1).pool_texts("test")) == 8
    said = [str(note.message)[:19] for note in notes]
    assert said == ["Left out 3 of 12 ex", "Left out 1 of 12 ex"]


def test_of_a_very_long_file_some_of_each_class_are_kept_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path / "long.csv", intents(4, each=30))
    monkeypatch.setattr(text, "LONG", 120)
    assert len(TextSource(str(path)).texts) == 120
    monkeypatch.setattr(text, "LONG", 119)
    monkeypatch.setattr(text, "MOST_OF_LONG", 7)
    with pytest.warns(DataNote, match="more than 119 rows, so at most 7 different texts of each"):
        shortened = TextSource(str(path))
    assert len(shortened.texts) == 28
    assert shortened.texts == TextSource(str(path), most=7).texts


def test_texts_want_an_encoder_of_texts(tmp_path: Path) -> None:
    source = TextSource(str(table(tmp_path / "a.csv", intents())))
    with pytest.raises(DataError, match=r"call prepare\(encoder\)"):
        source.pool("train")
    with pytest.raises(DataError, match="Linear does not take texts; choose the encoder 'text'"):
        source.prepare(torch.nn.Linear(1, 1))
    with pytest.raises(DataError, match=r"text:FILE\.csv"):
        TextSource()


WRONG: dict[str, tuple[str, bytes]] = {
    r"cannot be read: No such file": ("missing.csv", b""),
    r"is empty": ("a.csv", b"\n \n"),
    r"does not end in \.csv": ("a.xlsx", b"x"),
    r"holds no record below its header": ("a.csv", b"text,label\n"),
    r"line 3: the byte 0xe9 is not UTF-8; save": ("a.csv", b"text,label\nx,a\ncaf\xe9,b\n"),
    r"no column 'label', only 'text', 'category'; rename": ("a.csv", b"text,category\nx,a\n"),
    r"line 3: there is no column 'label', only 'text'": (
        "a.jsonl",
        b'{"text":"x","label":"a"}\n\n{"text":"y"}\n',
    ),
    r"line 2: found 3 cells, but the header names 2": ("a.csv", b"text,label\nyes, please,a\n"),
    r"line 3: unexpected end of data": ("a.csv", b'text,label\nx,a\n"open,b\n'),
    r"the column 'text' is there twice": ("a.csv", b"text,text,label\n1,2,3\n"),
    r"line 4: the column 'text' is empty": ("a.csv", b'text,label\n"a\nb",a\n ,b\n'),
    r"line 2: this is not JSON": ("a.jsonl", b'{"text":"x","label":"a"}\n{"text"\n'),
    r"line 1: found a JSON list, expected an object": ("a.jsonl", b'["x","a"]\n'),
    r"holds one label, 'a'; a task needs at least 2": ("a.csv", b"text,label\nx,a\ny,a\n"),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, message: str) -> None:
    name, content = WRONG[message]
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        TextSource(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


# Whatever has a meaning in CSV or JSON, is a line break to somebody, or takes two, three or four bytes.
CELLS = st.text("ab ,;\"'\\\t\n\r\v\x85\u2028\ufeffé文😀", max_size=12)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), crlf=st.booleans())
def test_any_csv_is_read_as_it_was_written(rows: list[tuple[str, str]], crlf: bool) -> None:
    buffer = io.StringIO(newline="")
    end = "\r\n" if crlf else "\n"
    writer = csv.writer(buffer, lineterminator=end, quoting=csv.QUOTE_ALL)
    begins, line = [], 2
    writer.writerow(["text", "label"])
    for row in rows:
        begins.append(line)
        before = buffer.tell()
        writer.writerow(row)
        line += (
            len(buffer.getvalue()[before:].replace("\r\n", "\n").replace("\r", "\n").split("\n"))
            - 1
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_bytes(buffer.getvalue().encode())
        found = read_records(path)
    assert [(record.cells["text"], record.cells["label"]) for record in found] == rows
    assert [record.line for record in found] == begins


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(CELLS, st.one_of(st.integers(), st.booleans(), CELLS)), min_size=1, max_size=6
    )
)
def test_any_json_lines_are_read_as_they_were_written(rows: list[tuple[str, object]]) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes("\n".join(lines).encode())
        found = read_records(path)
    expected = [
        (text, label if isinstance(label, str) else json.dumps(label)) for text, label in rows
    ]
    assert [(record.cells["text"], record.cells["label"]) for record in found] == expected
    assert [record.line for record in found] == list(range(1, len(rows) + 1))


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\nhi,a\n".encode("utf-8-sig"))
    assert read_records(path)[0].cells == {"text": "hi", "label": "a"}


@pytest.mark.parametrize(
    "content",
    [
        'text;label\nso, it is;a\n"one; two";b\n',
        '"text"\t"label"\nso, it is\ta\n"one; two"\tb\n',
        "\ntext|label\nso, it is|a\none; two|b\n",
        'text,label\n"so, it is",a\none; two,b\n',
    ],
    ids=["semicolon", "tab", "bar", "comma"],
)
def test_the_header_says_what_stands_between_cells(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8-sig")
    found = [dict(record.cells) for record in read_records(path)]
    assert found == [{"text": "so, it is", "label": "a"}, {"text": "one; two", "label": "b"}]


def test_a_cell_may_be_longer_than_any_encoder_reads_but_not_endless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\n{'word ' * 40_000},a\n")
    assert len(read_records(path)[0].cells["text"]) == 200_000
    before = csv.field_size_limit()
    try:
        csv.field_size_limit(100)
        monkeypatch.setattr(records, "LONGEST_CELL", 100)
        with pytest.raises(DataError, match="line 2: a cell has more than 100 characters; shorten"):
            read_records(path)
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("row", "remedy"),
    [("a", "add those that are missing"), ("a,b,c", "put cells that hold ',' in double quotes")],
)
def test_a_row_with_another_number_of_cells(tmp_path: Path, row: str, remedy: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\n{row}\n")
    with pytest.raises(DataError, match=f"line 2: found . cells, .* 2 columns; {remedy}"):
        read_records(path)
