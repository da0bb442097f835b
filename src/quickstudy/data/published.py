"""The files of a published corpus: found in a folder, or else asked for with the command to run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from quickstudy.data.catalog import CATALOG, data_folder
from quickstudy.data.records import ZIPPED, Record, cell, check_columns, read_records, read_text
from quickstudy.data.source import DataError, DataNote
from quickstudy.data.text import split_of


class Row(NamedTuple):
    """A record of a file."""

    file: str
    record: Record

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.file}, line {self.record.line}"

    def cell(self, column: str) -> str:
        """A cell; a :class:`DataError` where nothing stands in it."""
        return cell(self.file, self.record, column)

    def split(self) -> str:
        """The split that the record names; a :class:`DataError` where it is none."""
        return split_of(self.file, self.record, "split")


class Published:
    """The folder of a corpus that the catalogue knows.

    Args:
        name: of the catalogue.
        path: the folder; where :func:`quickstudy.data.catalog.data_folder` says, when absent.
    """

    def __init__(self, name: str, path: str | None) -> None:
        self.name, self.entry = name, CATALOG[name]
        self.folder = Path(path).expanduser() if path else data_folder(name)
        if self.entry.restricted:
            self.note_licence()

    def note_licence(self) -> None:
        """Say what the licence is."""
        # From one place, so that it is said once however often the corpus is read.
        warnings.warn(f"Licence of {self.name}: {self.entry.licence}.", DataNote, stacklevel=1)

    def find(self, file: str) -> Path | None:
        """Where a file is, perhaps packed."""
        for each in (self.folder / file, self.folder / f"{file}{ZIPPED}"):
            if each.is_file():
                return each
        return None

    def file(self, name: str) -> Path:
        """Where a file is.

        Raises:
            DataError: it is missing; says how to get it.
        """
        found = self.find(name)
        if found is None:
            raise self.missing(name)
        return found

    def missing(self, file: str) -> DataError:
        """What to do about a file that is not there."""
        if self.entry.fetched and file in self.entry.files:
            how = f"run: quickstudy download {self.name}"
        else:
            how = f"get it from {self.entry.page}, in this form: {self.entry.layout}"
        return DataError(
            f"{self.name} needs {self.folder / file}, which is not there; {how}; or name the folder that holds it: "
            f"{self.name}:FOLDER."
        )

    def table(self, name: str, columns: list[str]) -> list[Row]:
        """The records of a table; a record without a text is left out with a note.

        Raises:
            DataError: the file is missing or malformed, or a column is.
        """
        file = self.file(name)
        records = read_records(file)
        check_columns(file, records, columns)
        kept = [record for record in records if record.cells.get("text", "whatever").strip()]
        if len(kept) < len(records):
            warnings.warn(
                f"Left out {len(records) - len(kept)} of {len(records)} records of {file}, which hold no text.",
                DataNote,
                stacklevel=2,
            )
        return [Row(str(file), record) for record in kept]

    def tree(self, name: str) -> Any:
        """What a JSON file holds.

        Raises:
            DataError: the file is missing or is not JSON.
        """
        file = self.file(name)
        try:
            return json.loads(read_text(file))
        except (ValueError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{file} is not JSON ({error}); expected {self.entry.layout}."
            ) from error

    def unlike(self, file: str, found: object) -> DataError:
        """A file that holds something else than was published."""
        return DataError(
            f"{self.folder / file} is not as published: found {found!r}; expected {self.entry.layout}."
        )

    def facts(self, **choices: Any) -> dict[str, Any]:
        """For the model card: name, licence, what to cite, and what was chosen."""
        return {
            "name": self.name,
            **choices,
            "licence": self.entry.licence,
            "source": self.entry.source,
        }
