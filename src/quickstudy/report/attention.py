"""What an answer looked at: how a query's attention is shared among the examples that the model was given."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import torch

from quickstudy.report import figures, page, words

if TYPE_CHECKING:
    from quickstudy.report.drawn import Drawn
    from quickstudy.report.functions import DrawnFunction

MOST = 5
"""Examples that are listed for a question."""


def of_classes(drawn: Drawn) -> str:
    """Cards with what a few questions looked at; empty where nothing attends."""
    if drawn.attention is None:
        return ""
    own = torch.arange(len(drawn.class_names))[:, None]
    wrong = (drawn.answers != own).nonzero().tolist()
    right = (drawn.answers == own).nonzero().tolist()
    # Classes differ most between the first and the last.
    chosen = right[:1] + right[-1:][: len(right) > 1] + wrong[:1]
    note = (
        f"How a few of these questions share their attention among the examples, the {MOST} that got most: the mean "
        "over layers and heads, without what a question gives to itself."
    )
    cards = "".join(_of_query(drawn, *each) for each in chosen)
    return page.section("What an answer looked at", note, f'<div class="cards">{cards}</div>')


def _of_query(drawn: Drawn, c: int, query: int) -> str:
    assert drawn.attention is not None
    shares = drawn.attention[c, query]
    examples = [(c, each) for c, row in enumerate(drawn.support) for each in row]
    rows = []
    for place in shares.argsort(descending=True)[:MOST].tolist():
        of, example = examples[place]
        share = float(shares[place])
        own = " own" if of == c else ""
        rows.append(
            f'<div class="bar{own}"><b class="row">{_shown(example)} {escape(drawn.class_names[of])}</b>'
            f'<span class="track"><span style="width:{100 * share:.1f}%"></span></span>'
            f"<i>{words.share(share)}</i></div>"
        )
    answer = int(drawn.answers[c, query])
    said = "right" if answer == c else "wrong"
    return (
        f'<figure class="card"><h3 class="row">{_shown(drawn.queries[c][query])} {escape(drawn.class_names[c])}</h3>'
        f"<figcaption>Answered: {escape(drawn.class_names[answer])}, which is {said}.</figcaption>"
        f'<div class="bars">{"".join(rows)}</div></figure>'
    )


def _shown(example: str) -> str:
    """An example as HTML, a picture in its frame."""
    return f'<span class="tile">{example}</span>' if example.startswith("<img") else example


def of_function(drawn: DrawnFunction) -> str:
    """A card with how questions at a few places share their attention; empty where nothing attends to a line."""
    if drawn.attention is None or drawn.queries.shape[1] != 1:
        return ""
    count = len(drawn.queries)
    chosen = [count // 6, count // 2, count - 1 - count // 6]
    legend = "".join(
        f'<li style="--swatch:var(--{figures.series(i)})">a question at {float(drawn.queries[place, 0]):.2g}</li>'
        for i, place in enumerate(chosen)
    )
    return (
        '<figure class="card"><h3>What an answer looked at</h3><figcaption>How the questions at the dashed lines share '
        "their attention among the examples, which stand where their x is: the mean over layers and heads."
        f'</figcaption>{figures.attention_chart(drawn, chosen)}<ul class="legend">{legend}</ul></figure>'
    )
