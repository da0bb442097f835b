"""Feedback: a log of what was predicted and of what would have been right, one JSON object a line.

Lines are only ever added. A line that was cut off, because the writer was killed or the disk full, stays where it is;
all whole lines count. The bytes of images lie beside the log, ``feedback.jsonl`` in ``feedback.inputs/``, so that a
correction outlives the file that was asked about.
"""

from __future__ import annotations

import datetime
import errno
import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from quickstudy.data.labelled import Kind
from quickstudy.data.source import DataError, DataNote
from quickstudy.data.splitting import shortened
from quickstudy.durable import ArtifactError, canonical, sha256_of, sync_folder, write_file

__all__ = ["Event", "Feedback", "append", "keep_image", "kept_image", "read_feedback"]


@dataclass(frozen=True)
class Event:
    """A prediction, and what would have been right if somebody said so.

    Args:
        task: what was asked, such as the path of a task file; corrections of one task belong together.
        base: id of the artifact that predicted.
        kind: of the input.
        input: a text, the numbers of an example, or where an image came from.
        predicted: the class, or the number.
        correct: the right one; None while nobody has said.
        classes: of the task; empty where numbers are predicted or nobody knows.
        sha256: of an image's bytes, by which it is kept beside the log.
        time: ISO 8601; that of writing where it is empty.
        line: where it stands in the log, from 1; 0 before it is written.
    """

    task: str
    base: str
    kind: Kind
    input: Any
    predicted: Any
    correct: Any = None
    classes: tuple[str, ...] = ()
    sha256: str = ""
    time: str = ""
    line: int = 0

    @property
    def content(self) -> tuple[str, str]:
        """The same for two events of one task about one input."""
        return self.task, self.sha256 or canonical(self.input).decode()

    @property
    def known(self) -> bool:
        """Whether the correction is one that the task could have predicted."""
        if self.classes:
            return self.correct in self.classes
        number = isinstance(self.correct, int | float) and not isinstance(self.correct, bool)
        return math.isfinite(self.correct) if number else isinstance(self.correct, str)


class Feedback(NamedTuple):
    """What a log says."""

    corrections: list[Event]
    """The newest of each input of a task, of known classes, in the order of the log."""
    predictions: int
    """Whole events in the log, corrected or not."""
    skipped: int
    """Lines that are no whole event."""
    contradictions: int
    """Inputs with two different corrections."""
    unknown: int
    """Corrections to something that the task does not know, which are left out."""
    sha256: str
    """Of the log."""


def inputs_folder(log: str | Path) -> Path:
    """Where the images of a log lie.

    >>> inputs_folder("feedback.jsonl").as_posix()
    'feedback.inputs'
    """
    return Path(log).with_suffix(".inputs")


def keep_image(log: str | Path, file: str | Path) -> str:
    """Keep an image's bytes beside the log, and return their checksum.

    Raises:
        ArtifactError: they cannot be read or written.
    """
    file = Path(file)
    try:
        content = file.read_bytes()
        mark = sha256_of(content)
        place = inputs_folder(log) / mark
        if not place.exists():
            write_file(place, content)
    except OSError as error:
        raise ArtifactError(
            f"The image {file} cannot be kept in {inputs_folder(log)}: {error.strerror}; nothing was logged. Free some "
            "space or choose another log."
        ) from error
    return mark


def kept_image(log: str | Path, mark: str) -> bytes | None:
    """The bytes of an image that was kept; None where they are gone or were changed."""
    try:
        content = (inputs_folder(log) / mark).read_bytes()
    except OSError:
        return None
    return content if sha256_of(content) == mark else None


def _line(event: Event) -> bytes:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    facts = asdict(replace(event, time=event.time or now))
    del facts["line"]
    if not event.sha256:
        del facts["sha256"]
    return json.dumps(facts, allow_nan=False).encode() + b"\n"


