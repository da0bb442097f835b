"""What is known of a public data set: an entry of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublicFile:
    """One file of a data set.

    Args:
        address: where it can be fetched; empty where it cannot, in the form that is read.
        checksum: ``md5:…`` or ``sha256:…`` of the published file, or of the copy that is known.
        repacked: checksums of copies with the same content, which may have ``.gz`` behind their name.
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
        page: where people get it.
        layout: what the files hold, in words.
        restricted: whether the licence is to be read before each use, since it forbids some or nobody stated any.
    """

    summary: str
    licence: str
    source: str
    files: Mapping[str, PublicFile] = field(default_factory=dict)
    page: str = ""
    layout: str = ""
    restricted: bool = False

    @property
    def fetched(self) -> bool:
        """Whether ``quickstudy download`` can fetch it."""
        return all(file.address for file in self.files.values())
