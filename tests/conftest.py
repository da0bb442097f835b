"""What every test shares: one thread, one seed, a cache of its own, and no hurry for property tests."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile(
    "quickstudy", deadline=None, max_examples=15, derandomize=True, database=None
)
settings.load_profile("quickstudy")
torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_stays() -> None:
    """Keep the collector of garbage off what earlier modules left, above all the libraries that they imported.

    Millions of objects that live until the end would be looked through again and again by every test that makes many,
    such as those that compile or draw examples.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed the global generators before each test, so that a test alone is the test in the suite."""
    random.seed(0)
    np.random.seed(0)
    # torch.manual_seed notes where it was called for devices that nobody uses: milliseconds in every test.
    torch.default_generator.manual_seed(0)
    return 0


@pytest.fixture
def generator() -> torch.Generator:
    """A generator of its own for a test that draws."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all tests of a session, whatever the number of workers; never that of the person who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.getbasetemp()
        shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        patch.setenv("QUICKSTUDY_CACHE", str(shared / "cache"))
        yield
