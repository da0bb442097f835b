"""Tasks without labels, and tasks behind random linear maps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quickstudy.config import parse_config
from quickstudy.data import SOURCES
from quickstudy.data.augment import project_tasks
from quickstudy.data.design import EpisodeDesign, fit_design
from quickstudy.data.draw import Episodes
from quickstudy.data.source import DataError, Pool, PoolSource, Split
from quickstudy.data.synthetic import Sinusoid
from quickstudy.data.unlabelled import Unlabelled, without_labels
from quickstudy.episode import Inputs, leaves
from quickstudy.training import train

DESIGN = EpisodeDesign(way=(2, 4), shot=(1, 3), queries=2)


class Numbered(PoolSource):
    """Forty images, each of its own grey, shared out among classes of these sizes."""

    kind = "image"

    def __init__(self, counts: list[int], *, varied: bool = True) -> None:
        self.counts, self.varied = counts, varied

    def pool(self, split: Split) -> Pool:
        pixels = 6 * torch.arange(40, dtype=torch.uint8)[:, None, None, None]
        names = [str(number) for number in range(len(self.counts))]
        counts = torch.tensor(self.counts)
        return Pool(
            pixels.expand(40, 1, 4, 4), counts, names, torch.zeros(len(names)).long(), ["all"]
        )

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        if not self.varied:
            return x
        return x + torch.randint(3, (len(x), 1, 1, 1), generator=generator, dtype=torch.uint8)


def same(first: Any, second: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True))


def test_labels_are_never_read() -> None:
    ways = [Numbered(counts) for counts in ([20, 20], [1, 3, 36], [4] * 10)]
    drawn = [
        [
            Episodes(Unlabelled(source), "train", DESIGN, tasks=3, length=9, seed=5)[i]
            for source in ways
        ]
        for i in range(9)
    ]
    assert all(same(row[0], other) for row in drawn for other in row[1:])
    assert not same(drawn[0][0], drawn[1][0])


def test_a_class_is_one_example_and_its_variations() -> None:
    episodes = Episodes(Unlabelled(Numbered([40]), mixed=False), "train", DESIGN, tasks=4, length=5)
    for i in range(5):
        support, query, context = episodes[i]
        for task in range(4):
            sources = support.x[task, :, 0, 0, 0] // 6
            for way in range(int(context.classes[task].sum())):
                mine = (support.y[task] == way) & support.mask[task]
                own = sources[mine].unique()
                assert len(own) == 1
                asked = (query.y[task] == way) & query.mask[task]
                assert (query.x[task, asked, 0, 0, 0] // 6 == own).all()
                assert query.mask[task, asked].all()
        assert len(support.x.flatten(2).float().mean(2).unique()) > 12


def test_queries_are_mixed_with_examples_of_no_class_and_remain_the_greater_part() -> None:
    plain, mixed = (Unlabelled(Numbered([40]), mixed=each) for each in (False, True))
    alone, together = (Episodes(source, "train", DESIGN, tasks=50)[0] for source in (plain, mixed))
    assert torch.equal(alone.support.x, together.support.x)
    own, other = alone.query.x.float(), together.query.x.float()
    assert (own != other).float().mean() > 0.9
    # At most half of the way to the largest or smallest grey that there is.
    assert (other >= own / 2 - 1).all()
    assert (other <= own / 2 + 255 / 2 + 1).all()


def test_what_cannot_be_drawn_without_labels_is_named() -> None:
    with pytest.raises(DataError, match="examples that can be varied"):
        without_labels(Numbered([40], varied=False))
    with pytest.raises(DataError, match="invents its tasks"):
        without_labels(Sinusoid())
    with pytest.raises(DataError, match="at least 60 examples; found 40"):
        Episodes(Unlabelled(Numbered([40])), "train", EpisodeDesign(30, 1, 1))[0]
    fitted = fit_design(
        Unlabelled(Numbered([40])), "train",
        way=None, shot=1, queries=None, within_group=False, most_way=20, examples=60,
    )  # fmt: skip
    assert fitted.way == (2, 10)


class Rows(Numbered):
    """Forty rows of six numbers in two classes."""

    kind = "vector"

    def pool(self, split: Split) -> Pool:
        x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
        return Pool(x, torch.tensor([20, 20]), ["a", "b"], torch.zeros(2).long(), ["all"])


def maps(plain: Tensor, projected: Tensor) -> Tensor:
    """The linear map between rows, and how well it explains them."""
    found = torch.linalg.lstsq(plain.double(), projected.double()).solution
    torch.testing.assert_close(plain.double() @ found, projected.double(), rtol=0, atol=1e-4)
    return found


def test_each_task_has_a_map_of_its_own_for_support_and_query() -> None:
    design = EpisodeDesign(way=2, shot=5, queries=5)
    plain = Episodes(Rows([20, 20]), "train", design, tasks=3, seed=4)[0]
    every = Episodes(Rows([20, 20]), "train", design, tasks=3, seed=4, projected=1.0)
    assert same(every[0], every[0])
    assert torch.equal(every[0].support.y, plain.support.y)
    found = []
    for task in range(3):
        pairs = [
            (part.x[task], other.x[task])
            for part, other in zip(plain[:2], every[0][:2], strict=True)
        ]
        found.append(maps(*(torch.cat(each) for each in zip(*pairs, strict=True))))
    assert (found[0] - found[1]).abs().max() > 0.1
    assert (found[1] - found[2]).abs().max() > 0.1
    some = Episodes(Rows([20, 20]), "train", design, tasks=200, projected=0.25)[0]
    bare = Episodes(Rows([20, 20]), "train", design, tasks=200)[0]
    kept = (some.support.x == bare.support.x).flatten(1).all(1)
    assert 0.6 < kept.float().mean() < 0.9


def test_projected_pixels_are_grey_images_that_differ_as_their_sources_did() -> None:
    source = Numbered([20, 20])
    episode = Episodes(source, "train", EpisodeDesign(2, 8, 4), tasks=2, projected=1.0)[0]
    x = episode.support.x
    assert x.dtype == torch.uint8
    assert x.shape == (2, 16, 1, 4, 4)
    assert (x.float().std(dim=(1, 2, 3, 4)) - 51).abs().max() < 8
    plain = Episodes(source, "train", EpisodeDesign(2, 8, 4), tasks=2)[0].support.x
    order = plain[0, :, 0, 0, 0].argsort()
    moved = x[0, order].flatten(1).float()
    steps = (moved[1:] - moved[:-1]).norm(dim=1)
    assert steps.max() < (moved[-1] - moved[0]).norm()


def test_words_cannot_be_projected() -> None:
    episode = Episodes(Rows([20, 20]), "train", EpisodeDesign(2, 1, 1))[0]
    words = episode.support._replace(x=torch.zeros(1, 2, 3, dtype=torch.int64))
    with pytest.raises(DataError, match="images or rows of numbers"):
        project_tasks(episode._replace(support=words), 1.0, torch.Generator())


def test_a_training_without_labels_and_behind_maps_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "numbered", partial(Numbered, [40]))
    design = {"way": 4, "shot": 1, "queries": 2}
    config = parse_config(
        {
            "data": "numbered",
            "learner": {"name": "protonet", "distance": "euclidean"},
            "encoder": {"name": "raw", "inputs": 16},
            "episode": {**design, "labels": "none", "projected": 0.5},
            "validation": {**design, "episodes": 4},
            "training": {"steps": 3},
        }
    )
    artifact = train(config, tmp_path, progress=False)
    assert artifact.facts["data"]["labels"] == "none"
    assert artifact.scores["validation"]["mean"] > 0.5
