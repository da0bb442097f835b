"""Public data sets: where they lie, their checksums and licences. Nothing is downloaded unless somebody asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quickstudy.cache import cache_folder
from quickstudy.data.source import DataError


@dataclass(frozen=True)
class PublicFile:
    """One file of a data set.

    Args:
        address: where it can be fetched.
        checksum: ``md5:…`` or ``sha256:…`` of the published file.
        repacked: checksums of copies with the same content.
    """

    address: str
    checksum: str
    repacked: tuple[str, ...] = ()

    @property
    def checksums(self) -> tuple[str, ...]:
        """All that are accepted."""
        return self.checksum, *self.repacked


@dataclass(frozen=True)
class PublicData:
    """A data set.

    Args:
        summary: what it is, in a line.
        licence: the terms, and where they stand.
        source: the paper or page to cite.
        files: file name to where it lies.
    """

    summary: str
    licence: str
    source: str
    files: Mapping[str, PublicFile] = field(default_factory=dict)


_OMNIGLOT = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"

CATALOG: dict[str, PublicData] = {
    "omniglot": PublicData(
        summary="32,460 handwritten characters of 50 alphabets, 20 drawings of each",
        licence="MIT (https://github.com/brendenlake/omniglot)",
        source="Lake et al. 2015, Human-level concept learning through probabilistic program induction",
        files={
            "images_background.zip": PublicFile(
                f"{_OMNIGLOT}/images_background.zip",
                "md5:68d2efa1b9178cc56df9314c21c6e718",
                ("md5:227e442458ddf9bc2ac90dbeb8bc1e59",),
            ),
            "images_evaluation.zip": PublicFile(
                f"{_OMNIGLOT}/images_evaluation.zip",
                "md5:6b91aef0f799c5bb55b94e3f2daec811",
                ("md5:6d1adc1dd73add3d4bd0d8a1c8c3d2ec",),
            ),
        },
    ),
}
"""Every data set that ``quickstudy download`` knows."""


def look_up(name: str) -> PublicData:
    """The entry of that name.

    Raises:
        DataError: there is none; lists those that there are.
    """
    if name not in CATALOG:
        raise DataError(
            f"There is no data set named {name!r}; those known are {', '.join(sorted(CATALOG))}."
        )
    return CATALOG[name]


def data_folder(name: str) -> Path:
    """Where :func:`download` puts a data set unless told otherwise."""
    return cache_folder() / "data" / name


def download(name: str, folder: str | Path | None = None) -> Path:
    """Fetch a data set, check it, and say where it lies; files that are there and right are not fetched again.

    Args:
        name: of the catalog.
        folder: where to put it; :func:`data_folder` when absent.

    Raises:
        DataError: no such data set, no network, or a file that is not the published one (it is removed).
    """
    import pooch

    entry = look_up(name)
    target = Path(folder).expanduser() if folder is not None else data_folder(name)
    for file, public in entry.files.items():
        kept = target / file
        if any(_matches(kept, checksum) for checksum in public.checksums):
            continue
        try:
            pooch.retrieve(public.address, known_hash=public.checksum, fname=file, path=target)
        except ValueError as error:
            raise DataError(
                f"What {public.address} sent is not the published file (its checksum differs); nothing was kept. Try "
                f"again, or put the right file at {kept}."
            ) from error
        except OSError as error:
            raise DataError(
                f"Could not fetch {public.address} ({error}); go online, or put the file at {kept} yourself."
            ) from error
    return target


def _matches(file: Path, checksum: str) -> bool:
    """Whether a file exists and has that checksum."""
    import pooch

    algorithm, _, expected = checksum.partition(":")
    return file.is_file() and pooch.file_hash(str(file), alg=algorithm) == expected
