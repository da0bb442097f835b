"""Arrays kept on disk: computed once, never half written, never trusted when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quickstudy import cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    return tmp_path


def make() -> dict[str, np.ndarray]:
    return {"a": np.arange(6).reshape(2, 3), "b": np.ones(2, dtype=np.uint8)}


def test_arrays_are_made_once(folder: Path) -> None:
    first = cache.remember("kind", "key", make)
    second = cache.remember("kind", "key", lambda: pytest.fail("made again"))
    assert sorted(first) == sorted(second) == ["a", "b"]
    np.testing.assert_array_equal(second["a"], make()["a"])
    assert [path.name for path in (folder / "kind").iterdir()] == ["key"]


def test_what_is_written_to_an_array_never_reaches_the_disk(folder: Path) -> None:
    cache.remember("kind", "key", make)["a"][:] = -1
    np.testing.assert_array_equal(cache.remember("kind", "key", make)["a"], make()["a"])


def test_a_damaged_file_is_made_again(folder: Path) -> None:
    cache.remember("kind", "key", make)
    (folder / "kind" / "key" / "a.npy").write_bytes(b"\x93NUMPY\x01")
    np.testing.assert_array_equal(cache.remember("kind", "key", make)["a"], make()["a"])


def test_a_full_disk_costs_speed_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    np.testing.assert_array_equal(cache.remember("kind", "key", make)["a"], make()["a"])
    assert list((folder / "kind").iterdir()) == []


def test_a_failure_while_making_leaves_nothing(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        cache.remember("kind", "key", lambda: {"a": np.array(1 // 0)})
    assert not (folder / "kind").exists()
