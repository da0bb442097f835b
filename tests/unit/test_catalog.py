"""Public data sets: fetched on request only, checked, and never half kept. The server is on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from quickstudy.data import catalog
from quickstudy.data.catalog import CATALOG, PublicData, PublicFile, download
from quickstudy.data.source import DataError


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.zip").write_bytes(b"content")
    handler = partial(Handler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def known(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    md5 = hashlib.md5(b"content").hexdigest()
    files = {
        "a.zip": PublicFile(
            f"{server}/a.zip", f"md5:{md5}", ("md5:" + hashlib.md5(b"same").hexdigest(),)
        )
    }
    monkeypatch.setitem(CATALOG, "toy", PublicData("toy", "none", "nobody", files))


@pytest.mark.usefixtures("known")
def test_a_file_is_fetched_and_checked_once(tmp_path: Path) -> None:
    folder = download("toy", tmp_path / "here")
    assert (folder / "a.zip").read_bytes() == b"content"
    (tmp_path / "served" / "a.zip").unlink()
    assert download("toy", folder) == folder
    (folder / "a.zip").write_bytes(b"same")  # a repacked copy that the catalog knows
    assert download("toy", folder) == folder


@pytest.mark.usefixtures("known")
def test_a_wrong_file_is_refused_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / "served" / "a.zip").write_bytes(b"altered")
    with pytest.raises(DataError, match="is not the published file"):
        download("toy", tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.usefixtures("known")
def test_without_the_file_or_the_name_one_sentence_says_so(tmp_path: Path) -> None:
    (tmp_path / "served" / "a.zip").unlink()
    with pytest.raises(DataError, match="Could not fetch"):
        download("toy", tmp_path / "here")
    with pytest.raises(DataError, match=r"no data set named 'mnist'; those known are .*omniglot"):
        download("mnist")


def test_the_published_and_the_repacked_archives_are_known() -> None:
    files = CATALOG["omniglot"].files
    assert set(files) == {"images_background.zip", "images_evaluation.zip"}
    assert all(len(file.checksums) == 2 for file in files.values())
    assert catalog.data_folder("omniglot").name == "omniglot"
