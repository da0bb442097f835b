"""How many texts of a test are in the training texts of another corpus, word for word or nearly.

FOLDER holds a folder for each corpus: clinc150, banking77, snips, huffpost, ag_news, fdu_mtl, leopard. Counts only: the
texts are not ours to print.

python benchmarks/shared_texts.py FOLDER [--smoke]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

from quickstudy.build import build_source, located
from quickstudy.data.overlap import overlap
from quickstudy.data.source import DataNote
from record import record

PAIRS = [
    *(("fdu_mtl,test=0", f"leopard,task=sentiment_{kind}") for kind in ("books", "dvd", "kitchen")),
    ("fdu_mtl,test=0", "leopard,task=rating_books"),
    ("fdu_mtl,test=0", "leopard,task=scitail"),
    ("clinc150", "banking77,protocol=all"),
    ("clinc150", "snips,test=1"),
    ("huffpost", "ag_news"),
    ("clinc150", "clinc150,protocol=all"),
]
"""Trained on, tested on."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", DataNote)
    rows: list[dict[str, Any]] = []
    for training, tested in PAIRS[:1] if chosen.smoke else PAIRS:
        one, other = (build_source(located(spec, chosen.folder)) for spec in (training, tested))
        start = time.process_time()
        found = overlap(one, other, split="test")
        assert found is not None
        rows.append(
            {
                "training": training,
                "tested": tested,
                "texts": found.tested,
                "exact": found.exact,
                "near": found.near,
                "shared_origin": found.shared_origin,
                "processor_seconds": round(time.process_time() - start, 1),
            }
        )
    record("shared_texts", {"pairs": rows}, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
