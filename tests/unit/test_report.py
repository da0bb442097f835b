"""The report: one file that stands alone, says what was measured, and shows what was answered."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser

import pytest
import torch

from quickstudy.artifact import Artifact
from quickstudy.config import RunConfig
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.gaussian_process import GaussianProcess
from quickstudy.data.source import Pool, PoolSource
from quickstudy.data.synthetic import Linear, Sinusoid
from quickstudy.data.text import TextSource
from quickstudy.evaluation import calibrate, contest_of, evaluate, scores_by_shot
from quickstudy.learners import LEARNERS
from quickstudy.learners.gradient import MAML
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import Encoder, ImageEncoder, RawEncoder, VectorEncoder
from quickstudy.report import curves, drawn, figures, functions, page, words, write_report

EVIL = "<script>alert('x')</script>&\""
DESIGN = EpisodeDesign(way=3, shot=1, queries=2)


class Pictures(PoolSource):
    """Classes of noisy pictures; one has a name that would break a careless page."""

    kind = "image"

    def pool(self, split: str) -> Pool:
        generator = torch.Generator().manual_seed(3)
        base = torch.randint(0, 200, (4, 1, 1, 8, 8), generator=generator)
        noise = torch.randint(0, 55, (4, 8, 1, 8, 8), generator=generator)
        return Pool(
            (base + noise).flatten(0, 1).to(torch.uint8),
            torch.full((4,), 8),
            [EVIL, "two", "three", "four"],
            torch.zeros(4, dtype=torch.int64),
            ["all"],
        )


class Outline(HTMLParser):
    """The elements of a page; every element that is opened must be closed."""

    EMPTY = ("meta", "img", "br", "image", "use", "path", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def artifact():
    torch.manual_seed(0)
    learner = ProtoNet(ImageEncoder(8, layers=1, heads=2, size=8)).eval()
    encoder = {"name": "image", "width": 8, "layers": 1, "heads": 2, "size": 8}
    return Artifact(learner, RunConfig(encoder=encoder), {}, id="0123abcd", path=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with a learning curve."""
    folder = tmp_path_factory.mktemp("run")
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "validation_accuracy"])
        writer.writerows(
            [[1, 3.0, ""], [2, 2.5, 0.4], [3, "nan", ""], [4, 2.0, 0.6], [5, 1.9, 0.5]]
        )
    return folder


@pytest.fixture(scope="module")
def text(artifact, run, tmp_path_factory):
    """The whole page."""
    scores = evaluate(
        artifact.learner,
        Pictures(),
        design=DESIGN,
        episodes=4,
        against=artifact.learner,
        against_name=EVIL,
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(
        path, artifact=artifact, evaluations=[scores], run=run, source=Pictures(), episodes=3
    )
    return path.read_text(encoding="utf-8")


def test_page_stands_alone(text):
    outline = Outline(text)
    assert not {"script", "link", "iframe", "object"} & set(outline.tags)
    assert outline.links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in outline.links)
    outside = re.findall(r"(?:https?:)?//[\w.-]+", re.sub(r'base64,[^"]*', "", text))
    assert outside == []
    assert "default-src 'none'" in text


def test_what_people_named_is_escaped(text):
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_page_says_what_was_measured(text):
    for words_of_it in (
        "3-way 1-shot",
        "nearest mean of raw inputs",
        "linear head",
        "before adapting",
        "no difference can be told",
        "Each question is answered alone",
        "expected calibration error",
        "Validation accuracy",
        "Training loss",
        "seed 0",
        "within_group: false",
        "0123abcd",
        torch.__version__,
    ):
        assert words_of_it in text, words_of_it


def test_no_name_of_an_element_is_used_for_two_things(text):
    named = re.findall(r'\bid="([^"]+)"', text)
    assert len(named) == len(set(named))


def test_page_without_a_run_has_no_learning_curve(artifact, tmp_path):
    scores = evaluate(artifact.learner, Pictures(), design=DESIGN, episodes=2, baselines=False)
    assert scores["baselines"] == {}
    card = page.score_cards([scores])
    assert "this model" in card
    assert page.learning(curves.learning_curves(tmp_path / "metrics.csv"), "accuracy") == ""
    with pytest.raises(ValueError, match="at least one evaluation"):
        write_report(tmp_path / "x.html", artifact=artifact, evaluations=[])


def test_learning_curve_leaves_out_what_is_no_number(run):
    found = curves.learning_curves(run / "metrics.csv")
    assert found["loss"].steps == [1, 2, 4, 5]
    assert found["validation_accuracy"] == ("validation_accuracy", [2, 4, 5], [0.4, 0.6, 0.5])


