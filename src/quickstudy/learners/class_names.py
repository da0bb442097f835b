"""Names of classes as examples of them, for encoders that read names as they read examples."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate
from quickstudy.nn.words import present


def check_reads_names(encoder: nn.Module) -> None:
    """Check that an encoder reads names.

    Raises:
        ValueError: it does not; says which does.
    """
    if not hasattr(encoder, "tokenize"):
        raise ValueError(
            f"A name is one more example of its class only to an encoder of texts, which {type(encoder).__name__} "
            "is not; leave names out, or choose the encoder text or the learner meta_transformer."
        )


def named_examples(
    context: Context, embed: Callable[[Inputs], Tensor], *, known: int = 0
) -> Examples | None:
    """An example (task, class) for each class: its name, embedded, where it has one; None where nobody has any.

    Args:
        context: of the tasks.
        embed: (task, example, …) to (task, example, width).
        known: the number of the first classes whose names have been counted before.

    >>> names = torch.tensor([[[3.0, 4.0], [-1.0, -1.0]]])
    >>> context = Context(torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 0), names)
    >>> found = named_examples(context, lambda x: x)
    >>> found.y.tolist(), found.mask.tolist()
    ([[0, 1]], [[True, False]])
    """
    names, classes = context.names[:, known:], context.classes[:, known:]
    if not names.numel():
        return None
    numbers = torch.arange(known, context.classes.shape[1], device=classes.device)
    return Examples(embed(names), numbers.expand_as(classes), classes & present(names))


def and_names(
    examples: Examples,
    context: Context,
    embed: Callable[[Inputs], Tensor],
    weight: Tensor | None,
    *,
    known: int = 0,
    many: bool = False,
) -> Examples:
    """Examples whose mask says for how many each counts, and before them the names of classes, each for w.

    Args:
        examples: embedded, as names will be.
        context: of the tasks.
        embed: (task, example, …) to (task, example, width).
        weight: w; None where names do not count.
        known: the number of the first classes whose names have been counted before.
        many: an example has any number of labels.

    >>> names, y = torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 0, dtype=torch.int64)
    >>> context = Context(torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 0), names)
    >>> none = Examples(torch.zeros(1, 0, 2), y, torch.zeros(1, 0))
    >>> and_names(none, context, lambda x: x, torch.tensor(2.0)).mask.tolist()
    [[2.0]]
    """
    if weight is None:
        return examples
    named = (named_labels if many else named_examples)(context, embed, known=known)
    if named is None:
        return examples
    return concatenate(named._replace(mask=weight * named.mask), examples)


def named_labels(
    context: Context, embed: Callable[[Inputs], Tensor], *, known: int = 0
) -> Examples | None:
    """The same where an example may have any number of labels: a name has its own and no other.

    >>> names = torch.tensor([[[3.0, 4.0], [1.0, 1.0]]])
    >>> context = Context(torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 0), names)
    >>> named_labels(context, lambda x: x, known=1).y.tolist()
    [[[0.0, 1.0]]]
    """
    named = named_examples(context, embed, known=known)
    if named is None:
        return None
    return named._replace(y=F.one_hot(named.y, context.classes.shape[1]).to(named.x.dtype))
