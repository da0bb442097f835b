"""The MetaTransformer: it reads what a task says of itself, remembers earlier tasks, and shapes another learner."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import WORD_PADDING, Context, Episode, Examples, Inputs, leaves, take_tasks
from quickstudy.functional import Weights
from quickstudy.learners.base import Learner, State
from quickstudy.learners.carried import check_state, check_way
from quickstudy.learners.describing import Described, Describer
from quickstudy.learners.gradient import GradientLearner
from quickstudy.learners.metric import ProtoNet, of_classes
from quickstudy.learners.named_head import OFFSETS, TRUST, NamedHead, counts_of
from quickstudy.learners.similar_names import STRENGTHS, SimilarNames, kept, remembered
from quickstudy.likelihood import Bernoulli, Categorical
from quickstudy.nn.encoders import LARGEST_CPU_TENSOR, Encoder, RawEncoder, encode
from quickstudy.nn.layers import Block, Norm
from quickstudy.nn.modulation import Coefficients, Modulation

Shape = Literal["film", "lora", "none"]
Builder = Callable[..., Learner]
"""Makes a learner on an encoder, as a class of learners does, or such a class with some options filled in."""


class MetaTransformer(Learner):
    """Reads what a task says of itself, remembers the tasks before it, and shapes another learner by both.

    1. Describe: a task's description, the names of its classes and its support become tokens x_t; whatever a task does
       not have is left out.
    2. Encode: ``ĥ = Transformer(h_{t-1}; x_t)``, slots that attend to the tokens and to one another, and ``h_t =
       h_{t-1} + g (ĥ - h_{t-1})``, ``g = σ(G [h_{t-1}; ĥ])``. h_{t-1} is what :meth:`carry` kept of the task before, or
       a learned beginning.
    3. Shape: ``θ' = θ + ΔΘ h_t`` are the weights that the wrapped learner has for this task
       (:class:`quickstudy.nn.modulation.Modulation`), and where classes have names, each gets a row of a head,
       ``W_c = H(name_c, n_c, h_t)`` for n_c examples, so that a class can be told by its name alone; without an
       example it looks, besides, as classes of this task and of those before it look that are called nearly the same
       (:class:`quickstudy.learners.similar_names.SimilarNames`).
    4. Adapt: the wrapped learner learns the support from θ', by however many inner steps it takes.
    5. Feedback is more support: ``adapt`` from a state goes on with the task, whose θ' stays.

    Everything that shapes begins at zero: before training this is the wrapped learner, of classes with examples. Only
    an encoder that reads names itself begins with more: the cosine between an example and the name of a class counts,
    the less the more examples the class has.

    Points of this family are MMAML (Vuorio et al. 2019, Multimodal Model-Agnostic Meta-Learning: ``learner=MAML``),
    CNAPs (Requeima et al. 2019, Fast and Flexible Multi-Task Classification) and HyperTransformer (Zhmoginov et al.
    2022). Differs from them: the memory is carried from task to task, the description counts as well as the examples,
    and any learner can be shaped; how far the head that names make is trusted, of classes with examples and without,
    is chosen on validation classes (:meth:`settle`).

    The state is a dictionary: ``memory`` and ``shape``, h_t with and without later support, (task, slot, width);
    ``base.…``, what the wrapped learner knows; of named classes also ``head`` (task, way, features), ``named`` and
    ``counts`` (task, way), ``names`` (task, way, word), ``looks``, sums of their encoded examples (task, way,
    features), ``shares``, how like the names are, (task, way, class), and ``earlier.names`` and ``earlier.looks`` of
    the classes of tasks before.

    Args:
        encoder: maps an example to a vector.
        learner: what is wrapped. Without an inner loop, it is given what the encoder makes of the examples.
        shape: ``film``, ``lora`` or ``none``: how θ' differs from θ.
        rank: of ``lora``.
        bottleneck: numbers that h_t is squeezed into before it shapes, if it has more; it makes a training step
            cheaper. 0: none.
        names: read the names of classes, and descriptions in words: by the encoder itself if it reads text, else byte
            by byte (:class:`quickstudy.nn.words.NameReader`).
        numbers: of a description in numbers; 0: tasks have none.
        values: numbers that a task predicts; 0: a class.
        width: features of a slot.
        slots: of the memory.
        layers: of the Transformer that writes to it.
        heads: of attention.
        left_out: chance that a training task is shown without its description and names, so that it is learned without
            them as well; a task with a class that has no example is shown with them.
        through_encoder: let the gradient of what describes a task pass into the encoder, which then also learns to
            describe, at the price of one more way back through it for each support example.

    Raises:
        ValueError: an option is out of range, the wrapped learner has nothing that can be shaped, or a description has
            another number of numbers.

    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> learner = MetaTransformer(VectorEncoder(2, width=8, layers=1), learner=ProtoNet, width=8, heads=2)
    >>> x, y = torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> context = Context(torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 0), torch.zeros(1, 2, 0).long())
    >>> first = learner.adapt(support, context)
    >>> next_task = learner.adapt(support, context, learner.carry(first))
    >>> learner.predict(next_task, x, context).shape
    torch.Size([1, 4, 2])
    """

    order_free = True
    additive = False
    inner_loop = False
    fixed_encoding = False
    state_type = dict

    def __init__(
        self,
        encoder: Encoder,
        *,
        learner: Builder = ProtoNet,
        shape: Shape = "film",
        rank: int = 4,
        bottleneck: int = 32,
        names: bool = False,
        numbers: int = 0,
        values: int = 0,
        width: int = 64,
        slots: int = 4,
        layers: int = 1,
        heads: int = 4,
        left_out: float = 0.3,
        through_encoder: bool = False,
    ) -> None:
        if shape not in get_args(Shape):
            raise ValueError(f"The shape must be {', '.join(get_args(Shape))}; found {shape!r}.")
        for name, found, least in (
            ("width", width, 1),
            ("heads", heads, 1),
            ("slots", slots, 1),
            ("layers", layers, 1),
            ("numbers", numbers, 0),
        ):
            if found < least:
                raise ValueError(f"Option {name} must be at least {least}; found {found}.")
        if not 0 <= left_out <= 1:
            raise ValueError(f"left_out is a chance, 0 … 1; found {left_out}.")
        base = _wrapped(learner, encoder, values)
        super().__init__(encoder, base.likelihood)
        self.base, self.inner_loop, self.order_free = base, base.inner_loop, base.order_free  # type: ignore[misc]
        self.grows = base.grows  # type: ignore[misc]
        if hasattr(base, "bank"):
            self.bank = base.bank
        self.names, self.left_out, self.through_encoder = names, left_out, through_encoder
        self.describes, self.remembers, self.modulates = True, True, True
        """Parts that can be switched off, to see what they are worth."""
        self.parts: dict[str, nn.Module] = {"encoder": encoder}
        if not base.inner_loop:
            self.parts["base"] = base
        self.start = nn.Parameter(0.5 * torch.randn(slots, width))
        self.blocks = nn.ModuleList(Block(width, heads=heads, expansion=2) for _ in range(layers))
        self.norm = Norm(width)
        self.gate = nn.Linear(2 * width, width)
        self.modulation: Modulation | None = None
        if shape != "none":
            self.modulation = Modulation(
                self.parts, slots * width, kind=shape, rank=rank, bottleneck=bottleneck
            )
            self._check_shaped()
        self.describer = Describer(
            encoder.width,
            width,
            names=names,
            reads_words=hasattr(encoder, "tokenize"),
            numbers=numbers,
            values=values,
        )
        self.heads_from_names = names and isinstance(base.likelihood, Categorical)
        if self.heads_from_names:
            spoken = self.describer.words is None
            doubted = not spoken and not base.inner_loop
            self.named_head = NamedHead(width, encoder.width, spoken=spoken, doubted=doubted)
        # Inner steps move what examples look like away from what is remembered.
        self.similar = SimilarNames() if self.heads_from_names and not base.inner_loop else None

    def carry(self, state: State) -> State | None:
        self._check_state(state)
        left = {"memory": state["memory"]}
        if self.similar is not None:
            left |= kept(state)
        return left

    def adapt(self, support: Examples, context: Context, state: State | None = None) -> State:
        if state is not None:
            self._check_state(state, context)
        found, numbers = self._found(support, context, state)
        known = _of_base(state or {})
        base = self.base.state_type(**known) if known else None
        if isinstance(self.base, GradientLearner):
            if base is None:
                base = self._start(support, context, numbers, found)
            learned = self.base.adapt(support, context, base)
        else:
            support = support._replace(x=self._encode(support.x, numbers))
            found = self._with_looks(found, support, state)
            with self._applied(numbers):
                learned = self.base.adapt(support, context, base)
        fields = learned if isinstance(learned, dict) else learned._asdict()
        return found | {f"base.{name}": value for name, value in fields.items()}

    def predict(self, state: State, x: Inputs, context: Context) -> Tensor:
        self._check_state(state, context)
        if "shape" not in state:
            raise ValueError(
                "This is what carry left of a task, from which nothing can be answered; adapt the next task from it "
                "first."
            )
        base = self.base.state_type(**_of_base(state))
        if isinstance(self.base, GradientLearner):
            outputs = self.base.predict(base, x, context)
            self._check_way(outputs, context)
            return outputs
        numbers = self._numbers(state["shape"])
        features = self._encode(x, numbers)
        with self._applied(numbers):
            outputs = self.base.predict(base, features, context)
        self._check_way(outputs, context)
        return self._named_outputs(outputs, features, state)

    def outputs(self, episode: Episode) -> Tensor:
        """Outputs for the queries, by the wrapped learner's shorter way where it has one."""
        support, query, context = episode
        if isinstance(self.base, GradientLearner):
            return self.predict(self.adapt(support, context), query.x, context)
        found, numbers = self._found(support, context, None)
        support = support._replace(x=self._encode(support.x, numbers))
        found = self._with_looks(found, support, None)
        query = query._replace(x=self._encode(query.x, numbers))
        with self._applied(numbers):
            outputs = self.base.outputs(Episode(support, query, context))
        return self._named_outputs(outputs, query.x, found)

    def together(self, episode: Episode) -> int:
        return self.base.together(episode)

    def progress(self, share: float) -> None:
        self.base.progress(share)

    def settle(self, episodes: Iterable[Episode]) -> bool:
        """Choose how far names are trusted, of classes without an example and of those with some, by validation tasks.

        ``argmin_{t, κ} Σ_e nll(z_e + t W_e φ + κ g_e)`` over the shares in :data:`TRUST` and :data:`STRENGTHS`:
        names of training classes that are read byte by byte are known by heart, and only classes never met say what a
        name is worth, and what names that are like it. An encoder of texts reads new names as well as old ones, and
        where inner steps begin at the names they correct them; there, nothing is chosen.
        """
        if not self.heads_from_names or not self.named_head.doubted:
            return False
        assert self.similar is not None
        trust, strength, offset = (
            self.named_head.trust,
            self.similar.strength,
            self.named_head.offset,
        )
        before = (*trust.tolist(), float(strength), float(offset))
        offset.fill_(0)
        told = []
        for support, query, context in episodes:
            trust.fill_(1)
            state = self.adapt(support, context)
            plain = state | {"head": torch.zeros_like(state["head"])}
            said = []
            for known, alike in ((plain, 0.0), (state, 0.0), (plain, 1.0)):
                strength.fill_(alike)
                said.append(self.predict(known, query.x, context))
            seen = (state["counts"] > 0).long()[:, None]
            told.append((said[0], said[1] - said[0], said[2] - said[0], seen, query, context))

        def loss(trusted: tuple[float, ...], alike: float, ahead: float) -> float:
            total = 0.0
            for outputs, added, guessed, seen, query, context in told:
                share = torch.tensor(trusted).to(added)[seen]
                all_said = outputs + share * added + alike * guessed + ahead * (seen == 0)
                total += float(self.likelihood.nll(all_said, query, context))
            return total

        choices = itertools.product(itertools.product(TRUST, repeat=2), STRENGTHS)
        best, alike = min(choices, key=lambda choice: loss(choice[0], choice[1], 0))
        ahead = min(OFFSETS, key=lambda ahead: loss(best, alike, ahead))
        trust.copy_(torch.tensor(best))
        strength.fill_(alike)
        offset.fill_(ahead)
        return (*trust.tolist(), float(strength), float(offset)) != before

    def trouble(self, support: Examples, context: Context) -> str:
        return self.base.trouble(support, context) if self.inner_loop else ""

    # 1. Describe

    def describe(self, support: Examples, context: Context) -> Described:
        """What a task says of itself, and its support, as tokens."""
        shown = torch.ones_like(context.classes[:, :1]) & self.describes
        if self.training and self.left_out and (self.names or self.describer.numbers):
            kept = torch.rand(shown.shape, device=shown.device) >= self.left_out
            if not self.describer.values:
                # A class without any example is told by its name alone.
                counts = counts_of(support, context.classes.shape[1])
                kept = kept | (context.classes & (counts == 0)).any(1, keepdim=True)
            shown = shown & kept
        with nullcontext() if self.through_encoder else torch.no_grad():
            support = support._replace(x=self.encode(support.x))
        return self.describer(support, context, shown, partial(encode, self.encoder))

    # 2. Encode

    def remember(self, described: Described, memory: Tensor) -> Tensor:
        """``h_t = Encoder(x_t, h_{t-1})``: the memory (task, slot, width) after a task."""
        slots = memory
        seen = F.pad(described.mask, (0, memory.shape[1]), value=True)[:, None, None]
        for block in cast("list[Block]", list(self.blocks)):
            normed = block.attention_norm(slots)
            known = torch.cat([described.tokens, normed], 1)
            slots = block.mlp(slots + block.attention(normed, known, mask=seen))
        slots = self.norm(slots)
        gate = torch.sigmoid(self.gate(torch.cat([memory, slots], -1)))
        return memory + gate * (slots - memory)

    # 3. Shape

    def _found(
        self, support: Examples, context: Context, state: State | None
    ) -> tuple[dict[str, Tensor], Coefficients]:
        """Of the state what is not the wrapped learner's, and the numbers that shape it."""
        described = self.describe(support, context)
        known = self._known(state)
        memory = known.get("memory", self.start.expand(context.classes.shape[0], -1, -1))
        memory = self.remember(described, memory)
        shape = known.get("shape", memory)
        found = {"memory": memory, "shape": shape}
        if self.heads_from_names:
            counts = counts_of(support, context.classes.shape[1])
            if "counts" in known:
                counts = counts + of_classes(known["counts"], counts.shape[1])
            found |= {"counts": counts, "named": described.named}
            others = (described.named & (counts > 0)).sum(1, keepdim=True)
            if self.similar is not None and (earlier := remembered(known)):
                others = others + earlier.looks.any(2).sum(1, keepdim=True)
            found["head"] = self.named_head(described, counts, shape, others)
            spoken = self.describer.words is None
            names, nothing = (described.spoken, 0) if spoken else (context.names, WORD_PADDING)
            found["names"] = names.masked_fill(~described.named[..., None], nothing)
        return found, self._numbers(shape)

    def _check_state(self, state: State, context: Context | None = None) -> None:
        """Refuse a state that is not one of this learner's, or not of these tasks."""
        slots, width = self.start.shape
        tasks = None if context is None else context.classes.shape[0]
        check_state(state, slots=slots, width=width, tasks=tasks)
        if context is not None and self.heads_from_names and "shape" in state:
            if "counts" not in state:
                raise ValueError(
                    "This learner reads names, and the state is of one that does not; adapt from the beginning."
                )
            check_way(state["counts"].shape[1], context.classes.shape[1], may_grow=self.grows)

    def _check_way(self, outputs: Tensor, context: Context) -> None:
        """Refuse outputs of other classes than the tasks have."""
        if not self.describer.values:
            check_way(outputs.shape[-1], context.classes.shape[1])

    def _known(self, state: State | None) -> State:
        """What counts of a state that is there already."""
        return {} if state is None or not (self.remembers or "shape" in state) else state

    def _with_looks(
        self, found: dict[str, Tensor], support: Examples, state: State | None
    ) -> dict[str, Tensor]:
        """Of the state what is not the wrapped learner's, with what the classes look like."""
        if self.similar is None:
            return found
        return found | self.similar.adapt(found, support, self._known(state))

    def _numbers(self, shape: Tensor) -> Coefficients:
        if self.modulation is None or not self.modulates:
            return {}
        numbers: Coefficients = self.modulation(shape.flatten(1))
        return numbers

    def _applied(self, numbers: Coefficients) -> AbstractContextManager[None]:
        """The wrapped learner's own layers with the weights of each task."""
        if self.modulation is None or not numbers:
            return nullcontext()
        return self.modulation.applied(self.parts, numbers)

    def _encode(self, x: Inputs, numbers: Coefficients) -> Tensor:
        """What the encoder makes of examples with the weights of each task, (task, example, features)."""
        if not any(name.startswith("encoder") for name in numbers):
            return self.encode(x)
        if torch.compiler.is_exporting():  # a program of any number of tasks has no pieces
            with self._applied(numbers):
                return self.encode(x)
        tasks, examples = leaves(x)[0].shape[:2]
        at_once = tasks
        if leaves(x)[0].device.type == "cpu" and self.encoder.bytes_per_example:
            # An encoder's pieces are as many examples as the cache holds; those of one piece must be of whole tasks.
            each = self.encoder.bytes_per_example * max(1, examples)
            at_once = max(1, LARGEST_CPU_TENSOR // each)
        own = {name: value for name, value in numbers.items() if name.startswith("encoder")}
        parts = []
        for first in range(0, tasks, at_once):
            piece, some = take_tasks((x, own), slice(first, first + at_once))
            with self._applied(some):
                parts.append(self.encode(piece))
        return torch.cat(parts)

    def _named_outputs(
        self, outputs: Tensor, features: Tensor, state: Mapping[str, Tensor]
    ) -> Tensor:
        """Logits, and what the names of the classes add to them."""
        if not self.heads_from_names:
            return outputs
        outputs = self.named_head.outputs(outputs, features, state)
        return outputs if self.similar is None else outputs + self.similar(features, state)

    # 4. Adapt, from θ'

    def _start(
        self,
        support: Examples,
        context: Context,
        numbers: Coefficients,
        found: Mapping[str, Tensor],
    ) -> Weights:
        """Where the inner steps of each task begin."""
        assert isinstance(self.base, GradientLearner)
        start = self.base.fast.initial(support, context)
        if self.modulation is not None:
            start = self.modulation.weights(start, numbers)
        if self.heads_from_names:
            start["head.weight"] = start["head.weight"] + found["head"]
        return start

    def _check_shaped(self) -> None:
        """Refuse a gradient learner none of whose fast weights would be shaped."""
        if not self.base.inner_loop or self.modulation is None:
            return
        assert isinstance(self.base, GradientLearner)
        adapting = {f"encoder.{name}" for name in self.base.fast.names}
        if not any(f"{name}.weight" in adapting for name in self.modulation.sizes):
            raise ValueError(
                "None of the layers that would be shaped adapts in the inner loop; let more of the encoder adapt, or "
                "set shape=none."
            )


def _wrapped(learner: Builder, encoder: Encoder, values: int) -> Learner:
    """The learner that is shaped: on the encoder's features, or, where it takes derivatives, on the encoder itself."""
    if isinstance(learner, nn.Module) or not callable(learner):
        found = "one that is built" if isinstance(learner, nn.Module) else repr(learner)
        raise ValueError(
            "The learner to shape is given as a class, such as ProtoNet or functools.partial of it, which is built on "
            f"the encoder; found {found}."
        )
    options = {"values": values} if values else {}
    cls = getattr(learner, "func", learner)
    if values and "values" not in inspect.signature(cls).parameters:
        raise ValueError(
            f"The tasks are to predict numbers, but the wrapped learner {cls.__name__} tells classes apart; set "
            "learner to one that predicts numbers, such as neural_process or maml."
        )
    if not getattr(cls, "inner_loop", False):
        base = learner(RawEncoder(encoder.width), **options)
        if isinstance(base.likelihood, Bernoulli):
            raise ValueError(
                f"Tasks of many labels for an example are not conditioned; found {cls.__name__} with labels=many. "
                "Train that learner by itself, or leave labels out."
            )
        return base
    base = learner(encoder, **options)
    if not isinstance(base, GradientLearner):
        raise ValueError(
            f"A learner with an inner loop is shaped by its fast weights, which {cls.__name__} does not have; wrap "
            "maml, reptile or imaml, or a learner without an inner loop."
        )
    # The encoder is registered once, by who wraps.
    del base.encoder
    object.__setattr__(base, "encoder", encoder)
    return base


def _of_base(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The wrapped learner's part of a state."""
    return {n.removeprefix("base."): value for n, value in state.items() if n.startswith("base.")}
