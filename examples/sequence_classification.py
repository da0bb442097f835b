"""Meta-train a text classifier of Hugging Face by second-order MAML; prints its loss on labels not trained on.

python examples/sequence_classification.py roberta-base intents.csv    (or minilm; columns text and label)
"""

import random
import sys

import torch
from torch.func import functional_call
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from quickstudy.data.records import read_records
from quickstudy.episode import Task, collate, take_tasks
from quickstudy.functional import InnerLoop, adapted_names, added_up, descend, over_tasks
from quickstudy.nn.minilm import minilm_folder


def main(name: str, table: str, steps: int = 300, way: int = 3, shot: int = 2) -> None:
    where = minilm_folder() if name == "minilm" else name
    model = AutoModelForSequenceClassification.from_pretrained(where, num_labels=way).eval()
    tokenizer = AutoTokenizer.from_pretrained(where)
    rows = [record.cells for record in read_records(table)]
    words = dict(tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt"))
    labels = sorted({row["label"] for row in rows})
    y = torch.arange(way).repeat_interleave(shot)

    def draw(labels):
        places = [[i for i, row in enumerate(rows) if row["label"] == label] for label in labels]
        chosen = torch.tensor([random.sample(p, 2 * shot) for p in random.sample(places, way)])
        support, query = (take_tasks(words, part.flatten()) for part in chosen.split(shot, dim=1))
        return Task(support, y, query, y, way=way)

    def loss(weights, shared, part):
        return functional_call(model, shared | weights, (), part.x | {"labels": part.y}).loss

    def update(weights, slopes, shared, step):
        return {name: value - 0.05 * slopes[name] for name, value in weights.items()}

    shared = dict(model.named_parameters())
    fast = {name: shared.pop(name) for name in adapted_names(model, "last:1")}

    def query_loss(tasks, inner_steps=5):
        start = {name: value.expand(tasks.tasks, *value.shape) for name, value in fast.items()}
        end = descend(InnerLoop(loss, update, inner_steps), start, shared, tasks.support)
        return over_tasks(lambda w, q: loss(w, shared, q), end, tasks.query, tasks_at_once=1).mean()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    for _ in range(steps):
        tasks = collate([draw([c for c in labels if c not in labels[::3]]) for _ in range(4)])
        optimizer.zero_grad()
        added_up(query_loss, tasks, list(model.parameters()), tasks_at_once=1).backward()
        optimizer.step()
    with torch.no_grad():
        unseen = collate([draw(labels[::3]) for _ in range(20)])
        print(f"Loss {query_loss(unseen, 0):.3f}, {query_loss(unseen):.3f} after adaptation")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
