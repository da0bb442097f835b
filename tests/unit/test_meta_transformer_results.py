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
    assert list(budgets) == ["60", "180", "300"]
    for name in budgets["300"]["methods"]:
        tests = [budget["methods"][name]["test"] for budget in budgets.values()]
        cells = [
            f"{each['mean']:.2f} ± {each['ci95']:.2f} | {each['median']:.2f}" for each in tests
        ]
        assert f"| {' | '.join(cells)} |" in said
    exact = found["exact"]
    assert f"who knows the families has {exact['mean']:.2f} ± {exact['ci95']:.2f}" in said
    one, three, five = (
        f"{paired['minus_in_context']:+.2f} ± {paired['ci95']:.2f}"
        for paired in (budget["paired"]["meta_in_context"] for budget in budgets.values())
    )
    assert f"it errs by {one} (paired) after one minute, {three} after three and {five}" in said
    shares = {
        key: {
            name: [
                methods[name]["test"][kind] / methods["maml"]["test"][kind]
                for kind in ("mean", "median")
            ]
            for name in methods
        }
        for key, methods in ((key, budget["methods"]) for key, budget in budgets.items())
    }
    assert f"leave {shares['300']['mmaml'][0]:.2f} of MAML's error after five" in said
    means, medians = ([each["meta_in_context"][i] for each in shares.values()] for i in (0, 1))
    assert f"It has {means[0]:.2f} of MAML's error after one minute, {means[1]:.2f} after" in said
    assert f"and {means[2]:.2f} after five; by the median task {medians[0]:.2f}, " in said
    assert 0.5 * budgets["180"]["methods"]["maml"]["test"]["mean"] < exact["mean"]
    assert f"{medians[1]:.2f} and {medians[2]:.2f}. On the tasks" in said
    above = {name: each["mean"] for name, each in budgets["300"]["above_exact"].items()}
    assert f"above it by {above['meta_in_context']:.2f}, and MAML by {above['maml']:.2f}" in said
    diverged = {
        (key, name): method["test"].get("diverged", 0)
        for key, budget in budgets.items()
        for name, method in budget["methods"].items()
    }
    assert {each for each, tasks in diverged.items() if tasks} == {("60", "maml"), ("180", "mmaml")}
    assert set(diverged.values()) == {0, 1}
