"""Fine-tuning: for each task the encoder itself goes on learning, from where meta-training left it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import (
    NO_LABEL,
    Context,
    Episode,
    Examples,
    Inputs,
    concatenate,
    labelled,
    leaves,
    take_tasks,
    tree_map,
)
from quickstudy.functional import Weights, adapted_names, full_precision, over_tasks, widened
from quickstudy.learners.base import Learner
from quickstudy.learners.class_names import and_names, check_reads_names
from quickstudy.learners.metric import (
    UNSEEN,
    log_temperature_of,
    named_prototypes,
    prototype_logits,
)
from quickstudy.learners.semi_supervised import fit_semi_supervised
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder

WARMUP = 0.1
"""Share of the steps in which the rate rises."""


class FineTuning(Learner):
    """The encoder is trained on the support of each task, then a linear head is fitted to its features.

    Meta-training makes prototypes good: it descends the loss of ``τ cos(f_θ(x), p_c)``. A task begins at θ and at
    heads ``w_c = p_c``, and goes over its support some times, in batches, by AdamW (Loshchilov & Hutter 2019) on
    ``-log softmax(κ cos(f_θ(x), w))_y``; the rate rises for a tenth of the steps and falls to nothing. At last, a
    logistic regression is fitted to the unit features of the support, as by
    :class:`quickstudy.learners.closed_form.LinearHead`; it alone learns from examples without a label.

    Hu et al. 2022, Pushing the Limits of Simple Pipelines for Few-Shot Learning (pre-train, meta-train, fine-tune).
    Differs from the paper: the support itself is what is trained on, not copies of it that were altered; the head is
    trained beside the encoder and then fitted anew; the rate is an option, not chosen among some for each task.

    Nothing is drawn at random but by ``seed``, and examples are taken in an order of their own, so the same support
    gives the same answers in whatever order it comes. The state keeps the support beside the weights: learning more is
    learning all of it anew, from where meta-training left off. It takes seconds to minutes where other learners take
    milliseconds, and pays where the classes of a task differ in what the encoder has not been trained to tell.

    Args:
        encoder: maps an example to a vector.
        adapt: which parameters of the encoder are trained (:func:`quickstudy.functional.adapted_names`); a frozen one
            never is.
        passes: over the support.
        batch: examples of a step.
        rate: highest rate of the encoder's parameters; None takes 1e-3 where only adapters of LoRA are trained, which
            begin at nothing, and else 1e-4.
        head_rate: of the heads that are trained beside it.
        temperature: initial τ, of meta-training, which learns it.
        sharpness: κ / ln N in a task of N classes. A low one leaves something to learn where all examples are told
            apart; with more classes there is more to be told apart from.
        penalty: of the logistic regression.
        names: the name of a class that has one counts for w examples of it, w learned, 1 at first; the encoder must
            read texts.
        seed: of the order of the examples and of dropout.

    Raises:
        ValueError: an option is out of range, ``adapt`` matches no parameter, or names for an encoder that does not
            read any.

    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> x, y = torch.tensor([[[-1.0], [1.0]]]), torch.tensor([[0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 2, dtype=torch.bool))
    >>> context = Context(torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = FineTuning(VectorEncoder(1, width=8, layers=1), passes=2)
    >>> learner.predict(learner.adapt(support, context), x, context).argmax(-1)
    tensor([[0, 1]])
    """

    order_free = True
    additive = True
    inner_loop = True
    grows = True
    semi_supervised = True
    state_type = dict

    def __init__(
        self,
        encoder: Encoder,
        *,
        adapt: str = "all",
        passes: int = 8,
        batch: int = 32,
        rate: float | None = None,
        head_rate: float = 1e-3,
        temperature: float = 10.0,
        sharpness: float = 3.0,
        penalty: float = 0.1,
        names: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, Categorical())
        self.tuned = adapted_names(encoder, adapt)
        if rate is None:
            rate = 1e-3 if all("lora_" in name for name in self.tuned) else 1e-4
        for name, count in {"passes": passes, "batch": batch}.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1; found {count}.")
        positive = {
            "rate": rate,
            "head_rate": head_rate,
            "sharpness": sharpness,
            "penalty": penalty,
        }
        for name, value in positive.items():
            if value <= 0:
                raise ValueError(f"The {name} must be positive; found {value}.")
        self.passes, self.batch, self.seed = passes, batch, seed
        self.rate, self.head_rate, self.penalty = rate, head_rate, penalty
        self.sharpness = sharpness
        self.log_temperature = log_temperature_of(temperature)
        self.log_name_weight = None
        if names:
            check_reads_names(encoder)
            self.log_name_weight = nn.Parameter(torch.zeros(()))

    def embed(self, x: Inputs) -> Tensor:
        """Embeddings (task, example, width) of unit length, before anything is tuned."""
        return F.normalize(self.encode(x), dim=-1)

    def name_weight(self) -> Tensor | None:
        """w, or None where names do not count."""
        return None if self.log_name_weight is None else self.log_name_weight.exp()

    def outer_loss(self, episode: Episode) -> Tensor:
        """The loss of the queries by prototypes, before anything is tuned."""
        support, query, context = episode
        known = labelled(support)
        state = named_prototypes(self.embed, known, context, self.name_weight())
        queries, temperature = self.embed(query.x), self.log_temperature.exp()
        logits = prototype_logits(queries, state.means, state.counts, "cosine", temperature)
        return self.likelihood.nll(logits, query, context)

    def adapt(self, support: Examples, context: Context, state: Weights | None = None) -> Weights:
        if state is not None:
            known = [value for name, value in state.items() if name.startswith("support.x.")]
            x = _shaped_as(support.x, known)
            support = concatenate(Examples(x, state["support.y"], state["support.mask"]), support)
        each = [
            self._tune(*take_tasks((support, context), slice(task, task + 1)))
            for task in range(len(support.mask))
        ]
        found = tree_map(lambda *parts: torch.cat(parts), *each)
        kept = {f"support.x.{i}": leaf for i, leaf in enumerate(leaves(support.x))}
        return {**found, **kept, "support.y": support.y, "support.mask": support.mask}

    def predict(self, state: Weights, x: Inputs, context: Context) -> Tensor:
        own = {name: state[f"encoder.{name}"] for name in self.tuned}
        rows = widened(over_tasks(self._features, own, x, tasks_at_once=1))
        with full_precision(rows.device):
            return F.normalize(rows, dim=-1) @ state["head.weight"] + state["head.bias"]

    def _tune(self, support: Examples, context: Context) -> Weights:
        """The weights of one task, and the head that is fitted to its features, each (1, …)."""
        weight = self.name_weight()
        examples = support._replace(mask=support.mask.to(self.log_temperature.dtype))
        counted = None if weight is None else weight.detach()
        examples = and_names(examples, context, lambda x: x, counted)
        # A tensor of inference mode cannot take part in what follows, and a copy made outside of it can.
        with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(_devices(support)):
            x, y, counted = _in_order(tree_map(torch.clone, examples))
            own = {
                name: value.detach().clone()
                for name, value in self.encoder.named_parameters()
                if name in self.tuned
            }
            said = y != NO_LABEL
            if own and bool(said.any()):
                with _mode(self.encoder, training=False):
                    known = labelled(support)
                    heads = named_prototypes(self.embed, known, context, weight).means[0]
                torch.manual_seed(self.seed)
                self._descend(own, heads.clone(), take_tasks(x, said), y[said], counted[said])
            with _mode(self.encoder, training=False):
                features = F.normalize(widened(self._features(own, x)), dim=-1)[None]
            with full_precision(features.device):
                fitted = Examples(features, y[None], counted[None])
                head = fit_semi_supervised(fitted, context, penalty=self.penalty, steps=32)
        weights = {f"encoder.{name}": value.detach()[None] for name, value in own.items()}
        return weights | {"head.weight": head[0].detach(), "head.bias": head[1].detach()}

    def _descend(self, own: Weights, heads: Tensor, x: Inputs, y: Tensor, counted: Tensor) -> None:
        """Train weights and heads (way, width) on examples (example, …) of one task, in place."""
        seen = torch.zeros(len(heads), dtype=torch.bool, device=heads.device).index_fill(0, y, True)
        moved = [value.requires_grad_() for value in (*own.values(), heads)]
        groups: list[dict[str, Any]] = [
            {"params": moved[:-1]},
            {"params": moved[-1:], "lr": self.head_rate},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.rate)
        temperature = self.sharpness * math.log(max(2, int(seen.sum())))
        steps = self.passes * -(-len(y) // self.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / (WARMUP * steps), 1 - step / steps)
        )
        with torch.enable_grad(), _mode(self.encoder, training=True):
            for _ in range(self.passes):
                for rows in torch.randperm(len(y)).to(y.device).split(self.batch):
                    features = F.normalize(self._features(own, take_tasks(x, rows)), dim=-1)
                    logits = temperature * features @ F.normalize(heads, dim=-1).T
                    losses = F.cross_entropy(
                        logits.masked_fill(~seen, UNSEEN), y[rows], reduction="none"
                    )
                    share = counted[rows].to(losses.dtype) / counted[rows].sum()
                    slopes = torch.autograd.grad(losses @ share, moved, materialize_grads=True)
                    for value, slope in zip(moved, slopes, strict=True):
                        value.grad = slope
                    optimizer.step()
                    schedule.step()

    def _features(self, own: Weights, x: Inputs) -> Tensor:
        found: Tensor = torch.func.functional_call(self.encoder, own, (x,))
        return found


def _shaped_as(tree: Inputs, tensors: list[Tensor]) -> Inputs:
    """The tensors in the place of those of a tree."""
    rest = iter(tensors)
    return tree_map(lambda _: next(rest), tree)


def _in_order(examples: Examples) -> tuple[Inputs, Tensor, Tensor]:
    """The examples (example, …) of one task that count, in an order that depends on what they are alone."""
    x, y, counted = (tree_map(lambda leaf: leaf[0], part) for part in examples)
    there = counted > 0
    x, y, counted = (tree_map(lambda leaf: leaf[there], part) for part in (x, y, counted))
    if not len(y):
        return x, y, counted
    content = torch.cat([leaf.flatten(1).double() for leaf in leaves(x)], 1)
    order = torch.unique(content, dim=0, return_inverse=True)[1].argsort(stable=True)
    return take_tasks(x, order), y[order], counted[order]


def _devices(support: Examples) -> list[torch.device]:
    """Those, beside the CPU, whose random numbers are used."""
    return [support.y.device] if support.y.device.type == "cuda" else []


@contextmanager
def _mode(encoder: nn.Module, *, training: bool) -> Iterator[None]:
    """Run an encoder with or without dropout, then give every part its own mode back."""
    before = [(part, part.training) for part in encoder.modules()]
    encoder.train(training)
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode
