"""Scores: intervals that cover, the same tasks for everyone, and honest companions."""

from __future__ import annotations

import copy
import json
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from learner_table import PairReader
from quickstudy import evaluation
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.gaussian_process import GaussianProcess
from quickstudy.data.logistic import Logistic
from quickstudy.data.source import DataError, Pool, PoolSource
from quickstudy.data.synthetic import Linear, Sinusoid
from quickstudy.episode import Context, Examples
from quickstudy.evaluation import contest as contest_module
from quickstudy.evaluation.contest import BagOfTokens, Contest, EncodedPool, FixedPool
from quickstudy.evaluation.rules import means, ridge_of_support
from quickstudy.learners import LEARNERS
from quickstudy.learners.base import Learner
from quickstudy.learners.context import InContext
from quickstudy.learners.gradient import MAML
from quickstudy.learners.metric import ProtoNet
from quickstudy.learners.neural_process import TransformerNeuralProcess
from quickstudy.likelihood import Gaussian
from quickstudy.nn.encoders import Encoder, ImageEncoder, RawEncoder, VectorEncoder
from quickstudy.nn.minilm import PretrainedError
from quickstudy.nn.pretrained import HuggingFaceEncoder
from quickstudy.report import words

DESIGN = EpisodeDesign(way=3, shot=2, queries=4)
FEATURES = 6
OF_VALUES_ALONE = ("process", "deep_kernel", "bayesian_linear")
CLASSIFIERS = [name for name in LEARNERS if not name.endswith(OF_VALUES_ALONE)]
"""The others predict numbers only."""


class Clusters(PoolSource):
    """Classes are Gaussian clusters around random centres."""

    kind = "vector"

    def __init__(self, spread: float = 1.0, *, classes: int = 8, each: int = 9) -> None:
        generator = torch.Generator().manual_seed(5)
        centres = torch.randn(classes, 1, FEATURES, generator=generator)
        noise = torch.randn(classes, each, FEATURES, generator=generator)
        names = [f"class {i}" for i in range(classes)]
        self.clusters = Pool(
            (centres + spread * noise).flatten(0, 1),
            torch.full((classes,), each),
            names,
            torch.arange(classes) // 4,
            ["even", "odd"],
        )

    def pool(self, split: str) -> Pool:
        return self.clusters


class Words(PoolSource):
    """Classes are topics; each topic has a word of its own, ``topic + 10``, among common ones."""

    kind = "text"

    def pool(self, split: str) -> Pool:
        generator = torch.Generator().manual_seed(6)
        topics, each = 5, 8
        common = torch.randint(10, (topics * each, 4), generator=generator)
        own = (torch.arange(topics) + 10).repeat_interleave(each)[:, None]
        padding = torch.full((topics * each, 1), -1)
        return Pool(
            torch.cat([common, own, own, own, padding], 1),
            torch.full((topics,), each),
            [str(i) for i in range(topics)],
            torch.zeros(topics, dtype=torch.int64),
            ["all"],
        )


class CountingEncoder(Encoder):
    """Counts the examples that pass through it."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.seen = FEATURES, 0
        self.linear = nn.Linear(FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.linear(x)


class Transductive(ProtoNet):
    """Lets queries inform one another: each is judged after subtracting the mean of all."""

    def predict(self, state, x, context):
        return super().predict(state, x - x.mean(1, keepdim=True), context)


@pytest.fixture
def source() -> Clusters:
    return Clusters()


@pytest.fixture
def learner() -> ProtoNet:
    torch.manual_seed(0)
    return ProtoNet(VectorEncoder(FEATURES, width=8))


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706205), (2, 4.302653), (5, 2.570582), (30, 2.042272), (599, 1.963932)]
    + [(9999, 1.960201), (10**6, 1.959966)],
)
def test_quantile_is_that_of_students_t(degrees, quantile):
    # From scipy.stats.t.ppf(0.975, degrees).
    assert evaluation.t_quantile(degrees) == pytest.approx(quantile, rel=1e-5)


def test_interval_covers_the_true_mean_in_95_of_100_evaluations():
    # Accuracies of tasks: each task has its own difficulty, each task answers 15 queries.
    generator = torch.Generator().manual_seed(0)
    repetitions, tasks = 3000, 12
    difficulty = 0.6 + 0.2 * torch.rand(repetitions, tasks, generator=generator)
    chances = difficulty[..., None].expand(-1, -1, 15)
    scores = torch.bernoulli(chances, generator=generator).mean(-1)
    found = torch.tensor([evaluation.interval(row) for row in scores])
    covered = ((found[:, 0] - 0.7).abs() <= found[:, 1]).double().mean()
    assert abs(float(covered) - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / repetitions)


def test_interval_of_one_task_is_refused():
    with pytest.raises(ValueError, match="at least 2 episodes; found 1"):
        evaluation.interval(torch.tensor([1.0]))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_from_encoded_pool_are_those_of_a_plain_loop(name, source):
    torch.manual_seed(1)
    encoder = VectorEncoder(FEATURES, width=8)
    paired = PairReader(encoder) if name == "cross_encoder" else encoder
    learner = LEARNERS[name](paired).double()
    design = EpisodeDesign(way=(2, 3), shot=(1, 2), queries=2)
    contest = Contest(source, split="test", seed=4)
    contest.enter("learner", learner)
    fast = contest.scores(design, 5)["learner"]
    batches = Episodes(source, "test", design, length=5, seed=4)
    plain = evaluation.score_tasks(learner, (batches[i] for i in range(5)))
    torch.testing.assert_close(fast, plain)


def test_evaluation_is_one_json_object_with_every_key(learner, source):
    found = evaluation.evaluate(
        learner, source, design=DESIGN, episodes=6, against=learner, against_name="itself"
    )
    assert json.loads(json.dumps(found)) == found
    assert {
        *("metric", "mean", "ci95", "episodes", "way", "shot", "queries", "split", "seed"),
        *("within_group", "unlabelled", "inductive", "before_adaptation", "baselines", "paired"),
    } == set(found)
    assert set(found["baselines"]) == {
        "nearest_mean_raw_inputs",
        "nearest_mean_untrained_encoder",
        "linear_head",
    }
    assert found["paired"] == {"against": "itself", "difference": 0.0, "ci95": 0.0}
    assert found["inductive"] is True
    assert found["before_adaptation"]["mean"] == pytest.approx(1 / 3)
    assert found["mean"] > 0.5


def test_differences_are_paired(learner, source):
    torch.manual_seed(9)
    other = ProtoNet(VectorEncoder(FEATURES, width=8, layers=1))
    arguments = {"design": DESIGN, "episodes": 40, "baselines": False}
    one = evaluation.evaluate(learner, source, against=other, against_name="other", **arguments)
    two = evaluation.evaluate(other, source, **arguments)
    paired = one["paired"]
    assert paired["difference"] == pytest.approx(one["mean"] - two["mean"])
    # The same tasks are easy or hard for both, so the difference is known better than if drawn apart.
    assert paired["ci95"] < math.hypot(one["ci95"], two["ci95"])


def test_task_i_depends_on_neither_the_number_of_tasks_nor_the_memory(learner, source, monkeypatch):
    contest = Contest(source, split="test", seed=1)
    contest.enter("learner", learner)
    many = contest.scores(DESIGN, 9)["learner"]
    torch.testing.assert_close(contest.scores(DESIGN, 4)["learner"], many[:4])
    monkeypatch.setattr(contest_module, "BYTES_AT_ONCE", 1)
    torch.testing.assert_close(contest.scores(DESIGN, 9)["learner"], many)


def test_raw_baseline_is_the_nearest_mean_of_the_same_tasks(learner, source):
    found = evaluation.evaluate(learner, source, design=DESIGN, episodes=5, seed=2)
    episodes = Episodes(source, "test", DESIGN, length=5, seed=2)
    scores = []
    for i in range(5):
        support, query = episodes[i].support, episodes[i].query
        means = torch.stack([support.x[0][support.y[0] == c].mean(0) for c in range(3)])
        answers = torch.cdist(query.x[0], means).argmin(1)
        scores.append((answers == query.y[0]).double().mean())
    mean, ci95 = evaluation.interval(torch.stack(scores))
    assert found["baselines"]["nearest_mean_raw_inputs"] == pytest.approx(
        {"mean": mean, "ci95": ci95}
    )


def test_raw_baseline_of_texts_counts_words():
    class Letters(Encoder):
        width = 4

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :4].float()

    design = EpisodeDesign(way=3, shot=3, queries=3)
    found = evaluation.evaluate(ProtoNet(Letters()), Words(), design=design, episodes=5)
    assert found["baselines"]["nearest_mean_raw_inputs"]["mean"] > 0.9


def test_words_outside_the_vocabulary_count_nothing():
    bag = BagOfTokens(torch.tensor([3, 5]))
    assert bag(torch.tensor([[0, 4, 9, -1]])).tolist() == [[0.0, 0.0]]


def test_every_example_is_encoded_once(source):
    encoder = CountingEncoder()
    contest = Contest(source, split="test")
    contest.enter("learner", ProtoNet(encoder))
    contest.scores(DESIGN, 50)
    assert encoder.seen <= len(source.clusters.x) + 1
    contest.scores(DESIGN, 50)
    assert encoder.seen <= len(source.clusters.x) + 1


def test_encoded_pool_encodes_what_is_required_only(source):
    encoder = CountingEncoder()
    pool = EncodedPool(source.clusters, encoder, "cpu")
    rows = torch.tensor([7, 3, 7])
    pool.require(rows)
    torch.testing.assert_close(pool.fixed.x[rows], encoder.linear(source.clusters.x[rows]))
    assert int(pool.known.sum()) == 2


def test_queries_that_inform_one_another_are_reported(learner, source):
    episode = Episodes(source, "test", DESIGN, tasks=3)[0]
    assert evaluation.is_inductive(learner, episode)
    assert not evaluation.is_inductive(Transductive(learner.encoder), episode)


def test_learner_is_left_as_it_was(learner, source):
    learner.encoder.layers[0].eval()
    modes = [module.training for module in learner.modules()]
    weights = copy.deepcopy(learner.state_dict())
    evaluation.evaluate(learner, source, design=DESIGN, episodes=3)
    assert [module.training for module in learner.modules()] == modes
    for name, weight in learner.state_dict().items():
        assert torch.equal(weight, weights[name])
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_global_random_state_is_left_alone(learner, source):
    before = torch.random.get_rng_state()
    evaluation.evaluate(learner, source, design=DESIGN, episodes=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_untrained_copy_has_the_build_but_not_the_weights():
    trained = ImageEncoder(8, layers=1, heads=2, size=8)
    torch.manual_seed(3)
    one = evaluation.untrained_copy(trained).state_dict()
    torch.manual_seed(3)
    two = evaluation.untrained_copy(trained).state_dict()
    for name, weight in trained.state_dict().items():
        assert one[name].shape == weight.shape
        assert torch.equal(one[name], two[name])
        # Vectors are biases and norms, which begin as zeros and ones.
        assert weight.ndim < 2 or not torch.equal(one[name], weight), name


def test_layer_that_cannot_be_drawn_anew_is_named():
    class Odd(CountingEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.odd = nn.ParameterList([nn.Parameter(torch.zeros(1))])

    with pytest.raises(TypeError, match="'odd'"):
        evaluation.untrained_copy(Odd())


class FrozenText(HuggingFaceEncoder):
    """A frozen text encoder without the weight of a real one: the first words of a text are its features."""

    def __init__(self) -> None:
        Encoder.__init__(self)
        self.width, self.model = 4, nn.Identity()  # without weights there is nothing to train
        self.layers = nn.Sequential(nn.Linear(4, 4))

    def features(self, x: Tensor) -> Tensor:
        return x[:, :4].float()


def test_frozen_encoder_is_compared_with_itself_before_its_trained_layers():
    encoder = FrozenText()
    name, before = evaluation.starting_encoder(encoder, None, seed=0)
    assert name == "nearest_mean_pretrained_encoder"
    x = torch.randint(9, (3, 6))
    assert torch.equal(before(x), x[:, :4].float())
    assert not torch.equal(encoder(x), before(x))


def test_fine_tuned_encoder_is_built_again_or_left_out(learner, source):
    encoder = learner.encoder
    encoder.pretrained = True
    design = {"design": DESIGN, "episodes": 3}
    found = evaluation.evaluate(learner, source, **design)
    assert set(found["baselines"]) == {"nearest_mean_raw_inputs", "linear_head"}
    given = evaluation.evaluate(learner, source, **design, untrained=lambda: CountingEncoder())
    assert "nearest_mean_pretrained_encoder" in given["baselines"]

    def absent() -> Encoder:
        raise PretrainedError("It is not on this machine.")

    assert evaluation.evaluate(learner, source, **design, untrained=absent) == found


def test_progress_reaches_the_number_of_episodes(learner, source):
    seen = []
    evaluation.evaluate(
        learner,
        source,
        design=DESIGN,
        episodes=20,
        baselines=False,
        progress=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(16, 20), (20, 20)]


def test_bad_requests_are_explained(learner, source):
    with pytest.raises(ValueError, match="at least 2 episodes; found 1"):
        evaluation.evaluate(learner, source, design=DESIGN, episodes=1)
    with pytest.raises(DataError, match="largest way is 8"):
        evaluation.evaluate(learner, source, design=EpisodeDesign(way=9), episodes=2)


def test_calibration_of_an_honest_learner_is_small_and_of_a_boaster_is_not():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(20_000, generator=generator)
    right = torch.rand(20_000, generator=generator) < confidence
    assert evaluation.calibrate(confidence, right).error < 0.02
    boast = evaluation.calibrate(torch.ones(4), torch.tensor([True, False, False, True]))
    assert boast.error == 0.5
    assert boast.answers.tolist() == [0] * 9 + [4]


def test_calibration_over_tasks_counts_every_query(learner, source):
    contest = Contest(source, split="test")
    contest.enter("learner", learner)
    found = evaluation.calibration(contest, DESIGN, episodes=7)
    assert int(found.answers.sum()) == 7 * 3 * 4
    share = found.answers / found.answers.sum()
    accuracy = contest.scores(DESIGN, 7)["learner"].mean()
    assert float(share.double() @ found.accuracy) == pytest.approx(float(accuracy))


def test_scores_by_shot_stop_where_the_data_do(learner, source):
    contest = Contest(source, split="test")
    contest.enter("learner", learner)
    found = evaluation.scores_by_shot(contest, DESIGN, episodes=60)
    assert list(found) == [1, 2, 5]
    assert found[1]["learner"]["mean"] < found[5]["learner"]["mean"]


def test_fixed_pool_is_whole():
    pool = Clusters().clusters
    fixed = FixedPool(pool)
    assert fixed.pool("train") is pool


@pytest.fixture
def regressor() -> MAML:
    torch.manual_seed(0)
    return MAML(VectorEncoder(1, width=8), adapt="head", rate=0.02, steps=2, values=1)


def test_values_are_scored_beside_rules_on_the_same_tasks(regressor):
    design = EpisodeDesign(way=1, shot=4, queries=7)
    world = Sinusoid(noise=0.2)
    found = evaluation.evaluate(regressor, world, design=design, episodes=20, seed=3)
    assert json.loads(json.dumps(found)) == found
    assert found["metric"] == "mean_squared_error"
    assert found["inductive"] is True
    tasks = Episodes(world, "test", design, length=20, seed=3)
    rules = {
        "mean_of_support": lambda episode: episode.support.y.mean(1, keepdim=True),
        "ridge_raw_inputs": ridge_of_support,
        "exact": lambda one: world.exact(one).mean,
    }
    assert set(found["baselines"]) == set(rules)
    for name, rule in rules.items():
        errors = [(rule(tasks[i]) - tasks[i].query.y).square().mean() for i in range(20)]
        mean, ci95 = evaluation.interval(torch.stack(errors))
        kept = {key: found["baselines"][name][key] for key in ("mean", "ci95")}
        assert kept == pytest.approx({"mean": mean, "ci95": ci95}, rel=1e-4)
    own = evaluation.score_tasks(regressor, (tasks[i] for i in range(20)))
    assert found["mean"] == pytest.approx(float(own.mean()), rel=1e-5)
    before = evaluation.score_tasks(regressor, (tasks[i] for i in range(20)), adapted=False)
    assert found["before_adaptation"]["mean"] == pytest.approx(float(before.mean()), rel=1e-5)


def test_values_are_paired_and_can_do_without_rules(regressor):
    design = EpisodeDesign(way=1, shot=4, queries=7)
    options = {"design": design, "episodes": 5, "baselines": False}
    found = evaluation.evaluate(regressor, Sinusoid(), against=regressor, **options)
    assert found["baselines"] == {}
    assert found["paired"] == {"against": "", "difference": 0.0, "ci95": 0.0}


class Guess(NamedTuple):
    value: Tensor


class Bold(Learner):
    """Says of every query that it is the mean of the support's values, give or take some deviation."""

    order_free, additive, inner_loop = True, False, False
    state_type = Guess

    def __init__(self, deviation: float) -> None:
        super().__init__(VectorEncoder(1, width=4, layers=1), Gaussian())
        self.raw = math.log(math.expm1((deviation - 0.01) / 0.99))

    def adapt(self, support, context, state=None):
        return Guess(means(support.y, support.mask))

    def predict(self, state, x, context):
        mean = state.value.expand(-1, x.shape[1], -1)
        return torch.cat([mean, torch.full_like(mean, self.raw)], dim=-1)


def test_who_says_how_sure_it_is_is_compared_with_the_bayes_optimal_answer():
    world, design = Linear(dims=1, noise=0.5), EpisodeDesign(way=1, shot=4, queries=9)
    learner = Bold(deviation=1.5)
    found = evaluation.evaluate(
        learner, world, design=design, episodes=40, seed=3, against=Bold(deviation=0.3)
    )
    assert json.loads(json.dumps(found)) == found
    tasks = Episodes(world, "test", design, tasks=1, length=40, seed=3)
    nats, held, short = [], [], []
    for i in range(40):
        y, guess = tasks[i].query.y.double(), tasks[i].support.y.double().mean()
        own = -0.5 * ((y - guess) / 1.5) ** 2 - math.log(1.5 * math.sqrt(2 * math.pi))
        nats.append(own.mean())
        held.append(((y - guess).abs() < 1.959964 * 1.5).double().mean())
        short.append(world.exact(tasks[i]).log_density.double().mean() - own.mean())
    for name, values in (("log_likelihood", nats), ("coverage", held), ("below_exact", short)):
        mean, ci95 = evaluation.interval(torch.stack(values))
        assert found[name] == pytest.approx({"mean": mean, "ci95": ci95}, rel=1e-4)
    assert found["below_exact"]["mean"] > found["below_exact"]["ci95"]
    exact = found["baselines"]["exact"]
    gap = exact["log_likelihood"]["mean"] - found["log_likelihood"]["mean"]
    assert found["below_exact"]["mean"] == pytest.approx(gap)
    assert exact["coverage"]["mean"] == pytest.approx(0.95, abs=3 * exact["coverage"]["ci95"])
    assert "log_likelihood" not in found["baselines"]["mean_of_support"]
    assert found["paired"]["difference"] == 0
    assert found["paired"]["log_likelihood"]["mean"] > 0


def test_a_joint_answer_is_held_against_the_joint_exact_answer():
    torch.manual_seed(0)
    world, design = GaussianProcess(), EpisodeDesign(way=1, shot=(2, 4), queries=5)
    options = {"values": 1, "width": 8, "layers": 1, "heads": 2}
    found = {}
    for rank in (0, 2):
        learner = TransformerNeuralProcess(RawEncoder(1), rank=rank, **options)
        found[rank] = evaluation.evaluate(learner, world, design=design, episodes=6)
    alone, joint = (each["baselines"]["exact"]["log_likelihood"] for each in found.values())
    tasks = Episodes(world, "test", design, tasks=1, length=6)
    each = torch.cat([world.exact_joint(tasks[i]) for i in range(6)])
    assert joint["mean"] == pytest.approx(float(each.mean()), rel=1e-4)
    assert joint["mean"] > alone["mean"]
    gap = joint["mean"] - found[2]["log_likelihood"]["mean"]
    assert found[2]["below_exact"]["mean"] == pytest.approx(gap)
    assert found[2]["below_exact"]["mean"] > found[2]["below_exact"]["ci95"]
    # Of this world nobody knows how values vary together.
    learner = TransformerNeuralProcess(RawEncoder(1), rank=2, **options)
    short = evaluation.evaluate(learner, Linear(dims=1, noise=0.5), design=design, episodes=3)
    assert short["below_exact"] is None


