"""Tasks of a step that share their shot: nothing is padded, and who draws them changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quickstudy.config import RunConfig, with_overrides
from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.data.source import DataError, Pool, PoolSource, Split
from quickstudy.data.synthetic import Linear
from quickstudy.episode import leaves, tree_map
from quickstudy.training import train
from quickstudy.training.tasks import Batches, TaskData

DESIGN = EpisodeDesign(1, (2, 6), 3)


def drawn(**options: int) -> Episodes:
    return Episodes(Linear(dims=2), "train", DESIGN, tasks=4, length=20, same_shot=True, **options)


def test_tasks_of_a_batch_share_a_shot_of_the_range_and_nothing_is_padded() -> None:
    episodes = drawn()
    shots = [episodes[i].support.mask.shape[1] for i in range(20)]
    assert set(shots) == {2, 3, 4, 5, 6}
    assert all(episodes[i].support.mask.all() and episodes[i].query.mask.all() for i in range(20))


def test_a_batch_is_a_function_of_its_index() -> None:
    for one, other in zip(leaves(drawn()[7]), leaves(drawn()[7]), strict=True):
        assert torch.equal(one, other)


def test_processes_share_the_same_tasks() -> None:
    which, whole = Batches(drawn(), size=4)[3]
    shares = [Batches(drawn(), size=4, rank=rank, world=2)[3] for rank in range(2)]
    assert which.tolist() == [12, 13, 14, 15]
    assert [share[0].tolist() for share in shares] == [[12, 14], [13, 15]]
    both = tree_map(lambda a, b: torch.stack([a, b], 1).flatten(0, 1), shares[0][1], shares[1][1])
    for one, other in zip(leaves(both), leaves(whole), strict=True):
        assert torch.equal(one, other)


def test_a_run_draws_a_batch_for_each_step() -> None:
    config = with_overrides(
        RunConfig(data="linear", learner="maml", encoder="vector"),
        ["episode.same_shot=true", "episode.shot=[2, 6]", "episode.tasks=4", "training.steps=9"],
    )
    data = TaskData(Linear(), config)
    batches = Batches(data.training, size=4)
    assert len(batches) == 9
    assert batches[8][1].tasks == 4
    assert not data.validation.same_shot


def test_classes_are_refused() -> None:
    with pytest.raises(DataError, match="only where a world invents them"):
        Episodes(Stripes(), "train", EpisodeDesign(2, (1, 3), 2), same_shot=True)


class Stripes(PoolSource):
    """Two classes of five numbers each."""

    kind = "vector"

    def pool(self, split: Split) -> Pool:
        x = torch.arange(10.0)[:, None]
        return Pool(x, torch.tensor([5, 5]), ["a", "b"], torch.zeros(2, dtype=torch.int64), ["all"])


def test_a_run_goes_on_although_a_later_version_knows_more_options(tmp_path: Path) -> None:
    config = with_overrides(
        RunConfig(data="linear", learner="conditional_process", encoder="raw"),
        ["episode.shot=[2, 6]", "episode.tasks=4", "training.steps=2", "validation.every=2"],
    )
    train(config, tmp_path, progress=False)
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint["run"]["config"]["episode"]["same_shot"]
    torch.save(checkpoint, path)
    longer = with_overrides(config, ["training.steps=4"])
    again = train(longer, tmp_path, progress=False, resume=True)
    assert again.facts["training"]["steps"] == 4
