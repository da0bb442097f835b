"""``list``, ``doctor`` and ``download``: what there is, and what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.console import print_json, print_result, print_table, say
from quickstudy.cli.errors import FAILURE

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def list_parts(as_json: AsJson = False) -> None:
    """List learners, encoders, data sources and the models that ship.

    Their names are what train takes: quickstudy train --learner NAME --encoder NAME --data NAME. The name of a model
    stands where its folder would: quickstudy adapt text tickets.csv --out tickets.task.
    """
    from quickstudy.build import names_and_summaries
    from quickstudy.pretrained import SUMMARIES

    parts = {**names_and_summaries(), "models": SUMMARIES}
    if as_json:
        print_json(parts)
        return
    for number, (kind, entries) in enumerate(parts.items()):
        if number:
            print_result("")
        print_table([kind.capitalize(), ""], [[name, summary] for name, summary in entries.items()])


def doctor(as_json: AsJson = False) -> None:
    """Check this machine and its packages.

    Shows versions, device and cores, and names the packages that are known to break things.
    Exit code 0 when all is well, 1 when something must be mended. Downloads and changes nothing.
    """
    from dataclasses import asdict

    from quickstudy.doctor import PACKAGES, examine

    found = examine()
    if as_json:
        print_json({"well": not found.problems, **asdict(found)})
    else:
        print_table(["Machine", ""], [[name, fact] for name, fact in found.facts.items()])
        print_result("")
        rows = []
        for package, version in found.packages.items():
            extra = PACKAGES.get(package)
            absent = (
                f"not installed (pip install 'quickstudy[{extra}]')" if extra else "not installed"
            )
            if package == "torchvision" and version is None:
                absent = "not installed (and not needed)"
            rows.append([package, version or absent])
        print_table(["Packages", ""], rows)
        print_result("")
        if not found.problems:
            print_result("All is well.")
    for problem in found.problems:
        say(f"Error: {problem}")
    if found.problems:
        raise typer.Exit(FAILURE)


def download(
    name: Annotated[
        str, typer.Argument(help="The data set, such as omniglot.", show_default=False)
    ],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The folder to keep it in; default: your cache folder."),
    ] = None,
) -> None:
    """Download a data set by name.

    It is checked against its known checksum, and the place where it lies is printed. Nothing else
    in quickstudy ever downloads anything.
    """
    from quickstudy.data.catalog import download as fetch
    from quickstudy.data.catalog import look_up

    entry = look_up(name)
    say(f"{entry.summary.capitalize()}. Licence: {entry.licence}. To cite: {entry.source}.")
    print_result(str(fetch(name) if to is None else fetch(name, to)))