def test_classes_are_held_against_the_bayes_optimal_answer():
    world, design = Logistic(), EpisodeDesign(way=2, shot=6, queries=8)
    learner = InContext(VectorEncoder(2, width=8, layers=1), width=8, layers=1, heads=2, bank=2)
    found = evaluation.evaluate(learner, world, design=design, episodes=30)
    assert json.loads(json.dumps(found)) == found
    exact = found["baselines"]["exact"]
    gap = exact["log_likelihood"]["mean"] - found["log_likelihood"]["mean"]
    assert found["below_exact"]["mean"] == pytest.approx(gap)
    assert found["below_exact"]["mean"] > found["below_exact"]["ci95"]
    assert "coverage" not in found
    names = ["nearest_mean_raw_inputs", "logistic_raw_inputs", "exact"]
    assert list(found["baselines"]) == names
    for name in names[:2]:
        assert found["baselines"][name]["log_likelihood"]["mean"] < exact["log_likelihood"]["mean"]
    tasks = Episodes(world, "test", design, tasks=1, length=30)
    nats = []
    for i in range(30):
        told = world.exact(tasks[i])[0].gather(1, tasks[i].query.y[0][:, None])
        nats.append(told.double().mean())
    assert exact["log_likelihood"]["mean"] == pytest.approx(float(torch.stack(nats).mean()))
    assert "below Bayes-optimal" in words.headline(found)


