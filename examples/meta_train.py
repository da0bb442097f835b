"""Meta-train on letters, score on scripts never seen, and draw a report.

python examples/meta_train.py runs/letters
python examples/meta_train.py runs/quick training.steps=200 encoder.width=32
"""

import sys
from pathlib import Path

from quickstudy.build import build_source
from quickstudy.config import RunConfig, with_overrides
from quickstudy.data.draw import EpisodeDesign
from quickstudy.evaluation import contest_of, evaluate
from quickstudy.report import write_report
from quickstudy.training import train


def main(out: str, *overrides: str, episodes: int = 600) -> None:
    config = with_overrides(RunConfig(data="glyphs", learner="protonet"), overrides)
    artifact = train(config, Path(out))

    source = build_source(config.data)
    # One contest for all evaluations: every example passes through every encoder once.
    contest = contest_of(artifact.learner, source)
    evaluations = []
    for within_group in (False, True):
        design = EpisodeDesign(way=20, shot=1, queries=5, within_group=within_group)
        scores = evaluate(
            artifact.learner, source, design=design, episodes=episodes, contest=contest
        )
        evaluations.append(scores)
        where = "within a script" if within_group else "across scripts"
        print(f"20-way 1-shot {where}: {scores['mean']:.1%} ± {scores['ci95']:.1%}")
        for name, row in scores["baselines"].items():
            print(f"  {name}: {row['mean']:.1%} ± {row['ci95']:.1%}")

    report = Path(out) / "report.html"
    write_report(
        report,
        artifact=artifact,
        evaluations=evaluations,
        run=out,
        source=source,
        contest=contest,
        episodes=min(100, episodes),
    )
    print(f"The report is {report}.")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