def test_best_validation_is_ringed(run):
    curve = curves.learning_curves(run / "metrics.csv")["validation_accuracy"]
    options = {"label": "x", "percent": True}
    plain = figures.curve_chart(curve, **options)
    ringed = [figures.curve_chart(curve, **options, marked=end) for end in ("highest", "lowest")]
    assert all(each.count("<use") > plain.count("<use") for each in ringed)
    assert ringed[0] != ringed[1]


def test_of_values_the_loss_is_ringed_where_it_is_lowest():
    loss, error = "validation_loss", "validation_mean_squared_error"
    falling = {
        loss: curves.Curve(loss, [1, 2, 3], [0.9, 0.2, 0.5]),
        error: curves.Curve(error, [1, 2, 3], [0.9, 0.4, 0.3]),
    }
    shown = page.learning(falling, "mean_squared_error")
    ringed = {"label": "Validation loss", "percent": False, "marked": "lowest"}
    plain = {"label": "Validation mean squared error", "percent": False}
    assert figures.curve_chart(falling[loss], **ringed) in shown
    assert figures.curve_chart(falling[error], **plain) in shown


def test_charts_take_their_colours_from_the_page():
    chart = figures.calibration_chart(calibrate(torch.rand(50), torch.rand(50) > 0.5))
    assert "var(--accent)" in chart
    assert "<style" not in chart
    assert not re.search(r"#0[1-9]0[1-9]0[1-9]\b", chart)


def test_drawn_task_shows_right_and_wrong(artifact):
    found = drawn.draw_task(artifact.learner, Pictures(), DESIGN)
    assert found.probabilities.shape == (3, 2, 3)
    right = found._replace(probabilities=torch.eye(3)[:, None].expand(3, 2, 3))
    wrong = found._replace(probabilities=torch.eye(3).roll(1, 1)[:, None].expand(3, 2, 3))
    shown = page.drawn_task(right, "image", 0), page.drawn_task(wrong, "image", 0)
    assert [each.count('class="tile right"') for each in shown] == [6, 0]
    assert [each.count('class="taken"') for each in shown] == [0, 6]
    assert "There is none" in page.confusions(right, "image")
    assert "2 of 2 times" in page.confusions(wrong, "image")


def test_texts_are_shown_in_a_table(tmp_path):
    class Lengths(Encoder):
        """Says how long a text is, and where its first letter stands."""

        width = 2

        def tokenize(self, texts):
            return torch.tensor([[len(text), ord(text[0])] for text in texts])

        def forward(self, x):
            return x.float()

    file = tmp_path / "texts.csv"
    rows = [f"{letter} <b>{'x' * n}</b>,{letter}" for letter in "abc" for n in range(4)]
    file.write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    source = TextSource(str(file), test=1.0)
    found = drawn.draw_task(ProtoNet(Lengths()), source, DESIGN)
    table = page.drawn_task(found, "text", 0)
    assert table.count("<tr>") == 1 + 6
    assert table.count('<tr class="support">') == 3
    assert "&lt;b&gt;" in table
    assert "<b>" not in table
    assert "confusion" in page.confusions(found, "text")


@pytest.mark.parametrize("world", [Sinusoid(), Linear(dims=2)])
def test_a_function_is_drawn_as_it_was_answered(world):
    torch.manual_seed(0)
    learner = MAML(VectorEncoder(world.inputs, width=8), adapt="head", rate=0.02, values=1)
    design = EpisodeDesign(way=1, shot=(2, 4), queries=3)
    found = functions.draw_function(learner, world, design, seed=5)
    assert len(found.support[0]) == 4
    assert len(found.truth) == functions.QUERIES
    assert (found.queries[1:, 0] >= found.queries[:-1, 0]).all()
    assert not torch.equal(found.before, found.after)
    if isinstance(world, Sinusoid):
        # The task is the first one of the seed, whatever is asked of it.
        episode = Episodes(world, "test", EpisodeDesign(1, 4, 3), seed=5)[0]
        same_wave = linear_regression(found.queries, found.truth, episode.query.x[0])
        torch.testing.assert_close(same_wave, episode.query.y[0, :, 0], rtol=0, atol=1e-4)
    shown = functions.drawn_function(found, seed=5)
    Outline(shown)
    assert "first task of seed 5" in shown
    assert "200 questions after 4 examples" in shown
    assert f"{found.error(found.after):.3g}" in shown
    assert f"{found.error(found.before):.3g}" in shown
    assert ("the dashed line is the truth" in shown) == (world.inputs == 1)


