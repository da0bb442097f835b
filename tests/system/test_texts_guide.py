"""What docs/how-to/learn-from-texts.md tells people to type, typed, on tiny corpora."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from pathlib import Path

import pytest

from quickstudy.artifact import load_artifact
from quickstudy.cli import main
from quickstudy.data import SOURCES
from quickstudy.data.catalog_of_texts import TEXTS
from tiny_corpora import banking77, clinc150, fdu_mtl, leopard, lines, nlupp

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/how-to/learn-from-texts.md").read_text("utf-8")
# Byte by byte, with which no pretrained model is loaded.
TINY = ["encoder=words", "encoder.width=8", "episode.way=2", "episode.queries=1", "episode.tasks=2"]
TINY += ["validation.way=2", "validation.queries=1", "validation.episodes=2"]
SHORT = {
    "train": ["--steps", "1", *(word for each in TINY for word in ("--set", each))],
    "evaluate": ["--episodes", "3"],
    "derive": [],
    "compare": ["--episodes", "2", "--queries", "1", "--way", "2", "--shot", "1"],
}

NAMES = ",names=true"
"""Which bytes cannot be."""

LARGE = ["--steps", "1"]
LARGE += [word for each in TINY if "encoder" not in each for word in ("--set", each)]


def four_shots(folder: Path) -> None:
    """The task pairs with support sets of four, which the guide asks for."""
    leopard(folder)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for sample in range(3):
        rows += [
            {"split": f"train_4shot_{sample}", "label": label, "text": f"{label} four {sample} {i}"}
            for label in "abc"
            for i in range(4)
        ]
    lines(folder / "pairs.jsonl", rows)


def plain_text() -> str:
    """Sentences without labels: each of thirty animals in 25 of them, at places that come once."""
    animals = [f"{a}{b}" for a in ("fox", "wolf", "bear", "hare", "mole") for b in "abcdef"]
    return "\n".join(
        f"today the {animal} was seen at {chr(97 + i)}{animal}brook"
        for animal in animals
        for i in range(25)
    )


def test_the_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clinc150(Path("data/clinc150"), intents=6, train=8)
    banking77(Path("data/banking77"))
    fdu_mtl(Path("data/fdu_mtl"))
    four_shots(Path("data/leopard"))
    nlupp(Path("data/nlupp"))
    Path("several.csv").write_text(
        "text,label\nmy card is lost,card; lost\na new card,card;new\nhello,\n", "utf-8"
    )
    rows = "where is my parcel,delivery\nit never arrived,delivery\nI was billed twice,billing\n"
    Path("tickets.csv").write_text(f"text,label\n{rows}", "utf-8")
    Path("notes.txt").write_text(plain_text(), encoding="utf-8")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", TEXT, re.S)
    said: dict[str, str] = {}
    for kind, block in blocks:
        if kind == "python":
            exec(block.replace("episodes=20", "episodes=3, baselines=False"), {})
            out = capsys.readouterr().out
            assert out == "delivery\n" if "from_pretrained" in block else 0 <= float(out) <= 1
            continue
        for line in block.strip().splitlines():
            # What only MiniLM can do.
            pretrained = "lexical" in line or "lora" in line
            plain = line if pretrained else line.replace("--encoder text ", "").replace(NAMES, "")
            program, *words = shlex.split(plain)
            assert program == "quickstudy"
            short = LARGE if pretrained else SHORT.get(words[0], [])
            assert main([*words, *short]) == 0, line
            said[line] = "".join(capsys.readouterr())
    assert load_artifact("runs/intents").config.data == "clinc150:data/clinc150"
    (unknown,) = (each for line, each in said.items() if "--unknown" in line)
    assert "inputs of no class" in unknown
    (fixed,) = (each for line, each in said.items() if "leopard" in line)
    assert "3-way 4-shot, 3 tasks" in fixed
    assert "Licence of leopard: none stated" in fixed
    (hidden,) = (each for line, each in said.items() if "train" in line and "hidden_words" in line)
    assert "Error" not in hidden
    assert "(hidden_words:notes.txt)" in load_artifact("runs/words").config.data
    (dropped,) = (each for line, each in said.items() if "--drop-duplicates" in line)
    assert "They are left out." in dropped
    (compared,) = (each for line, each in said.items() if "compare" in line)
    assert "2-way 1-shot, 2 tasks of the test split" in compared
    assert Path("compared.svg").read_text("utf-8").startswith("<?xml")
    (folds,) = (each for line, each in said.items() if "protocol=folds" in line)
    assert "8-way 1-fold" in folds
    (ticket,) = (each for line, each in said.items() if "predict tickets" in line)
    assert "delivery" in ticket
    (given,) = (each for line, each in said.items() if "predict" in line and "ticket" not in line)
    assert "I lost my card" in given
    (whole,) = (each for line, each in said.items() if "banking77,protocol=all" in line)
    assert "77-way 5-shot" in whole


def test_every_corpus_is_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)(?:,task=NAME)?` \|.*\| (yes|no)", TEXT, re.M)
    assert dict(rows) == {name: "yes" if TEXTS[name].fetched else "no" for name in TEXTS}
    assert set(TEXTS) < set(SOURCES)


def test_the_guide_claims_what_was_counted() -> None:
    path = ROOT / "benchmarks/results/shared_texts.json"
    pairs = json.loads(path.read_text("utf-8"))["pairs"]
    (books,) = (each for each in pairs if each["tested"] == "leopard,task=sentiment_books")
    plain = " ".join(TEXT.split())
    claim = f"Of the {books['texts']:,} texts of LEOPARD's task on books, {books['exact']} are in"
    assert claim in plain
    assert f"word for word and {books['near']} nearly so" in plain


def test_download_says_licence_and_paper(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["download", "snips", "--to", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "Licence: CC0 1.0" in said.err
    assert "To cite: Coucke et al. 2018" in said.err
    assert "Error: snips cannot be fetched by quickstudy" in said.err


def test_the_guide_claims_what_tuning_brought() -> None:
    path = ROOT / "benchmarks/results/text_tuning.json"
    corpora = json.loads(path.read_text("utf-8"))["corpora"]

    def percents(corpus: str, shot: str) -> list[str]:
        """Of all models, before the encoder was trained on a task and after."""
        runs = [
            found[shot]["accuracy"] for name, found in corpora.items() if name.startswith(corpus)
        ]
        means = ([run[way]["mean"] for run in runs] for way in ("trained", "tuned"))
        return [f"{100 * sum(each) / len(each):.1f}" for each in means]

    five, ten = (percents("banking77", shot) for shot in ("5", "10"))
    claim = f"this brought {five[0]} to {five[1]} percent with five examples of each and {ten[0]} to {ten[1]} with ten"
    assert claim in " ".join(TEXT.split())
    five, ten = (percents("clinc150", shot) for shot in ("5", "10"))
    claim = f"in the mean of three models that had never met those, {five[0]} to {five[1]} and {ten[0]} to {ten[1]}"
    assert claim in " ".join(TEXT.split())
