"""Episodes drawn per second, from 1,623 classes of 20 images of 28 x 28 pixels, 16 episodes at a time.

The contender is the design of the other libraries, written as tightly as that design allows: a data set that is asked
for one example at a time, a sampler that names them, and a collate function. The best figures published for such
libraries on a machine of this kind, 860 (5-way 1-shot, 15 queries) and 217 (20-way 5-shot) episodes a second, are kept
beside it.
"""

from __future__ import annotations

import torch

from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.data.source import Pool, PoolSource, Split
from record import interleaved, record

CLASSES, EXAMPLES, TASKS = 1623, 20, 16
PEERS = {(5, 1): 860.0, (20, 5): 217.0}


class Noise(PoolSource):
    """Images of noise, as many as Omniglot has."""

    kind = "image"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (CLASSES * EXAMPLES, 1, 28, 28)
        self.fixed = Pool(
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            torch.full((CLASSES,), EXAMPLES),
            [str(number) for number in range(CLASSES)],
            torch.zeros(CLASSES, dtype=torch.int64),
            ["all"],
        )

    def pool(self, split: Split) -> Pool:
        return self.fixed


class OneAtATime(torch.utils.data.Dataset):
    """An image and its label for each number."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index].float() / 255, index // EXAMPLES

    def __len__(self) -> int:
        return len(self.images)


def one_at_a_time(images: torch.Tensor, way: int, shot: int, queries: int):
    """Batches of episodes by a sampler, a data set and a collate function."""
    each = shot + queries
    generator = torch.Generator().manual_seed(0)

    def numbers():
        while True:
            classes = torch.randperm(CLASSES, generator=generator)[:way].tolist()
            yield [
                which * EXAMPLES + example
                for which in classes
                for example in torch.randperm(EXAMPLES, generator=generator)[:each].tolist()
            ]

    def collate(samples):
        x = torch.stack([image for image, _ in samples]).view(way, each, 1, 28, 28)
        y = torch.arange(way)[:, None].expand(way, each)
        return (
            x[:, :shot].flatten(0, 1),
            y[:, :shot].flatten(),
            x[:, shot:].flatten(0, 1),
            y[:, shot:].flatten(),
        )

    episodes = iter(
        torch.utils.data.DataLoader(
            OneAtATime(images), batch_sampler=numbers(), collate_fn=collate, num_workers=0
        )
    )
    return lambda: [
        torch.stack(part) for part in zip(*(next(episodes) for _ in range(TASKS)), strict=True)
    ]


def main() -> None:
    torch.set_num_threads(1)
    source = Noise()
    figures = {}
    for way, shot in PEERS:
        drawn = Episodes(source, "train", EpisodeDesign(way, shot, 15), tasks=TASKS, length=10**9)
        index = iter(range(10**9))
        seconds = interleaved(
            {
                "quickstudy": lambda drawn=drawn, index=index: drawn[next(index)],
                "one_at_a_time": one_at_a_time(source.fixed.x, way, shot, 15),
            }
        )
        rates = {name: TASKS / each for name, each in seconds.items()}
        figures[f"{way}-way {shot}-shot 15-query"] = {
            "episodes_per_second": rates,
            "times_one_at_a_time": rates["quickstudy"] / rates["one_at_a_time"],
            "times_best_published_peer": rates["quickstudy"] / PEERS[way, shot],
            "best_published_peer": PEERS[way, shot],
        }
    record("sampling", {"tasks_at_once": TASKS, "threads": 1, "designs": figures})


if __name__ == "__main__":
    main()
