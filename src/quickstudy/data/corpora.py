"""Published corpora of texts, read from the files as their authors laid them out.

Each source says which classes are for training, validation and test. With ``protocol=all``, where a corpus has a
published test part, tasks have all classes instead: support from the training part, queries from the test part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from quickstudy.data.published import Published
from quickstudy.data.source import DataError, Split
from quickstudy.data.splitting import SPLIT_NAMES, assign
from quickstudy.data.text_tasks import LabelledText, Texts, divided

Protocol = Literal["unseen", "all"]
"""Whether tasks of each split have classes of their own, or all classes."""


class Corpus(Texts):
    """A published corpus.

    Args:
        published: its files.
        examples: with the published part of each as ``split``, or that of its class.
        protocol: ``unseen`` or ``all``.
        classes: the split of each group or else of each label, where tasks have classes of their own; those that are
            not there are shared out. ``None`` where the examples say it already.
        choices: the options that were chosen, for the model card.
        shares: ``validation``, ``test`` and ``seed`` of :func:`quickstudy.data.text_tasks.divided`.
        strangers: texts of no class, by split.
    """

    def __init__(
        self,
        published: Published,
        examples: Sequence[LabelledText],
        *,
        protocol: Protocol = "unseen",
        classes: Mapping[str, Split] | None = None,
        choices: Mapping[str, Any],
        shares: Mapping[str, Any] | None = None,
        strangers: Mapping[Split, Sequence[str]] | None = None,
    ) -> None:
        if protocol not in ("unseen", "all"):
            raise DataError(f"The protocol must be unseen or all; found {protocol!r}.")
        if protocol == "unseen" and classes is not None:
            examples = [
                each._replace(split=classes.get(each.group, classes.get(each.label, "")))
                for each in examples
            ]
        super().__init__(
            str(published.folder),
            [each.text for each in examples],
            # Each of these corpora gives a few texts twice, or to two classes.
            divided(
                str(published.folder),
                examples,
                conflicts="drop",
                apart=protocol == "all",
                **(shares or {}),
            ),
            facts=published.facts(**choices),
            strangers=strangers or {},
        )


class Clinc150(Corpus):
    """CLINC150: 150 intents of ten domains; whole domains are held out, and there are texts of no intent.

    Larson et al. 2019, An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction. There is no agreed
    split over intents. Here the domains stand in a circle by the alphabet (auto_and_commute, banking, credit_cards,
    home, kitchen_and_dining, meta, small_talk, travel, utility, work): from number ``rotation`` on, four are for
    training, the next for validation and the last five for the test.

    Args:
        path: folder with data_full.json and domains.json.
        protocol: ``unseen``, or ``all`` for all classes, with support and queries of the published parts.
        rotation: the number of the first training domain, 0 … 9.

    Raises:
        DataError: a file is missing or holds something else; says what to do.
    """

    def __init__(
        self, path: str | None = None, *, protocol: Protocol = "unseen", rotation: int = 0
    ) -> None:
        published = Published("clinc150", path)
        data, domains = published.tree("data_full.json"), published.tree("domains.json")
        strangers: dict[Split, list[str]] = {}
        examples = []
        try:
            domain = {intent: name for name, intents in domains.items() for intent in intents}
            for part, split in (("train", "train"), ("val", "validation"), ("test", "test")):
                rows, place = data[part], f"{published.folder / 'data_full.json'}, {part} "
                examples += [
                    LabelledText(text.strip(), intent, f"{place}{i}", domain[intent], split)
                    for i, (text, intent) in enumerate(rows, start=1)
                ]
                strangers[SPLIT_NAMES[split]] = [text.strip() for text, _ in data[f"oos_{part}"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise published.unlike("data_full.json", error) from error
        names = sorted(domains)
        if not 0 <= rotation < len(names):
            raise DataError(f"rotation must lie between 0 and {len(names) - 1}; found {rotation}.")
        circle = names[rotation:] + names[:rotation]
        held_out = len(names) // 2
        classes: dict[str, Split] = {
            name: "train"
            if place < len(names) - held_out - 1
            else ("test" if place >= len(names) - held_out else "validation")
            for place, name in enumerate(circle)
        }
        super().__init__(
            published,
            examples,
            protocol=protocol,
            classes=classes,
            choices={"protocol": protocol, "rotation": rotation},
            strangers=strangers,
        )


class Banking77(Corpus):
    """BANKING77: 77 intents of one bank; 25 are for training, 25 for validation and 27 for the test.

    Casanueva et al. 2020, Efficient Intent Detection with Dual Sentence Encoders. Several splits of this size
    are about; this one is drawn by the seed.

    Args:
        path: folder with train.csv and test.csv.
        protocol: ``unseen``, or ``all`` for all classes, with support and queries of the published parts.
        seed: another seed, another split.

    Raises:
        DataError: a file is missing or holds something else; says what to do.
    """

    def __init__(
        self, path: str | None = None, *, protocol: Protocol = "unseen", seed: int = 0
    ) -> None:
        published = Published("banking77", path)
        examples = [
            LabelledText(row.cell("text"), row.cell("category"), row.place, "", split)
            for split in ("train", "test")
            for row in published.table(f"{split}.csv", ["text", "category"])
        ]
        labels = sorted({each.label for each in examples})
        chosen = assign(labels, validation=25 / 77, test=27 / 77, seed=seed, least=2)
        super().__init__(
            published,
            examples,
            protocol=protocol,
            classes=dict(zip(labels, chosen, strict=True)),
            choices={"protocol": protocol, "seed": seed},
            shares={"seed": seed},
        )


class Snips(Corpus):
    """SNIPS: seven intents of a voice assistant, of which two are for validation and two for the test.

    Coucke et al. 2018, Snips Voice Platform.

    Args:
        path: folder with train.jsonl, valid.jsonl and test.jsonl, a text and an intent on each line.
        protocol: ``unseen``, or ``all`` for all classes, with support and queries of the published parts.
        validation: share of the intents held out for validation.
        test: share held out for testing; 1 to test on all of them.
        seed: another seed, another split.

    Raises:
        DataError: a file is missing or holds something else; says what to do.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        protocol: Protocol = "unseen",
        validation: float = 0.2,
        test: float = 0.2,
        seed: int = 0,
    ) -> None:
        published = Published("snips", path)
        examples = [
            LabelledText(row.cell("text"), row.cell("intent"), row.place, "", SPLIT_NAMES[part])
            for part in ("train", "valid", "test")
            for row in published.table(f"{part}.jsonl", ["text", "intent"])
        ]
        super().__init__(
            published,
            examples,
            protocol=protocol,
            classes={},
            choices={"protocol": protocol, "seed": seed},
            shares={"validation": validation, "test": test, "seed": seed},
        )


