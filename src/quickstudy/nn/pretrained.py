"""Pretrained text models of Hugging Face as encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import WORD_PADDING, Inputs
from quickstudy.functional import adapted_names, inside_transform
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Norm
from quickstudy.nn.loading import load_text_model
from quickstudy.nn.minilm import MINILM, MINILM_SHA256, PretrainedError
from quickstudy.nn.pairs import Frame, joined
from quickstudy.nn.preparation import add_lora, additive_mask, make_exact
from quickstudy.nn.reading import Reader, Reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer


TEXTS_AT_ONCE = {True: 64, False: 1024}
"""Texts that go through a model at once, on a CPU and elsewhere; more need memory and win no time."""


class Refinement(nn.Module):
    """A trained layer on top of given features: ``h + W₂ GELU(W₁ Norm(h))``, at first the identity (W₂ = 0)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.expand, self.shrink = (
            Norm(width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        nn.init.zeros_(self.shrink.weight)
        nn.init.zeros_(self.shrink.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(F.gelu(self.expand(self.norm(x))))


def _mean(hidden: Tensor, exists: Tensor) -> Tensor:
    """The mean over the words of each text, (example, width)."""
    weight = exists[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def _unit(vectors: Tensor, exists: Tensor) -> Tensor:
    """Vectors (example, width) of length 1, zero for a text without words.

    Such are the padding of a task, whose mean is zero, where a length has no second derivative.
    """
    absent = ~exists.any(1, keepdim=True)
    return F.normalize(vectors.masked_fill(absent, 1), dim=-1).masked_fill(absent, 0)


class HuggingFaceEncoder(Encoder):
    """A text model of Hugging Face: tokens in, one vector a text out.

    ``z = pool(model(tokens))``, ``z ← √width · z / ‖z‖`` if ``normalise``, then ``layers`` trained layers. With
    ``lexical``, ``z = [u(pool(model(tokens))), lexical · u(mean(words))]``, u of unit length: what a text means, and
    beside it which words it has, by the model's own vectors of them.

    A frozen model's vectors never change, so they are computed once and kept on disk
    (:func:`quickstudy.nn.features.cached_features`); ``forward`` takes such vectors in place of tokens.

    Args:
        model: ``minilm`` (Wang et al. 2020, MiniLM; weights of sentence-transformers/all-MiniLM-L6-v2), the folder
            of a model as ``save_pretrained`` writes it, or a name on the hub.
        frozen: the pretrained weights stay as they are; without adapters, there is no dropout either.
        trained: which weights are trained where they are not frozen (:func:`quickstudy.functional.adapted_names`):
            ``all``, ``last:2``, or a pattern of names such as ``encoder.*``, which leaves BERT's table of words alone.
        lora: rank of adapters on the linear maps of a frozen model (:func:`add_lora`), which are trained; 0 for none.
        pooling: ``mean`` over the words, or ``cls``, the first one.
        words: most tokens of a text; what is longer is cut off.
        normalise: bring each vector to length √width, so that its features have about unit variance.
        lexical: weight of the words themselves, such as 0.8 where classes differ in a word; 0 leaves them out. Twice
            as wide, and needs ``normalise``.
        layers: trained layers on top; they start as the identity, and with few classes or a high rate they forget
            more than they learn.
        download: fetch a model of the hub if it is not on this machine.

    Inputs: int64 (example, word) with -1 for padding, or float (example, features) from :meth:`features`.

    Raises:
        PretrainedError: the model is missing, altered, or not of a usable kind.
    """

    kind = "text"
    pretrained = True
    model: Any
    """The model of transformers."""

    def __init__(
        self,
        model: str = MINILM,
        *,
        frozen: bool = True,
        trained: str = "all",
        pooling: Literal["mean", "cls"] = "mean",
        words: int = 64,
        normalise: bool = True,
        lexical: float = 0.0,
        layers: int = 0,
        lora: int = 0,
        download: bool = False,
    ) -> None:
        super().__init__()
        self._build(
            *load_text_model(model, download),
            frozen=frozen,
            trained=trained,
            pooling=pooling,
            words=words,
            normalise=normalise,
            lexical=lexical,
            layers=layers,
            lora=lora,
        )
        self.published = MINILM_SHA256 if model == MINILM else ""

    @classmethod
    def from_assets(cls, assets: Mapping[str, bytes], **options: Any) -> Self:
        """An encoder of the same shape as the one whose :meth:`assets` these are, with random weights.

        Nothing is looked up anywhere, so an artifact works where the pretrained model does not exist.

        Args:
            assets: file name to content.
            options: those of the constructor; where the model came from does not matter any more.

        Raises:
            PretrainedError: a file is missing or damaged.
        """
        from tokenizers import Tokenizer
        from transformers import AutoConfig, AutoModel

        defaults: dict[str, Any] = {
            "frozen": True,
            "trained": "all",
            "pooling": "mean",
            "words": 64,
            "normalise": True,
            "lexical": 0.0,
            "layers": 0,
            "lora": 0,
        }
        chosen = defaults | {name: value for name, value in options.items() if name in defaults}
        try:
            config = AutoConfig.for_model(**json.loads(assets["config.json"]))
            model = AutoModel.from_config(config, trust_remote_code=False)
            tokenizer = Tokenizer.from_str(assets["tokenizer.json"].decode())
        except Exception as error:  # the tokenizers library raises bare exceptions
            raise PretrainedError(
                f"The saved text encoder is damaged: {error}. Copy the artifact again."
            ) from error
        encoder = cls.__new__(cls)
        Encoder.__init__(encoder)
        encoder._build(model, tokenizer, **chosen)
        return encoder

    def assets(self) -> dict[str, bytes]:
        """Beside the weights, what rebuilds this encoder: the model's shape and its tokenizer."""
        config = self.model.config.to_dict()
        config.pop("_name_or_path", None)
        return {
            "config.json": json.dumps(config, indent=2, sort_keys=True).encode(),
            "tokenizer.json": self._reader.tokenizer.to_str().encode(),
        }

    def _build(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        frozen: bool,
        trained: str,
        pooling: str,
        words: int,
        normalise: bool,
        lexical: float,
        layers: int,
        lora: int,
    ) -> None:
        if pooling not in ("mean", "cls"):
            raise PretrainedError(f"The option pooling must be mean or cls; found {pooling!r}.")
        named = getattr(model.config, "max_position_embeddings", None)
        longest = named or words
        if not 3 <= words <= longest:
            raise PretrainedError(
                f"The option words must lie between 3 and {longest} for this model; found {words}."
            )
        if getattr(model.config, "is_encoder_decoder", False):
            raise PretrainedError(
                f"The model is of the kind {model.config.model_type}, an encoder with a decoder; name an encoder such "
                "as BERT."
            )
        if lora < 0 or (lora and not frozen):
            raise PretrainedError(
                f"The option lora must be a rank, or 0 for no adapters, and goes with frozen=true; found lora={lora} "
                f"and frozen={str(frozen).lower()}."
            )
        if lexical < 0 or (lexical and not normalise):
            raise PretrainedError(
                f"The option lexical must be 0 or more, and goes with normalise=true; found lexical={lexical} and "
                f"normalise={str(normalise).lower()}."
            )
        make_exact(model)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._frame = Frame.of(tokenizer)
        self.model, self._reader = model, Reader(tokenizer, words)
        self.pooling, self.normalise, self.lexical = pooling, normalise, lexical
        self.width = int(model.config.hidden_size) * (2 if lexical else 1)
        self._padding = int(getattr(model.config, "pad_token_id", None) or 0)
        # Positions may begin behind that of padding, as RoBERTa's do.
        self._room = min(2 * words, longest - self._padding - 1) if named else 2 * words
        self._tells_apart = int(getattr(model.config, "type_vocab_size", None) or 0) > 1
        self.layers = nn.Sequential(*(Refinement(self.width) for _ in range(layers)))
        self._choose(frozen, trained)
        if lora:
            add_lora(model, lora)
        self.train(self.training)
        self._causal = self._looks_back_only()

    def _choose(self, frozen: bool, trained: str) -> None:
        """Leave those weights of the model to be trained that are to be."""
        if frozen and trained != "all":
            raise PretrainedError(
                "The option trained says which weights are trained, and goes with frozen=false; found "
                f"trained={trained}."
            )
        self.model.requires_grad_(not frozen)
        if not frozen:
            try:
                chosen = adapted_names(self.model, trained)
            except ValueError as error:
                raise PretrainedError(f"In the option trained: {error}") from None
            for name, value in self.model.named_parameters():
                value.requires_grad_(name in chosen)

    @property
    def given(self) -> frozenset[str]:
        if not self.published:
            return frozenset()
        trained = {name for name, value in self.model.named_parameters() if value.requires_grad}
        return frozenset(f"model.{name}" for name in self.model.state_dict() if name not in trained)

    @property
    def frozen(self) -> bool:
        """Whether nothing of the pretrained model is trained, adapters included, so that its features never change."""
        return not any(value.requires_grad for value in self.model.parameters())

    @torch.no_grad()
    def _looks_back_only(self) -> bool:
        """Whether a word never sees those behind it, found by trying: a ready mask has to say so itself."""
        training = self.model.training
        pair = torch.tensor(
            [[self._padding + 1, self._padding + 2], [self._padding + 1, self._padding + 3]]
        )
        first = self.model.eval()(input_ids=pair).last_hidden_state[:, 0]
        self.model.train(training)
        return bool(torch.equal(first[0], first[1]))

    def train(self, mode: bool = True) -> Self:
        """Switch dropout of the trained parts on or off; a frozen model never has any."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    @property
    def words(self) -> int:
        """Most tokens of a text."""
        return self._reader.words

    @property
    def mask(self) -> str:
        """What hides a word in a text from the model."""
        return self._reader.mask

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts as int64 (example, word), -1 for padding, as wide as the longest text needs.

        Raises:
            PretrainedError: something else than texts was given.
        """
        return self.reading(texts).tokens

    def reading(self, texts: Sequence[str]) -> Reading:
        """The same, and which texts are cut off or unknown to the model.

        Raises:
            PretrainedError: something else than texts was given.
        """
        return self._reader(texts)

    def features(self, x: Tensor) -> Tensor:
        """What the pretrained model alone makes of tokens (example, word): float (example, width).

        Texts of like length go together, some at a time, so that little padding is computed.
        """
        return self._in_pieces(x)

    def read_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Vectors (pair, width) of pairs of texts that the model reads as one, ``[CLS] first [SEP] second [SEP]``.

        The special tokens are those that the tokenizer puts around two texts; a model that has token types is told
        which text a token is of. A pair may have twice the words of a text, or as many as the model has positions.

        Args:
            first: tokens, int64 (pair, word), -1 for padding.
            second: likewise.

        Raises:
            ValueError: something else than tokens was given.
        """
        if first.is_floating_point() or second.is_floating_point():
            raise ValueError(
                "Texts are read in pairs by their tokens, but features of them were given; give the tokens."
            )
        tokens, which = joined(self._frame, first, second, self._room)
        return self.layers(self._in_pieces(tokens, which if self._tells_apart else None))

    def _in_pieces(self, x: Tensor, types: Tensor | None = None) -> Tensor:
        if not len(x):
            return x.new_zeros(0, self.width, dtype=next(self.model.parameters()).dtype)
        if inside_transform() or torch.compiler.is_exporting():
            return self._features(x, types)
        words = (x != WORD_PADDING).sum(1)
        order = words.argsort(stable=True)
        pieces = []
        for rows in order.split(TEXTS_AT_ONCE[x.device.type == "cpu"]):
            longest = max(1, int(words[rows[-1]]))
            own = None if types is None else types[rows, :longest]
            pieces.append(self._features(x[rows, :longest], own))
        return torch.cat(pieces)[order.argsort()]

    def _features(self, x: Tensor, types: Tensor | None = None) -> Tensor:
        exists = x != WORD_PADDING
        dtype = next(self.model.parameters()).dtype
        mask = additive_mask(exists, dtype, causal=self._causal)
        tokens = torch.where(exists, x, self._padding)
        told = {} if types is None else {"token_type_ids": types}
        found = self.model(
            input_ids=tokens, attention_mask=mask, output_hidden_states=bool(self.lexical), **told
        )
        hidden = found.last_hidden_state
        pooled = hidden[:, 0] if self.pooling == "cls" else _mean(hidden, exists)
        if self.lexical:
            words = _unit(_mean(found.hidden_states[0], exists), exists)
            pooled = torch.cat([_unit(pooled, exists), self.lexical * words], -1)
        return _unit(pooled, exists) * self.width**0.5 if self.normalise else pooled

    def forward(self, x: Inputs) -> Tensor:
        if x.is_floating_point():
            if x.ndim != 2 or x.shape[1] != self.width:
                raise ValueError(
                    f"Features of shape {tuple(x.shape[1:])}, but this encoder makes {self.width} of each text; give "
                    "it tokens, or features that it made."
                )
            return self.layers(x.to(next(self.model.parameters()).dtype))
        return self.layers(self.features(x))
