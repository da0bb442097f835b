"""A log of feedback loses no whole line, whatever happens to the writer, the disk or the file."""

from __future__ import annotations

import json
import os
import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quickstudy import feedback
from quickstudy.data.source import DataError, DataNote
from quickstudy.durable import ArtifactError
from quickstudy.feedback import Event, append, keep_image, kept_image, read_feedback

CLASSES = ("sun", "moon")


def said(text: str, correct: Any = "sun", **more: Any) -> Event:
    event = Event("sky.task", "abc", "text", text, "moon", correct, CLASSES)
    return Event(**{**vars(event), **more})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "feedback.jsonl"


@contextmanager
def files_of_at_most(room: int) -> Iterator[None]:
    """A disk that is full: no file of this process may grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def inputs(log: Path) -> list[Any]:
    """What the corrections are of; notes are of no interest here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        return [event.input for event in read_feedback(log).corrections]


def test_what_was_written_is_read(log: Path) -> None:
    append(log, [said("warm"), said("cold", None)])
    append(log, [said("Grüße\n„ბ“", "moon")])
    found = read_feedback(log)
    assert [(event.input, event.correct, event.line) for event in found.corrections] == [
        ("warm", "sun", 1),
        ("Grüße\n„ბ“", "moon", 3),
    ]
    assert (found.predictions, found.skipped, found.contradictions, found.unknown) == (3, 0, 0, 0)
    assert all(event.time and event.classes == CLASSES for event in found.corrections)
    row = json.loads(log.read_text().splitlines()[0])
    assert {"task", "base", "kind", "input", "predicted", "correct", "classes", "time"} == set(row)


def test_numbers_are_read_back(log: Path) -> None:
    event = Event("wave.task", "abc", "vector", [0.5, -1.0], 0.25, 1.5)
    append(log, [event])
    (found,) = read_feedback(log).corrections
    assert (found.input, found.predicted, found.correct) == ([0.5, -1.0], 0.25, 1.5)


def test_wherever_a_log_is_cut_the_whole_lines_count(log: Path) -> None:
    append(log, [said("one"), said("two"), said("three")])
    content = log.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(ends[0], len(content)):
        log.write_bytes(content[:cut])
        # A last line that only lacks its end is whole.
        whole = sum(end - 1 <= cut for end in ends)
        assert inputs(log) == ["one", "two", "three"][:whole]
        append(log, [said("later")])
        assert inputs(log) == [*["one", "two", "three"][:whole], "later"]
        assert log.read_bytes().startswith(
            content[:cut]
        )  # what was cut off stays for who can read it


def test_lines_that_are_no_events_are_counted(log: Path) -> None:
    append(log, [said("one")])
    with log.open("ab") as file:
        file.write(b'{"task": "x"}\n[1]\n\n\xff\xfe\n{"task"')
    with pytest.warns(DataNote, match=r"has 4 of 5 lines .* \(the first is line 2\); the other 1"):
        assert read_feedback(log).skipped == 4


def test_the_newest_of_two_corrections_counts(log: Path) -> None:
    append(log, [said("dusk", "sun"), said("noon"), said("dusk", "moon"), said("noon")])
    with pytest.warns(DataNote, match=r"1 inputs.*'dusk': 'sun' in line 1, 'moon' in line 3"):
        found = read_feedback(log)
    assert {event.input: event.correct for event in found.corrections} == {
        "noon": "sun",
        "dusk": "moon",
    }
    assert found.contradictions == 1


def test_two_tasks_may_call_one_input_differently(log: Path) -> None:
    append(log, [said("dusk", "sun"), said("dusk", "moon", task="other.task")])
    assert read_feedback(log).contradictions == 0


def test_an_unknown_class_is_named_and_left_out(log: Path) -> None:
    append(log, [said("noon"), said("x", "star"), said("y", "sum"), said("z", 3.0)])
    with pytest.warns(
        DataNote, match=r"'3.0', 'star', 'sum' \(line 2: the task sky.task knows sun, moon\)"
    ):
        found = read_feedback(log)
    assert (len(found.corrections), found.unknown) == (1, 3)


def test_a_number_that_is_not_finite_is_no_correction(log: Path) -> None:
    log.write_text(
        json.dumps(vars(Event("w", "a", "vector", [1.0], 1.0, 2.0))).replace("2.0", "NaN") + "\n"
    )
    with (
        pytest.warns(DataNote, match="a finite number"),
        pytest.raises(DataError, match="no correction that counts"),
    ):
        read_feedback(log)


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "holds no event"), ("{", "holds no event"), (None, "No such file")],
)
@pytest.mark.filterwarnings("ignore::quickstudy.data.source.DataNote")
def test_a_log_without_corrections_is_refused(log: Path, content: str | None, words: str) -> None:
    if content is not None:
        log.write_text(content)
    with pytest.raises(DataError, match=rf"{words}.*quickstudy correct"):
        read_feedback(log)


def test_predictions_alone_teach_nothing(log: Path) -> None:
    append(log, [said("one", None), said("two", None)])
    with pytest.raises(DataError, match="2 predictions and no correction"):
        read_feedback(log)


def test_a_writer_killed_in_the_middle_loses_its_own_line_only(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, [said("one")])
    write = os.write

    def half(handle: int, content: bytes) -> int:
        write(handle, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    child = os.fork()
    if not child:
        try:
            monkeypatch.setattr(feedback.os, "write", half)
            append(log, [said("two")])
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    append(log, [said("three")])
    with pytest.warns(DataNote, match="1 of 3 lines"):
        assert [event.input for event in read_feedback(log).corrections] == ["one", "three"]


def test_a_full_disk_is_said_and_leaves_the_whole_lines(log: Path) -> None:
    append(log, [said("one")])
    with (
        files_of_at_most(log.stat().st_size + 20),
        pytest.raises(ArtifactError, match=r"cannot be written: .* still are\. Free some space"),
    ):
        append(log, [said("two")])
    append(log, [said("three")])
    assert inputs(log) == ["one", "three"]


def test_a_log_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written: Is a directory"):
        append(tmp_path, [said("one")])


def test_several_writers_share_a_log(log: Path) -> None:
    children = []
    for writer in range(3):
        child = os.fork()
        if not child:
            try:
                for number in range(20):
                    append(log, [said(f"{writer} {number}")])
            finally:
                os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert len(read_feedback(log).corrections) == 60


def test_images_are_kept_by_their_bytes(log: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"dots")
    mark = keep_image(log, picture)
    assert keep_image(log, picture) == mark
    picture.unlink()
    assert kept_image(log, mark) == b"dots"
    (tmp_path / "feedback.inputs" / mark).write_bytes(b"dot")
    assert kept_image(log, mark) is None
    assert kept_image(log, "0" * 64) is None
    with pytest.raises(ArtifactError, match=r"a\.png cannot be kept.*nothing was logged"):
        keep_image(log, picture)


def test_a_full_disk_leaves_no_half_image(log: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(bytes(500))
    with files_of_at_most(100), pytest.raises(ArtifactError, match="cannot be kept"):
        keep_image(log, picture)
    assert list((tmp_path / "feedback.inputs").iterdir()) == []
