"""Second-order MAML through LoRA adapters on MiniLM: peak of memory and time against an unrolled graph.

One 5-way 1-shot task of texts of 16 to 32 words with five queries a class; five inner steps move adapters of rank 8 on
every linear map, and the head. The naive way is what one writes by hand: the graph of all steps through the whole model
by plain autograd, and all queries at once. The peak is what the process holds at most above what it held before,
weights included there, each time in a fresh process; the time is processor time of one thread.

python benchmarks/lora_memory.py [--smoke]        (needs the extras minilm and lora)
"""

from __future__ import annotations

import argparse
import json
import random

import torch
from torch import Tensor, nn

from memory import peak_elsewhere, peak_of
from peers import Gradient, plain_loop
from quickstudy.episode import Context, Episode, Examples
from quickstudy.functional import exact_derivatives
from quickstudy.learners.gradient import MAML
from quickstudy.nn.pretrained import HuggingFaceEncoder
from record import interleaved, record

WAY, QUERIES, STEPS, RATE, RANK = 5, 5, 5, 0.05, 8
WORDS = (16, 32)
TOPICS = (
    "card bank money account transfer cash fee pay loan credit branch balance",
    "rain snow wind cloud storm sun cold warm summer winter forecast degrees",
    "flight hotel train ticket airport luggage visa passport seat trip beach map",
    "song band guitar album singer piano concert music drum chorus opera radio",
    "soup bread cheese oven salt pepper dinner recipe onion garlic butter lunch",
)
COMMON = "the a my your please is are can you when how what with for to of and in on it"
OURS = ("unroll", "sweep", "sqrt")


def text_of(topic: str, random_number: random.Random) -> str:
    kinds, length = (topic.split(), COMMON.split()), random_number.randint(*WORDS)
    return " ".join(random_number.choice(random_number.choice(kinds)) for _ in range(length))


def draw_task(encoder: HuggingFaceEncoder, way: int, queries: int) -> Episode:
    generator = random.Random(0)

    def examples(each: int) -> Examples:
        y = torch.arange(way).repeat_interleave(each)
        texts = [text_of(TOPICS[label], generator) for label in y.tolist()]
        x = encoder.tokenize(texts)
        return Examples(x[None], y[None], torch.ones(1, len(y), dtype=torch.bool))

    context = Context(torch.ones(1, way) == 1, torch.zeros(1, 0), torch.zeros(1, way, 0))
    return Episode(examples(1), examples(queries), context)


def contender(way_of: str, steps: int, way: int = WAY, queries: int = QUERIES) -> Gradient:
    torch.manual_seed(0)
    encoder = HuggingFaceEncoder("minilm", lora=RANK, words=64).eval()
    episode = draw_task(encoder, way, queries)
    if way_of != "naive":
        maml = MAML(encoder, adapt="lora", rate=RATE, steps=steps, strategy=way_of)
        parameters = [value for value in maml.parameters() if value.requires_grad]
        return lambda: list(torch.autograd.grad(maml(episode), parameters))
    head = nn.Linear(encoder.width, way)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    tasks = [tuple(part[0] for part in (*episode.support[:2], *episode.query[:2]))]
    gradient = plain_loop(nn.Sequential(encoder, head), tasks, steps, rate=RATE)

    def exact() -> list[Tensor]:
        with exact_derivatives():
            return gradient()[: len(adapters)]

    adapters = [value for value in encoder.parameters() if value.requires_grad]
    return exact


def peak(way_of: str, steps: int) -> float:
    """Bytes, in this process."""
    contender(way_of, 2, way=2, queries=1)()  # what is set up once does not count
    gradient = contender(way_of, steps)
    return peak_of(gradient)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="two steps, once, and keep nothing")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.point:
        print(peak(*chosen.point))
        return
    steps, rounds = (2, 1) if chosen.smoke else (STEPS, 3)
    ways = ("naive", *OURS)
    calls = {way: contender(way, steps) for way in ways}
    right = torch.cat([value.flatten() for value in calls["naive"]()])
    errors = {}
    for way in OURS:
        found = torch.cat([value.flatten() for value in calls[way]()])
        errors[way] = ((found - right).norm() / right.norm()).item()
    seconds = interleaved(calls, rounds=rounds)
    peaks = {way: peak_elsewhere(way, steps, rounds=rounds) for way in ways}
    record(
        "lora_memory",
        {
            "threads": 1,
            "clock": "processor time",
            "model": "all-MiniLM-L6-v2 with LoRA of rank 8 on every linear map",
            "task": {"way": WAY, "shot": 1, "queries": QUERIES, "words": WORDS, "rate": RATE},
            "steps": steps,
            "relative_error_in_float32": errors,
            "peak_megabytes": {way: value / 1e6 for way, value in peaks.items()},
            "seconds": seconds,
            "share_of_naive_memory": {way: peaks[way] / peaks["naive"] for way in OURS},
            "times_naive_seconds": {way: seconds[way] / seconds["naive"] for way in OURS},
        },
        keep=not chosen.smoke,
    )


if __name__ == "__main__":
    main()