def test_without_a_density_nothing_is_said_of_it(regressor):
    """A world without noise has none, and who says numbers alone has none."""
    design = EpisodeDesign(way=1, shot=4, queries=9)
    found = evaluation.evaluate(Bold(1.0), Sinusoid(), design=design, episodes=5)
    assert found["below_exact"] is None
    assert "log_likelihood" in found
    assert set(found["baselines"]["exact"]) == {"mean", "ci95"}
    found = evaluation.evaluate(regressor, Linear(noise=0.1, dims=1), design=design, episodes=5)
    assert not {"log_likelihood", "coverage", "below_exact"} & set(found)


def test_any_number_of_points_can_be_scored_in_a_world(regressor):
    contest = evaluation.contest_of(regressor, Sinusoid())
    found = evaluation.scores_by_shot(contest, EpisodeDesign(1, 3, 30), episodes=6)
    assert list(found) == [1, 2, 5, 10]
    assert found[1]["exact"]["mean"] > 0.01
    assert found[2]["exact"]["mean"] < 1e-6


def test_hidden_support_tells_nothing(learner):
    context = Context(torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 0), torch.zeros(1, 2, 0))
    x, y = torch.randn(1, 2, FEATURES), torch.tensor([[0, 1]])
    episode = contest_module.Episode(
        Examples(x, y, torch.ones(1, 2, dtype=torch.bool)),
        Examples(x, y, torch.ones(1, 2, dtype=torch.bool)),
        context,
    )
    known = evaluation.answer_batch(learner, episode)
    unknown = evaluation.answer_batch(learner, episode, adapted=False)
    assert known.argmax(-1).tolist() == [[0, 1]]
    assert unknown.unique().numel() == 1
