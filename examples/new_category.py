"""Tell good from bad reviews in a product category that was never seen, by five of each.

The model is meta-trained on the other categories. Without DATA the reviews are made up; FDU-MTL has real ones.

    python examples/new_category.py runs/reviews
    python examples/new_category.py runs/books fdu_mtl:FOLDER,held_out=books training.minutes=10
"""

import sys
from itertools import product
from pathlib import Path

from quickstudy.build import build_source
from quickstudy.config import RunConfig, with_overrides
from quickstudy.data.draw import EpisodeDesign
from quickstudy.evaluation import evaluate
from quickstudy.training import train

PARTS = {
    "books": "plot ending cover chapter", "films": "cast scene music script",
    "phones": "screen battery camera ring", "shoes": "sole heel lace leather",
    "games": "level sound story board", "lamps": "light shade switch stand",
    "kettles": "lid handle spout cord",
}  # fmt: skip
SAID = {
    "good": "is superb,is a joy,made me happy,works perfectly,is worth every cent",
    "bad": "is awful,is a shame,made me angry,broke at once,is a waste of money",
}


def made_up(file: Path) -> str:
    rows = ["text,label,group,split"]
    for (group, parts), (label, said) in product(PARTS.items(), SAID.items()):
        split = {"kettles": "test", "lamps": "validation"}.get(group, "train")
        for part, how in product(parts.split(), said.split(",")):
            rows.append(f"The {part} {how}.,{label},{group},{split}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(rows), encoding="utf-8")
    return f"text:{file}"


def main(out: str, data: str = "", *overrides: str, queries: int = 10, episodes: int = 300) -> None:
    data = data or made_up(Path(out) / "reviews.csv")
    tasks = ["episode.way=2", "episode.shot=5", "episode.within_group=true"]
    config = with_overrides(RunConfig(data=data, encoder="text"), [*tasks, *overrides])
    artifact = train(config, Path(out))

    source, design = build_source(data), EpisodeDesign(2, 5, queries, within_group=True)
    scores = evaluate(artifact.learner, source, design=design, episodes=episodes)
    seen, new = (sorted({one.group for one in source.parts[s]}) for s in ("train", "test"))
    print(f"Trained on {', '.join(seen)}; tested on {', '.join(new)}:")
    print(f"  by five of each {scores['mean']:.1%} ± {scores['ci95']:.1%} right")
    for name, row in scores["baselines"].items():
        print(f"  {name}: {row['mean']:.1%} ± {row['ci95']:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