def append(log: str | Path, events: Sequence[Event]) -> None:
    """Add events to a log: one write behind what is there, which is on the disk when this returns.

    Several processes may write to one log. A line that somebody left unfinished is ended first.

    Raises:
        ArtifactError: the log cannot be written, or the file is no log; the lines that were whole before still are.
    """
    log = Path(log)
    lines = b"".join(map(_line, events))
    check_log(log)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            if size:
                os.lseek(handle, size - 1, os.SEEK_SET)
                lines = lines if os.read(handle, 1) == b"\n" else b"\n" + lines
            if os.write(handle, lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise ArtifactError(
            f"The log {log} cannot be written: {error.strerror}; the lines that were whole before still are. Free some "
            "space or choose another log."
        ) from error
    sync_folder(log.parent)


def _event(line: bytes, number: int) -> Event | None:
    """The event of a line; None if it is not whole, or something else."""
    try:
        facts = json.loads(line)
        event = Event(**{**facts, "classes": tuple(facts.get("classes", ())), "line": number})
    except (ValueError, TypeError, AttributeError):
        return None
    named = isinstance(event.task, str) and isinstance(event.base, str)
    return event if named and event.kind in ("image", "text", "vector") else None


def check_log(log: Path) -> None:
    """Refuse to add to a file that holds lines and no event, but for one that was left unfinished.

    Raises:
        ArtifactError: it is such a file.
    """
    if not log.is_file():
        return
    others = False
    with log.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if _event(line, number) is not None:
                return
            unfinished = line.startswith(b"{") and not line.endswith(b"\n")
            others = others or (bool(line.strip()) and not unfinished)
    if others:
        raise ArtifactError(
            f"{log} holds something else than feedback, and nothing is written to it; choose another file for the log."
        )


def read_feedback(log: str | Path) -> Feedback:
    """Read a log; whole lines count, and of two corrections of one input the newest.

    What is left out or contradicts itself is said as a :class:`DataNote`.

    Raises:
        DataError: there is no log, or no usable correction in it.
    """
    log = Path(log)
    try:
        content = log.read_bytes()
    except OSError as error:
        raise DataError(
            f"The log {log} cannot be read: {error.strerror}; make one with: quickstudy correct TASK INPUT LABEL "
            f"--log {log}."
        ) from error
    rows = [
        (number, _event(line, number))
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip()
    ]
    events = [event for _, event in rows if event is not None]
    torn = [number for number, event in rows if event is None]
    if torn:
        _note(
            f"{log} has {len(torn)} of {len(rows)} lines that are cut off or no events (the first is line {torn[0]}); "
            f"the other {len(events)} count."
        )
    given = [event for event in events if event.correct is not None]
    strange = [event for event in given if not event.known]
    if strange:
        _note(f"{log} has {len(strange)} corrections that are left out: {_why(strange)}.")
    newest: dict[tuple[str, str], Event] = {}
    clashes: dict[tuple[str, str], tuple[Event, Event]] = {}
    for event in given:
        if not event.known:
            continue
        earlier = newest.pop(event.content, None)
        if earlier is not None and earlier.correct != event.correct:
            clashes[event.content] = (earlier, event)
        newest[event.content] = event
    if clashes:
        first, last = next(iter(clashes.values()))
        _note(
            f"{log} contradicts itself on {len(clashes)} inputs, of which the newest correction counts; the first is "
            f"{shortened(repr(first.input))}: {first.correct!r} in line {first.line}, {last.correct!r} in line "
            f"{last.line}."
        )
    if not newest:
        found = f"{len(events)} predictions and no correction" if events else "no event"
        if strange:
            found += f" that counts ({_why(strange)})"
        raise DataError(
            f"The log {log} holds {found}; say what is right with: quickstudy correct TASK INPUT LABEL --log {log}."
        )
    return Feedback(
        corrections=list(newest.values()),
        predictions=len(events),
        skipped=len(torn),
        contradictions=len(clashes),
        unknown=len(strange),
        sha256=sha256_of(content),
    )


def _why(strange: Sequence[Event]) -> str:
    """What is wrong with corrections that name no class of their task, by name."""
    first, others = strange[0], sorted({str(event.correct) for event in strange})
    right = ", ".join(first.classes) if first.classes else "a class, or a finite number"
    return (
        f"{', '.join(map(repr, others[:5]))}{', …' if len(others) > 5 else ''} (line {first.line}: the task "
        f"{first.task} knows {right})"
    )


def _note(text: str) -> None:
    warnings.warn(text, DataNote, stacklevel=3)
