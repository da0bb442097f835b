"""Seconds of a stranger's first commands in a fresh clone: ``make demo`` and ``make test``.

The package index is asked anew (nothing is taken from pip's cache) unless --cache is given.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from record import record


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", action="store_true", help="allow pip's cache")
    chosen = parser.parse_args()
    here = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "quickstudy"
        subprocess.run(["git", "clone", "--quiet", str(here), str(clone)], check=True)
        environment = dict(os.environ, QUICKSTUDY_CACHE=str(Path(folder) / "cache"))
        if not chosen.cache:
            environment["PIP_NO_CACHE_DIR"] = "1"
        seconds = {}
        for name, command in {
            "make demo": ["make", "demo"],
            "make setup, after the demo": ["make", "setup"],
            "make test, set up": ["make", "test"],
        }.items():
            start = time.perf_counter()
            subprocess.run(command, cwd=clone, env=environment, check=True)
            seconds[name] = round(time.perf_counter() - start, 1)
            print(name, seconds[name], flush=True)
    record("first_run", {"pip_cache": chosen.cache, "seconds": seconds})


if __name__ == "__main__":
    main()
