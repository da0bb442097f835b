"""What the docs claim of names, of shaping and of what it costs is in the committed benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def figures(name: str) -> dict[str, Any]:
    file = ROOT / "benchmarks/results" / f"{name}.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def text(name: str) -> str:
    return " ".join((ROOT / "docs/how-to" / f"{name}.md").read_text(encoding="utf-8").split())


def percent(score: dict[str, float], sign: str = "") -> str:
    return f"{100 * score['mean']:{sign}.1f} ± {100 * score['ci95']:.1f}"


def test_intents_by_their_names() -> None:
    found, said = figures("intent_names")["all_seeds"], text("name-and-describe")
    none, one = (found[f"{shot}-shot"]["accuracy"] for shot in (0, 1))
    assert f"| this model: names and examples | {percent(none['meta_transformer'])} |" in said
    for name in ("names", "prototypes", "names_and_prototypes"):
        assert f"| {percent(one[name])} |" in said
    gains = [percent(found[f"{shot}-shot"]["above"]["names"], "+") for shot in (0, 1)]
    assert f"{gains[0]} points over the names with no example, and {gains[1]} with one" in said
    beside = [found[f"half by name, {which}"] for which in ("new", "all")]
    for who in ("meta_transformer", "without_likeness", "names"):
        cells = " | ".join(percent(scores["accuracy"][who]) for scores in beside)
        assert f"| {cells} |" in said


def test_letters_by_their_names() -> None:
    runs, said = figures("zero_shot_glyphs")["runs"], text("name-and-describe")
    assert len(runs) == 3

    def over_models(kind: str, split: str, name: str) -> dict[str, float]:
        each = [run["scores"][split][kind][name] for run in runs]
        return {key: sum(score[key] for score in each) / len(each) for key in ("mean", "ci95")}

    for row, name in {
        "their names": "names alone",
        "names, and others in five tasks before": "names, after five tasks",
        "names, and others in the same task": "names, among known letters",
        "one drawing of each": "one example alone",
        "one drawing of each, and names": "one example and names",
    }.items():
        cells = [over_models("accuracy", split, name) for split in ("validation", "test")]
        assert f"| {row} | {' | '.join(map(percent, cells))} |" in said
    gain = over_models("above names alone", "test", "names, after five tasks")
    assert f"{percent(gain, '+')} points" in said
    alone = over_models("accuracy", "test", "names alone")
    assert alone["mean"] - alone["ci95"] > 1 / 20
    for run in runs:
        after = run["scores"]["test"]["accuracy"]["names, after five tasks"]
        assert after["mean"] - after["ci95"] > 3 / 20


def test_letters_of_many_scripts_in_few_faces() -> None:
    found, said = figures("zero_shot_glyphs"), text("bring-your-own-data")
    fourteen, many = (
        [run["scores"]["test"]["accuracy"]["one example alone"]["mean"] for run in runs]
        for runs in (found["runs"], found["of_fonts"]["runs"])
    )
    plain = " ".join(said.split())
    assert f"from one drawing at {100 * sum(many) / len(many):.1f} %" in plain
    assert f"up to sixteen faces of each, has {100 * sum(fourteen) / len(fourteen):.1f} %" in plain


def test_what_feedback_is_worth() -> None:
    found, said = figures("improve"), text("improve-by-feedback")
    changes = {
        part: [run[part]["after"]["relative_change"] for run in found["runs"]]
        for part in ("shifted", "original")
    }
    for part, each in changes.items():
        assert found["over_seeds"][part] == sum(each) / len(each)
    shifted = found["over_seeds"]["shifted"]
    assert f"errors on new letters through the camera fall by {-100 * shifted:.0f} %" in said
    for run in found["runs"]:
        for part in ("shifted", "original"):
            cells = [f"{100 * run[part][when]['error']:.1f}" for when in ("before", "after")]
            assert " → ".join(cells) in said


def test_what_conditioning_costs() -> None:
    said = text("meta-transformer")
    for name, step in figures("conditioning")["steps"].items():
        ratios = step["ratios"]
        cells = [ratios[each] for each in ("with", "with, gradient alone", "with a small memory")]
        assert f"| {name} | {' | '.join(f'{each:.2f}' for each in cells)} |" in said


def test_five_families() -> None:
    found, said = figures("families"), text("meta-transformer")
    budgets = found["budgets"]
    assert list(budgets) == ["60", "180"]
    one, three = budgets.values()
    for name in one["methods"]:
        tests = [budget["methods"][name]["test"] for budget in (one, three)]
        assert all(len(budget["methods"][name]["test_by_seed"]) == 3 for budget in (one, three))
        cells = [
            f"{each['mean']:.2f} ± {each['ci95']:.2f} | {each['median']:.2f}" for each in tests
        ]
        assert f"| {' | '.join(cells)} |" in said
    exact = found["exact"]
    assert exact["tasks"] == found["tasks"] == 2000
    assert f"who knows the families has {exact['mean']:.2f} ± {exact['ci95']:.2f}" in said
    for name, words in (
        (
            "meta_bayesian_linear",
            "The shaped regression errs by {} (paired) after one minute and {}",
        ),
        ("meta_in_context", "shaped, it errs by {} after one minute and {} after three"),
    ):
        differences = (
            f"{budget['paired'][name]['minus_in_context']:+.2f} ± {budget['paired'][name]['ci95']:.2f}"
            for budget in (one, three)
        )
        assert words.format(*differences) in said

    def share(budget: dict[str, Any], name: str, of: str, kind: str = "mean") -> str:
        each = (budget["methods"][who]["test"][kind] for who in (name, of))
        return f"{next(each) / next(each):.2f}"

    own, kinds = "meta_bayesian_linear", ("mean", "median")
    shares = [share(budget, own, "maml", kind) for budget in (one, three) for kind in kinds]
    assert (
        f"{shares[0]} of MAML's error after one minute and {shares[2]} after three, by the median task {shares[1]} "
        f"and {shares[3]}" in said
    )
    assert f"leaves {share(one, own, 'bayesian_linear')} of what the same regression errs" in said
    assert f"leave {share(three, 'mmaml', 'maml')} of MAML's error after three minutes" in said
    diverged = [budget["methods"]["maml"]["test"]["diverged"] for budget in (one, three)]
    assert f"of MAML {diverged[0]} task after one minute and {diverged[1]} after three" in said
    for budget in (one, three):
        for name, method in budget["methods"].items():
            assert name == "maml" or not method["test"]["diverged"]
    assert one["methods"][own]["test"]["mean"] <= 0.5 * one["methods"]["maml"]["test"]["mean"]
    assert one["paired"][own]["minus_in_context"] + one["paired"][own]["ci95"] < 0