def _as_published(name: str, path: str | None) -> tuple[Published, list[LabelledText]]:
    """A corpus in one file that says itself in which split a class is."""
    published = Published(name, path)
    examples = [
        LabelledText(row.cell("text"), row.cell("label_name"), row.place, "", row.split())
        for row in published.table(f"{name}.jsonl", ["text", "label_name", "split"])
    ]
    return published, examples


class HuffPost(Corpus):
    """HuffPost: headlines of 41 topics, 20 for training, 5 for validation and 16 for the test, as published.

    Misra 2018, News Category Dataset; splits of Bao et al. 2020, Few-shot Text Classification with Distributional
    Signatures.

    Args:
        path: folder with huffpost.jsonl, a text, its label_name and its split on each line.

    Raises:
        DataError: the file is missing or holds something else; says what to do.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(*_as_published("huffpost", path), choices={})


class Reuters(Corpus):
    """Reuters-21578: news stories of 31 topics, 15 for training, 5 for validation and 11 for the test, as published.

    Lewis 1997, Reuters-21578; splits of Bao et al. 2020, Few-shot Text Classification with Distributional Signatures.

    Args:
        path: folder with reuters.jsonl, a text, its label_name and its split on each line.

    Raises:
        DataError: the file is missing or holds something else; says what to do.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(*_as_published("reuters", path), choices={})


class Trec(Corpus):
    """TREC: 50 kinds of questions in six groups; train on things, places and descriptions, test on numbers.

    Li & Roth 2002, Learning Question Classifiers. There is no agreed split over kinds: here ENTY, LOC and DESC are for
    training, HUM and ABBR for validation and NUM for the test.

    Args:
        path: folder with train.jsonl and test.jsonl, a text, its coarse and its fine kind (``COARSE:fine``) on each
            line.
        protocol: ``unseen``, or ``all`` for all classes, with support and queries of the published parts.

    Raises:
        DataError: a file is missing or holds something else; says what to do.
    """

    def __init__(self, path: str | None = None, *, protocol: Protocol = "unseen") -> None:
        published = Published("trec", path)
        examples = [
            LabelledText(
                row.cell("text"),
                fine.partition(":")[2] or fine,
                row.place,
                row.cell("coarse"),
                part,
            )
            for part in ("train", "test")
            for row in published.table(f"{part}.jsonl", ["text", "coarse", "fine"])
            for fine in [row.cell("fine")]
        ]
        held_out: dict[str, Split] = {"HUM": "validation", "ABBR": "validation", "NUM": "test"}
        classes: dict[str, Split] = {each.group: "train" for each in examples}
        super().__init__(
            published,
            examples,
            protocol=protocol,
            classes=classes | held_out,
            choices={"protocol": protocol},
        )


