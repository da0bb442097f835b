"""How the command line speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from quickstudy.durable import finite

WIDEST = 10_000
"""Columns of a table that is not shown in a terminal."""


def say(text: str) -> None:
    """A remark for the person at the keyboard, on standard error."""
    print(text, file=sys.stderr, flush=True)


class _Remarks(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def remarks() -> Iterator[None]:
    """Say what the library logs of its choices, such as a strategy or how long compiling takes."""
    logger, handler = logging.getLogger("quickstudy"), _Remarks()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def print_result(text: str) -> None:
    """A result, on standard output."""
    print(text, flush=True)


def print_json(value: Any) -> None:
    """One JSON object on standard output; null stands for a number that is not finite."""
    print(json.dumps(finite(value), ensure_ascii=False, indent=2), flush=True)


def print_table(headings: list[str], rows: list[list[str]], *, title: str | None = None) -> None:
    """A table on standard output; the columns after the first hold numbers when they look so."""
    table = Table(box=None, pad_edge=False)
    for column, heading in enumerate(headings):
        numbers = column > 0 and all(row[column][:1].isdigit() or not row[column] for row in rows)
        table.add_column(heading, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if title is not None:
        console.print(title, style="bold", soft_wrap=True)
    if console.is_terminal:
        console.print(table)
        return
    # Never folded in a file or a pipe, where each row must stay a line.
    console.width = WIDEST
    with console.capture() as captured:
        console.print(table)
    print_result("\n".join(line.rstrip() for line in captured.get().rstrip().split("\n")))


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error while the block runs, silent when that is not a terminal.

    Yields:
        A function of (done, total).
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def command(*words: object) -> str:
    """A command of quickstudy that can be pasted into a shell.

    >>> command("predict", "my task", "a.png")
    "quickstudy predict 'my task' a.png"
    """
    return shlex.join(["quickstudy", *map(str, words)])


def percent(share: float, half_width: float | None = None) -> str:
    """A share with its 95 % interval.

    >>> percent(0.9412, 0.004), percent(0.05)
    ('94.1 % ± 0.4', '5.0 %')
    """
    return f"{100 * share:.1f} %" + ("" if half_width is None else f" ± {100 * half_width:.1f}")
