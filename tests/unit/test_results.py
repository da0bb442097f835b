"""The figures that README claims are those of the committed benchmarks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from quickstudy.artifact import load_artifact
from quickstudy.pretrained import shipped

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")


AMOUNTS = ("0", "100", "400", "2000")


def figures(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def percent(score: dict[str, float]) -> str:
    return f"{100 * score['mean']:.1f} ± {100 * score['ci95']:.1f}"


@pytest.mark.parametrize("data", ["glyphs", "omniglot"])
def test_the_table_is_the_benchmark(data: str) -> None:
    scores = figures("glyphs")["runs"][0]["scores"][data]
    for shape, score in scores.items():
        pixels = score["baselines"]["nearest_mean_raw_inputs"]
        row = re.search(
            rf"^\| [^|]*\| {re.escape(shape)} \|.*{re.escape(percent(score))}.*$", README, re.M
        )
        assert row, f"README has no row for {data} {shape}: {percent(score)}"
        assert percent(pixels) in row[0]


def test_every_result_has_its_script_and_machine() -> None:
    found = sorted(RESULTS.glob("*.json"))
    scripts = {
        file.stem
        for file in (ROOT / "benchmarks").glob("*.py")
        if "__main__" in file.read_text(encoding="utf-8")
    }
    assert {file.stem for file in found} == scripts
    for file in found:
        result = json.loads(file.read_text(encoding="utf-8"))
        assert result["hardware"]["cores"]
        assert result["versions"]["torch"]
        assert not re.search(r"/(?:work|root|home|tmp)/", json.dumps(result))


def test_exact_strategies_are_exact_and_save_memory() -> None:
    found = figures("meta_gradient")
    for where, errors in found["relative_error"].items():
        if "float64" in where:
            assert all(errors[way] < 1e-12 for way in ("unroll", "sweep", "sqrt", "first"))
            assert errors["fd"] < 1e-8
    growth = found["memory_per_inner_step"]
    sizes = {way: row["parameter_sizes_per_step"] for way, row in growth.items()}
    assert sizes["sqrt"] < sizes["sweep"] < 1.3 < sizes["unroll"]
    assert found["memory_of_many_tasks"]["ratio"] < 1.1


def test_many_inner_steps_take_a_fraction_of_the_memory_of_peers() -> None:
    found = figures("peak_memory")
    assert found["steps"] == 100
    less = found["times_less_than_the_least_of_the_others"]
    assert less["sweep"] > 12
    assert less["sqrt"] > 30


def test_sinusoids_side_by_side_are_faster_than_any_loop() -> None:
    for point in figures("sinusoid_speed")["points"].values():
        assert max(point["relative_error_in_float32"].values()) < 1e-5
        assert point["speed_against_the_fastest_loop"]["unroll, side by side"] > 7


def test_adapters_on_a_pretrained_model_take_a_fraction_of_an_unrolled_graph() -> None:
    found = figures("lora_memory")
    assert max(found["relative_error_in_float32"].values()) < 1e-5
    share, time = found["share_of_naive_memory"], found["times_naive_seconds"]
    assert share["sweep"] < 1 / 4
    assert time["sweep"] < 1.5


def test_omniglot_is_scored_with_the_inner_steps_of_the_paper() -> None:
    for shape, run in figures("omniglot_maml")["runs"].items():
        learner, test = run["config"]["learner"], run["test"]
        expected = {"5-way 1-shot": (0.4, 1), "20-way 1-shot": (0.1, 5)}[shape]
        assert (learner["rate"], learner["steps"]) == expected
        assert learner.get("strategy", "auto") != "first"
        assert test["split"] == "test"
        assert test["mean"] - test["ci95"] > test["before_adaptation"]["mean"]
        paper, wide = {"5-way 1-shot": (0.987, 0.004), "20-way 1-shot": (0.958, 0.003)}[shape]
        assert abs(test["mean"] - paper) < wide
        minutes = round(run["processor_seconds_of_training"] / 60)
        guide = (ROOT / "docs/how-to/adapt-by-gradients.md").read_text(encoding="utf-8")
        assert f"{percent(test)} %" in guide
        assert f"after {minutes} minutes" in guide


def test_tables_are_learned_no_worse_than_by_the_best_of_tuned_classifiers() -> None:
    found = figures("tables")
    assert found["artifact"]["id"] == load_artifact(shipped("tables")).id
    gain = found["gain_over_best_contender"]
    assert gain["mean"] + gain["ci95"] > 0
    guide = (ROOT / "docs" / "how-to" / "classify-tables.md").read_text(encoding="utf-8")
    order = ["quickstudy", *found["tables"]["iris"].keys() - {"quickstudy"}]
    for table, scores in found["tables"].items():
        row = next(line for line in guide.splitlines() if line.startswith(f"| {table}"))
        assert {f"{scores[name]['mean']:.3f}" for name in order} <= set(
            re.findall(r"0\.\d{3}", row)
        )
    history = figures("tables_training")["history"]
    assert history[-1]["nll"] < history[0]["nll"]


def test_values_of_tables_are_predicted_no_worse_than_by_the_best_of_tuned_regressors() -> None:
    found = figures("table_values")
    artifact = load_artifact(shipped("tables", "values"))
    assert found["artifact"] == {"id": artifact.id, "training": artifact.facts["training"]}
    gain = found["gain_over_best_contender"]
    assert gain["mean"] + gain["ci95"] > 0
    held = found["values_in_95_percent_intervals"]
    assert abs(held["mean"] - 0.95) < 0.03
    guide = (ROOT / "docs" / "how-to" / "classify-tables.md").read_text(encoding="utf-8")
    row = next(line for line in guide.splitlines() if line.startswith("| diabetes, R²"))
    assert re.findall(r"0\.\d{3}", row) == [f"{each['mean']:.3f}" for each in found["r2"].values()]
    assert f"{100 * held['mean']:.1f} %" in guide


def test_the_guide_to_texts_has_the_figures_of_classes_that_nobody_met() -> None:
    guide = (ROOT / "docs" / "how-to" / "learn-from-texts.md").read_text(encoding="utf-8")
    runs = [run["tests"] for run in figures("text_unseen")["seeds"].values()]
    for corpus, by_shot in runs[0].items():
        for shot in by_shot:
            found = [run[corpus][shot]["accuracy"] for run in runs]
            means = [
                sum(100 * each[way]["mean"] for each in found) / len(found)
                for way in ("prototypes", "logreg_names", "trained")
            ]
            few, named, trained = (f"{mean:.1f}" for mean in means)
            assert f"| `{corpus}` | {shot} | {few} | {named} | **{trained}** |" in guide


def test_the_guide_to_texts_has_the_figures_of_reviews_and_of_texts_of_no_intent() -> None:
    guide = (ROOT / "docs" / "how-to" / "learn-from-texts.md").read_text(encoding="utf-8")
    for part in figures("reviews")["parts"].values():
        for name, found in (part["domains"] | part.get("leopard", {})).items():
            frozen, trained = (percent(found["accuracy"][way]) for way in ("logreg", "trained"))
            assert re.search(rf"^\| `?{name}`? \| {frozen} \| \**{trained}\** \|$", guide, re.M)
    parts = figures("reviews")["parts"].values()
    domains = [found["accuracy"] for part in parts for found in part["domains"].values()]
    trained, frozen = (
        100 * sum(each[way]["mean"] for each in domains) / len(domains)
        for way in ("trained", "logreg")
    )
    assert len(domains) == 13
    assert f"{trained:.1f} in place of {frozen:.1f}" in guide
    for task, asked in figures("leopard_topics")["tasks"].items():
        frozen, mine = (percent(asked["accuracy"][way]) for way in ("logreg", "trained"))
        assert f"| `{task}` | {frozen} | {mine} |" in guide
    books = figures("reviews")["parts"]["0"]["domains"]["books"]["accuracy"]
    assert f"{percent(books['trained'])} %" in README
    assert f"{percent(books['logreg'])} %" in README
    for way in ("trained", "logreg_names", "lexical"):
        found = figures("out_of_scope")["entrants"][way]
        keys = ("auroc", "fpr_at_95", "refused", "kept", "accuracy")
        assert f"| {' | '.join(percent(found[key]) for key in keys)} |" in guide


def test_the_guide_to_texts_says_how_the_artifact_fares_against_setfit() -> None:
    guide = (ROOT / "docs" / "how-to" / "learn-from-texts.md").read_text(encoding="utf-8")
    found = figures("against_setfit")
    assert found["artifact"] == load_artifact("text").id
    for corpus, each in found["corpora"].items():
        ways = each["methods"]
        row = next(
            line
            for line in guide.splitlines()
            if line.startswith(f"| `{corpus}` | {percent(ways['setfit']['accuracy'])} |")
        )
        for way in ("text", "text, 8 passes", "text, 400 without a label"):
            assert percent(ways[way]["accuracy"]) in row
        assert f"| {ways['text']['times_faster_to_learn']:.0f} |" in row
    helped, setfit = (
        100
        * sum(each["methods"][way]["accuracy"]["mean"] for each in found["corpora"].values())
        / 3
        for way in ("text, 400 without a label", "setfit")
    )
    said = README.replace("\n", " ")
    assert f"400 without a label, {helped:.1f} % are right" in said
    assert f"has {setfit:.1f} % after a minute" in said


def test_the_guide_says_what_texts_without_a_label_are_worth() -> None:
    guide = (ROOT / "docs" / "how-to" / "learn-without-labels.md").read_text(encoding="utf-8")
    corpora = figures("unlabelled_texts")["corpora"]
    assert {corpora[name]["model"] for name in ("huffpost", "trec")} == {load_artifact("text").id}
    for name in ("huffpost", "trec", "clinc150"):
        for shot, found in corpora[name]["shots"].items():
            cells = [f"{100 * found[amount]['trained']['mean']:.1f}" for amount in AMOUNTS]
            gain = found[AMOUNTS[-1]]["trained"]["gain"]
            cells[-1] += f" ({100 * gain['mean']:+.1f} ± {100 * gain['ci95']:.1f})"
            assert f"| {shot} | {' | '.join(cells)} |" in guide
    for shot, found in corpora["banking77, fine-tuned too"]["shots"].items():
        cells = [
            f"{100 * found[amount][way]['mean']:.1f}"
            for amount in ("0", "2000")
            for way in ("trained", "tuned")
        ]
        assert f"| {shot} | {' | '.join(cells)} |" in guide


def test_the_guide_says_what_training_with_them_is_worth() -> None:
    guide = (ROOT / "docs" / "how-to" / "learn-without-labels.md").read_text(encoding="utf-8")
    tests = figures("soft_prototypes")["tests"]
    for name in tests["of its classes"]["accuracy"]:
        cells = " | ".join(percent(each["accuracy"][name]) for each in tests.values())
        assert f"| {cells} |" in guide, name


def test_the_card_of_the_text_model_has_the_figures_of_its_benchmark() -> None:
    card = (shipped("text") / "README.md").read_text(encoding="utf-8")
    for by_shot in figures("text_training")["runs"]["all"]["tests"].values():
        for shot, found in by_shot.items():
            mine, frozen = (
                100 * found["accuracy"][name]["mean"] for name in ("trained", "logreg_names")
            )
            row = f"| {found['way']} | {shot} | {mine:.1f} | {frozen:.1f} |"
            assert row in card
    assert load_artifact("text").id in card


def test_the_guide_to_texts_says_what_areas_teach() -> None:
    guide = (ROOT / "docs" / "how-to" / "learn-from-texts.md").read_text(encoding="utf-8")
    plain = " ".join(guide.split())
    found = figures("text_training")["runs"]["all"]["tests"]["short_texts"]
    for shot in ("5", "10"):
        assert found[shot]["way"] == 196
        mine = found[shot]["accuracy"]["trained"]["mean"]
        above = found[shot]["above"]["logreg_names"]
        assert above["mean"] - above["ci95"] > 0.02
        said = f"{100 * above['mean']:+.1f} ± {100 * above['ci95']:.1f}"
        assert f"{100 * mine:.1f}" in plain
        assert said in plain


def test_the_guides_say_what_a_task_tells_of_itself() -> None:
    found = figures("own_examples")
    assert found["artifact"] == load_artifact("text").id
    checked, none = (
        (ROOT / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")
        for name in ("check-a-task", "say-none-of-these")
    )
    for by_shape in found["corpora"].values():
        for each in by_shape.values():
            parts, alone = each["one of each class"], each["one by one"]
            assert abs(parts["above"]["mean"]) < abs(alone["above"]["mean"])
            cells = (percent(score) for score in (each["accuracy"], parts["told"], alone["told"]))
            assert f"| {' | '.join(cells)} |" in checked
            rows = (each[name] for name in ("keep 0.95", "keep 0.8", "another shape"))
            cells = (f"{100 * row[key]['mean']:.1f}" for row in rows for key in ("kept", "refused"))
            assert f"| {' | '.join(cells)} |" in none


def test_the_guide_to_gradients_says_what_threads_bring() -> None:
    guide = (ROOT / "docs" / "how-to" / "adapt-by-gradients.md").read_text(encoding="utf-8")
    found = figures("task_threads")["models"]
    assert all(model["relative_difference_in_float32"] < 1e-6 for model in found.values())
    speed = found["image"]["speed_against_one_thread"]
    shared = f"{speed['tasks shared out among threads']:.1f}"
    split = f"{speed['operations split among the cores']:.1f}"
    assert f"took {shared} times less time than in one thread, and {split} times less" in guide
