"""Pools that keep support and queries apart, bring their support sets, or know examples of no class."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_source import Numbered, same

from quickstudy.build import build_source
from quickstudy.data.design import EpisodeDesign, check_design, fit_design
from quickstudy.data.draw import Episodes
from quickstudy.data.leopard import Leopard
from quickstudy.data.source import DataError, DataNote, Pool
from quickstudy.evaluation import asking, evaluate
from quickstudy.evaluation.asking import and_strangers, ask
from quickstudy.evaluation.contest import EncodedPool
from quickstudy.evaluation.unknown import evaluate_unknown, fit_rejection
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import RawEncoder
from tiny_corpora import Letters, clinc150, leopard, lines, spoken


class Apart(Numbered):
    """Some of the last examples of each class are for queries only."""

    def __init__(self, counts: list[tuple[int, int]]) -> None:
        super().__init__([sum(each) for each in counts])
        old = self.fixed
        self.fixed = Pool(
            old.x,
            old.counts,
            old.class_names,
            old.groups,
            old.group_names,
            asked=torch.tensor([asked for _, asked in counts]),
        )


@given(
    counts=st.lists(st.tuples(st.integers(2, 6), st.integers(2, 6)), min_size=3, max_size=8),
    shots=st.tuples(st.integers(0, 1), st.integers(1, 2)),
    queries=st.integers(1, 2),
    seed=st.integers(0, 100),
)
def test_support_never_holds_a_row_of_the_queries(
    counts: list[tuple[int, int]], shots: tuple[int, int], queries: int, seed: int
) -> None:
    source = Apart(counts)
    tasks = Episodes(
        source, "test", EpisodeDesign((2, 3), shots, queries), tasks=4, length=2, seed=seed
    )
    classes, support, query = tasks.drawn(1)[:3]
    first = source.fixed.starts[classes][..., None]
    shown = torch.tensor([each for each, _ in counts])[classes][..., None]
    whole = source.fixed.counts[classes][..., None]
    assert ((support >= first) & (support < first + shown)).all()
    assert ((query >= first + shown) & (query < first + whole)).all()
    for rows in (*support.flatten(0, 1).tolist(), *query.flatten(0, 1).tolist()):
        assert len(set(rows)) == len(rows)
    assert same(tasks[1], tasks[1])


def test_each_row_is_drawn_on_its_side() -> None:
    source = Apart([(3, 4), (5, 2)])
    tasks = Episodes(source, "test", EpisodeDesign(2, 2, 1), tasks=50, length=1)
    _, support, query = tasks.drawn(0)[:3]
    assert set(support.flatten().tolist()) == {0, 1, 2, 7, 8, 9, 10, 11}
    assert set(query.flatten().tolist()) == {3, 4, 5, 6, 12, 13}


def test_classes_that_nobody_can_ask_about_are_left_out() -> None:
    source = Apart([(5, 0), (5, 3), (1, 3), (5, 3)])
    assert source.fixed.enough(2, 2).tolist() == [False, True, False, True]
    classes, _, _ = Episodes(source, "test", EpisodeDesign(2, 2, 2), tasks=20, length=1).drawn(0)[
        :3
    ]
    assert set(classes.flatten().tolist()) == {1, 3}
    with pytest.raises(DataError, match="need 3 classes of at least 4 examples; found 2"):
        check_design(source, "test", EpisodeDesign(3, 2, 2))
    open_way = {"way": None, "within_group": False, "most_way": 1, "examples": 1, "queries": None}
    assert fit_design(source, "test", shot=2, **open_way) == EpisodeDesign(2, 2, 1)  # type: ignore[arg-type]


def test_an_encoded_pool_keeps_what_lies_apart() -> None:
    pool = Apart([(3, 4), (5, 2)]).fixed
    encoded = EncodedPool(pool, RawEncoder(2), "cpu").fixed
    assert torch.equal(encoded.asked, pool.asked)


@given(
    ways=st.tuples(st.integers(2, 3), st.integers(0, 2)),
    count=st.integers(1, 9),
    seed=st.integers(0, 20),
)
def test_strangers_come_behind_the_queries_and_none_again_before_all_have_come(
    ways: tuple[int, int], count: int, seed: int
) -> None:
    design = EpisodeDesign((ways[0], sum(ways)), 2, 2)
    tasks = Episodes(Apart([(4, 4)] * 5), "test", design, tasks=3, length=2, seed=seed)
    strangers = torch.stack([torch.arange(count) + 0.5, torch.full((count,), 5.0)], 1)
    met: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "STRANGERS", 4)
        for number in range(2):
            asked, known = and_strangers(tasks[number], strangers, 3 * number)
            assert torch.equal(asked.support.x, tasks[number].support.x)
            assert torch.equal(known & asked.query.mask, known)
            assert torch.equal(known.sum(1), tasks[number].query.mask.sum(1))
            beside = asked.query.mask & ~known
            assert beside.sum(1).tolist() == [min(4, count)] * 3
            assert (asked.query.x[beside][:, 1] == 5).all()
            met += asked.query.x[beside][:, 0].tolist()
    often = [met.count(row + 0.5) for row in range(count)]
    assert max(often) - min(often) <= 1


def test_texts_of_no_intent_are_asked_in_place_of_classes_left_out(tmp_path: Path) -> None:
    clinc150(tmp_path / "c")
    source = build_source(f"clinc150:{tmp_path / 'c'}")

    class Bytes(RawEncoder):
        """The first letters of a text: where it begins alike, it is of one domain."""

        kind = "text"
        tokenize = Letters.tokenize

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :6].float()

    learner = ProtoNet(Bytes(6))
    design = EpisodeDesign(2, 2, 2)
    asked = ask(learner, source, split="test", design=design, episodes=8)
    assert asked.out_of_scope
    assert asked.known.sum(1).tolist() == [4] * 8
    assert (asked.asked & ~asked.known).sum(1).tolist() == [10] * 8
    rejection = fit_rejection(learner, source, design=design, episodes=20, score="similarity")
    found = evaluate_unknown(learner, source, rejection, design=design, episodes=20)
    assert found["asked"] == "out_of_scope"
    assert found["auroc"]["mean"] > 0.9  # «stranger» begins unlike every domain
    assert Numbered([5, 5]).strangers("test") is None


@pytest.fixture
def pairs(tmp_path: Path) -> Leopard:
    leopard(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Licence", DataNote)
        source = Leopard(str(tmp_path), task="pairs")
    source.prepare(Letters())
    return source


def test_each_support_set_is_a_task_and_all_queries_are_asked(pairs: Leopard) -> None:
    design = fit_design(
        pairs, "test", way=None, shot=2, queries=None, within_group=False, most_way=2, examples=9
    )
    assert (design.way, design.queries) == (3, 6)
    tasks = Episodes(pairs, "test", design, length=3)
    for number in range(3):
        episode = tasks[number]
        assert episode.query.mask.sum() == 4 + 5 + 6
        for examples, kind in ((episode.support, f"shown 2 {number}"), (episode.query, "asked")):
            label_of: dict[int, set[str]] = {}
            seen = set()
            rows = zip(examples.x[0], examples.y[0].tolist(), examples.mask[0], strict=True)
            for text, y, there in rows:
                if there:
                    said = spoken(text).removeprefix("is it : ")
                    assert kind in said
                    label_of.setdefault(y, set()).add(said[0])
                    seen.add(said)
            assert sorted(label_of.values(), key=min) == [{"a"}, {"b"}, {"c"}]
            assert len(seen) == int(examples.mask.sum())
    two = Episodes(pairs, "test", design, tasks=3)[0]
    assert {spoken(text).split()[3] for text in two.support.x[2]} == {"2"}


def test_fewer_queries_are_drawn_if_asked_for(pairs: Leopard) -> None:
    episode = Episodes(pairs, "test", EpisodeDesign(3, 1, 2), length=2)[1]
    assert episode.query.mask.shape == (1, 6)
    assert episode.query.mask.all()


def test_no_more_tasks_than_there_are(pairs: Leopard) -> None:
    with pytest.raises(DataError, match="There are 2 fixed tasks of shot 1; found 3 to be drawn"):
        Episodes(pairs, "test", EpisodeDesign(3, 1, 2), length=3)
    with pytest.raises(DataError, match="3 classes with 1, 2 examples each"):
        Episodes(pairs, "test", EpisodeDesign(3, 4, 2))
    with pytest.raises(DataError, match="Found 2-way 1-shot tasks"):
        check_design(pairs, "test", EpisodeDesign(2, 1, 2))
    with pytest.raises(DataError, match=r"The train split of .* is empty"):
        pairs.pool("train")


def test_a_learner_is_scored_on_the_fixed_tasks(pairs: Leopard) -> None:
    class FirstLetter(RawEncoder):
        """Tells the classes by heart: a text's first letter behind «is it : »."""

        kind = "text"
        tokenize = Letters.tokenize

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            at = torch.where(x[:, 0] == ord("i"), x[:, 8], x[:, 0])
            return (at[:, None] == torch.tensor([ord(letter) for letter in "abc"])).float()

    found = evaluate(
        ProtoNet(FirstLetter(3)),
        pairs,
        design=EpisodeDesign(3, 2, 6),
        episodes=600,
        baselines=False,
    )
    assert (found["episodes"], found["mean"], found["queries"]) == (3, 1.0, 6)


def test_support_sets_are_as_published(tmp_path: Path) -> None:
    def read(rows: list[dict[str, str]], task: str = "x") -> None:
        lines(tmp_path / "x.jsonl", rows)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Licence", DataNote)
            Leopard(str(tmp_path), task=task)

    asked = [{"split": "eval", "label": label, "text": label} for label in "ab"]
    shown = [{"split": "train_1shot_0", "label": label, "text": f"{label}1"} for label in "ab"]
    read([*asked, *shown])
    with pytest.raises(
        DataError, match=r"train_1shot_0 holds {'a': 1}; expected 1 of each of a, b"
    ):
        read([*asked, shown[0]])
    with pytest.raises(DataError, match="line 3: found the split 'dev'"):
        read([*asked, {**shown[0], "split": "dev"}])
    with pytest.raises(DataError, match="1 classes to ask about and 1 support sets"):
        read([asked[0], shown[0]])
    with pytest.warns(DataNote, match="1 texts are in a support set and asked about as well"):
        read([*asked, shown[0], {**shown[1], "text": "b"}])
    with pytest.raises(DataError, match=r"There is no task 'y' in .*; those there are: x"):
        read(asked, "y")