class AgNews(Corpus):
    """AG News: news of four topics, all of them for the test; a training part is needed for ``protocol=all`` only.

    Zhang et al. 2015, Character-level Convolutional Networks for Text Classification.

    Args:
        path: folder with test.jsonl and perhaps train.jsonl, a title, a description and a label_name on each line.
        protocol: ``unseen``, or ``all`` for support and queries of the published parts.
        validation: share of the topics for validation.
        test: share for testing.
        seed: another seed, another split.

    Raises:
        DataError: a file is missing or holds something else; says what to do.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        protocol: Protocol = "unseen",
        validation: float = 0.0,
        test: float = 1.0,
        seed: int = 0,
    ) -> None:
        published = Published("ag_news", path)
        parts = ["train", "test"] if published.find("train.jsonl") else ["test"]
        examples = [
            LabelledText(
                f"{row.cell('title')} {row.record.cells['description'].strip()}",
                row.cell("label_name"),
                row.place,
                "",
                part,
            )
            for part in parts
            for row in published.table(f"{part}.jsonl", ["title", "description", "label_name"])
        ]
        super().__init__(
            published,
            examples,
            protocol=protocol,
            classes={},
            choices={"protocol": protocol, "seed": seed},
            shares={"validation": validation, "test": test, "seed": seed},
        )


class FduMtl(Corpus):
    """FDU-MTL: reviews of products and films, good or bad; each domain is a group, and its two classes are its own.

    Liu et al. 2017, Adversarial Multi-task Learning for Text Classification. Tasks of one domain each are drawn with
    ``episode.within_group``.

    Args:
        path: folder with a file DOMAIN.jsonl for each domain: split, label (0 or 1) and text on each line.
        held_out: a domain, or several with a plus between, to test on them alone: the next one by the alphabet is for
            validation, all others for training.
        protocol: ``unseen``, or ``all`` for all domains, with support and queries of the published parts.
        validation: share of the domains held out for validation, unless one is named.
        test: share held out for testing.
        seed: another seed, another split.

    Raises:
        DataError: a file is missing or holds something else; says what to do.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        held_out: str | None = None,
        protocol: Protocol = "unseen",
        validation: float = 0.2,
        test: float = 0.2,
        seed: int = 0,
    ) -> None:
        published = Published("fdu_mtl", path)
        domains = sorted({file.name.split(".")[0] for file in published.folder.glob("*.jsonl*")})
        if not domains:
            raise published.missing("books.jsonl")
        tested = [] if held_out is None else held_out.split("+")
        if tested and (
            not set(tested) <= set(domains) or len(tested) > len(domains) - 2 or protocol == "all"
        ):
            raise DataError(
                f"Found held_out={held_out} with protocol={protocol}; expected one of {', '.join(domains)}, or some of "
                "them with a plus between that leave two domains or more, with protocol=unseen."
            )
        polarity = {"0": "negative", "1": "positive"}
        examples = []
        for domain in domains:
            for row in published.table(f"{domain}.jsonl", ["split", "label", "text"]):
                label = row.cell("label")
                if label not in polarity:
                    raise DataError(f"{row.place}: found the label {label!r}, expected 0 or 1.")
                text, part = row.cell("text"), row.split()
                examples.append(LabelledText(text, polarity[label], row.place, domain, part))
        classes: dict[str, Split] = {}
        if tested:
            behind = domains.index(max(tested)) + 1
            circle = domains[behind:] + domains[:behind]
            following = next(domain for domain in circle if domain not in tested)
            classes = dict.fromkeys(domains, "train")
            classes[following] = "validation"
            classes.update(dict.fromkeys(tested, "test"))
        super().__init__(
            published,
            examples,
            protocol=protocol,
            classes=classes,
            choices={"protocol": protocol, "held_out": held_out or "by seed", "seed": seed},
            shares={"validation": validation, "test": test, "seed": seed},
        )