def test_who_says_how_sure_it_is_is_drawn_beside_who_knows():
    torch.manual_seed(0)
    options = {"values": 1, "width": 8, "layers": 1, "heads": 2}
    learner, world = LEARNERS["neural_process"](RawEncoder(1), **options), GaussianProcess()
    design = EpisodeDesign(way=1, shot=(4, 25), queries=3)
    found = functions.draw_function(learner, world, design, seed=5)
    assert len(found.support[0]) == 10
    assert {each.shape for each in (found.sure, *found.exact)} == {(200,)}
    assert (found.sure > 0).all()
    inside = (found.exact.low <= found.truth) & (found.truth <= found.exact.high)
    assert inside.double().mean() > 0.8
    shown = functions.drawn_function(found, seed=5)
    Outline(shown)
    assert "exact answer" in shown
    assert "Tinted is where 95 %" in shown
    scores = evaluate(learner, world, design=design, episodes=3)
    said = words.headline(scores)
    assert (
        f"{scores['below_exact']['mean']:.3g} ± {scores['below_exact']['ci95']:.2g} below" in said
    )
    contest = contest_of(learner, world)
    by_shot = scores_by_shot(contest, design, episodes=3, shots=(1, 3))
    card = functions.likelihoods_by_shot(by_shot, 3)
    Outline(card)
    assert "log-likelihood by shot" in card
    numbers = contest_of(MAML(VectorEncoder(1, width=8), values=1), world)
    without = scores_by_shot(numbers, design, episodes=3, shots=(1,))
    assert functions.likelihoods_by_shot(without, 3) == ""


def linear_regression(x, y, places):
    """The sine wave through points, elsewhere."""

    def waves(x):
        return torch.cat([x.sin(), x.cos()], -1).double()

    weights = torch.linalg.lstsq(waves(x), y.double()[:, None]).solution
    return (waves(places) @ weights)[:, 0].float()


def test_errors_by_shot_stand_on_a_logarithmic_scale():
    rows = {
        shot: {
            "learner": {"mean": 1 / shot, "ci95": 0.1},
            "exact": {"mean": 1e-14, "ci95": 0.0},
        }
        for shot in (1, 10)
    }
    shown = page.errors_by_shot(rows, 7, "mean_squared_error")
    assert "Mean squared error on 7 tasks" in shown
    assert "exact answer" in shown
    assert "%" not in figures.shot_chart(rows, ["learner", "exact"], "mean_squared_error")
    assert "%" in figures.shot_chart(rows, ["learner", "exact"])


def test_the_exact_answer_is_no_simple_method():
    scores = {"metric": "mean_squared_error", "mean": 0.2, "ci95": 0.1, "episodes": 9, "shot": 5}
    scores |= {"way": 1, "split": "test"}
    rows = {"exact": {"mean": 0.0}, "ridge_raw_inputs": {"mean": 3.0}}
    text = words.headline({**scores, "baselines": rows})
    assert "ridge regression on raw inputs) gives 3" in text
    assert "class" not in text


def test_numbers_are_shown_briefly():
    class Numbers(Pictures):
        kind = "vector"

        def pool(self, split):
            pool = super().pool(split)
            return Pool(
                pool.x.flatten(1).float(), pool.counts, pool.class_names, pool.groups, ["all"]
            )

    shown = drawn.Shown(Numbers(), Numbers().pool("test"), "test")
    assert shown.example(0).endswith(", …")


def test_colour_and_float_pictures_can_be_shown():
    for x in (torch.rand(3, 120, 100), torch.zeros(1, 8, 8, dtype=torch.uint8)):
        assert drawn.picture(x).startswith("data:image/png;base64,")
    assert drawn.is_ink(torch.zeros(5, 1, 8, 8))
    assert not drawn.is_ink(torch.ones(5, 1, 8, 8))
    assert not drawn.is_ink(torch.zeros(5, 3, 8, 8))


@pytest.mark.parametrize(
    ("paired", "meaning"),
    [
        (
            {"against": "b", "difference": 0.02, "ci95": 0.01},
            r"\+2\.0 ± 1\.0 .* this model is better",
        ),
        ({"against": "b", "difference": -0.02, "ci95": 0.01}, "the other model is better"),
        ({"against": "", "difference": 0.01, "ci95": 0.01}, "Against the other .* no difference"),
    ],
)
def test_verdict_heeds_the_interval(paired, meaning):
    assert re.search(meaning, words.verdict({"metric": "accuracy", "paired": paired}))


def test_scores_that_are_no_shares_are_numbers():
    scores = {
        **{"metric": "mean_squared_error", "mean": 0.25, "ci95": 0.01, "episodes": 9, "way": 1},
        **{"shot": 5, "queries": 5, "split": "test", "seed": 0, "inductive": True, "paired": None},
        "before_adaptation": {"mean": 1.0, "ci95": 0.1},
        "baselines": {"nearest": {"mean": 0.5, "ci95": 0.0}},
    }
    assert "mean squared error of <strong>0.25" in words.headline(scores)
    assert words.best_untrained(scores) == "nearest"
    assert "0.25" in page.score_cards([scores])
