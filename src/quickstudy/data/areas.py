"""Short texts that come with the package: classes of many areas of life, written for meta-training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quickstudy.data.source import DataError
from quickstudy.data.text_tasks import LabelledText, Texts, divided

FOLDER = Path(__file__).parent / "short_texts"
"""A file for each area: its name behind #, a class behind ##, and a text on each line below."""


class ShortTexts(Texts):
    """Short texts of many areas of life, each with fourteen classes that are easily confused, sixteen texts of each.

    Most are what people write to a service: a parcel carrier, a dentist, the office for passports. Others are told
    apart by what they are about or what they do: sports, novels, moods, arguments. Groups are areas, which describe
    tasks within one, and whole areas are held out. Nothing is downloaded: a language model wrote the texts for
    quickstudy, with no other data set before its eyes.

    Args:
        path: nothing; the texts come with the package.
        validation: share of the areas held out for validation.
        test: share held out for testing.
        seed: another seed, another split.

    Raises:
        DataError: a path was given.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        validation: float = 0.1,
        test: float = 0.2,
        seed: int = 0,
    ) -> None:
        if path:
            raise DataError(
                f"short_texts come with the package and are not read from {path!r}; use the name short_texts alone, or "
                f"text:{path} for texts of your own."
            )
        examples = list(_read())
        super().__init__(
            "short_texts",
            [each.text for each in examples],
            divided("short_texts", examples, validation=validation, test=test, seed=seed),
            facts={
                "name": "short_texts",
                "licence": "that of quickstudy",
                "source": "written for quickstudy by a language model",
            },
        )


def _read() -> Iterator[LabelledText]:
    for file in sorted(FOLDER.glob("*.txt")):
        area = label = ""
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
            if line.startswith("## "):
                label = line[3:]
            elif line.startswith("# "):
                area = line[2:]
            elif line:
                yield LabelledText(line, label, f"{file.name}, line {number}", area)
