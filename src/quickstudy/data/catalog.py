"""Public data sets: where they lie, their checksums and licences. Nothing is downloaded unless somebody asks."""

from __future__ import annotations

import os
from pathlib import Path

from quickstudy.cache import cache_folder
from quickstudy.data.catalog_of_texts import TEXTS
from quickstudy.data.public import PublicData, PublicFile
from quickstudy.data.source import DataError

__all__ = ["CATALOG", "PublicData", "PublicFile", "data_folder", "download", "look_up"]

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
    **TEXTS,
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
    """Where a data set is looked for unless a folder is named.

    That is its folder within the one that the environment variable ``QUICKSTUDY_DATA`` names, if it is there, or else
    where :func:`download` puts it.
    """
    chosen = os.environ.get("QUICKSTUDY_DATA")
    own = Path(chosen).expanduser() / name if chosen else None
    return own if own is not None and own.is_dir() else cache_folder() / "data" / name


def download(name: str, folder: str | Path | None = None) -> Path:
    """Fetch a data set, check it, and say where it lies; files that are there and right are not fetched again.

    Args:
        name: of the catalog.
        folder: where to put it; :func:`data_folder` when absent.

    Raises:
        DataError: no such data set, no network, a file that is not the published one (it is removed), or one without
            an address.
    """
    import pooch

    entry = look_up(name)
    target = Path(folder).expanduser() if folder is not None else data_folder(name)
    for file, public in entry.files.items():
        kept = target / file
        zipped = kept.with_name(f"{file}.gz")
        if any(_matches(one, known) for known in public.checksums for one in (kept, zipped)):
            continue
        if not public.address:
            raise DataError(
                f"{name} cannot be fetched by quickstudy, and {kept} is not the copy that it knows. Get it from "
                f"{entry.page}, bring it into this form: {entry.layout}; and name its folder: {name}:FOLDER."
            )
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
