"""FewRel: relations between two things that a sentence names."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from quickstudy.data.corpora import Corpus
from quickstudy.data.published import Published
from quickstudy.data.source import DataError, Split
from quickstudy.data.splitting import assign
from quickstudy.data.text_tasks import LabelledText

HEAD, TAIL = ("[E1]", "[/E1]"), ("[E2]", "[/E2]")
"""Stand around the two things (Baldini Soares et al. 2019, Matching the Blanks)."""

Target = Literal["wiki", "nyt", "semeval"]


def marked(tokens: list[str], head: list[int], tail: list[int]) -> str:
    """A sentence with the two things marked, each at the places of its words.

    >>> marked(["Ada", "wrote", "to", "Charles"], [0], [3])
    '[E1] Ada [/E1] wrote to [E2] Charles [/E2]'
    """
    words = list(tokens)
    for (begin, end), places in ((HEAD, head), (TAIL, tail)):
        words[places[0]] = f"{begin} {words[places[0]]}"
        words[places[-1]] = f"{words[places[-1]]} {end}"
    return " ".join(words)


class FewRel(Corpus):
    """FewRel: sentences of Wikipedia by the relation of two marked things; also tests on news and on SemEval.

    Han et al. 2018, FewRel; Gao et al. 2019, FewRel 2.0. Trains on train_wiki.json where it is there, and otherwise on
    a part of val_wiki.json. A relation that is in the test is in no other split. A thing named more than once is marked
    where it is named first.

    Args:
        path: folder with pid2name.json, val_wiki.json, and those of train_wiki.json, val_nyt.json and val_semeval.json
            that are wanted.
        target: what to test on: ``wiki``, ``nyt`` or ``semeval``.
        validation: share of the training relations held out for validation.
        test: share held out for testing, where training and test are both of val_wiki.json.
        seed: another seed, another split.

    Raises:
        DataError: a file is missing or holds something else; says what to do.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        target: Target = "wiki",
        validation: float = 0.2,
        test: float = 0.2,
        seed: int = 0,
    ) -> None:
        if target not in ("wiki", "nyt", "semeval"):
            raise DataError(f"The target must be wiki, nyt or semeval; found {target!r}.")
        published = Published("fewrel", path)
        if target == "nyt":
            published.note_licence()
        training = "train_wiki" if published.find("train_wiki.json") else "val_wiki"
        tested = f"val_{target}"
        files = {name: published.tree(f"{name}.json") for name in dict.fromkeys((training, tested))}
        names = published.tree("pid2name.json")
        known = sorted(files[training])
        splits: dict[str, Split]
        if training == tested:
            chosen = assign(known, validation=validation, test=test, seed=seed, least=2)
            splits = dict(zip(known, chosen, strict=True))
        else:
            known = [each for each in known if each not in files[tested]]
            chosen = assign(known, validation=validation, test=0.0, seed=seed, least=2)
            splits = dict(zip(known, chosen, strict=True)) | dict.fromkeys(files[tested], "test")
        try:
            called = {relation: names.get(relation, [relation])[0] for relation in splits}
            examples = []
            twice = Counter(called.values())
            for relation, split in splits.items():
                name = called[relation]
                label = name if twice[name] == 1 else f"{name} ({relation})"
                file = tested if split == "test" else training
                examples += _sentences(
                    files[file][relation], label, split, f"{file}.json {relation}"
                )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise published.unlike(f"{training}.json", error) from error
        super().__init__(published, examples, choices={"target": target, "seed": seed})


def _sentences(rows: Any, label: str, split: Split, place: str) -> list[LabelledText]:
    return [
        LabelledText(
            marked(one["tokens"], one["h"][2][0], one["t"][2][0]), label, f"{place} {i}", "", split
        )
        for i, one in enumerate(rows, start=1)
    ]
