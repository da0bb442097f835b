"""Pretrained text models of Hugging Face as encoders: the only module that imports transformers' models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from quickstudy.episode import WORD_PADDING, Inputs
from quickstudy.functional import inside_transform
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Norm
from quickstudy.nn.minilm import MINILM, MINILM_SHA256, PretrainedError, minilm_folder
from quickstudy.nn.preparation import add_lora, additive_mask, make_exact
from quickstudy.nn.reading import Reader, Reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def _find(name: str, download: bool) -> str:
    """The folder or hub name to load from, checked as far as it can be without the network."""
    if name == MINILM:
        return str(minilm_folder())
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise PretrainedError(
                f"The folder {folder} holds no config.json; expected a model as save_pretrained writes it."
            )
        return str(folder)
    looks_like_a_path = name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_a_path or not name:
        raise PretrainedError(
            f"The model folder {name!r} does not exist; expected a folder or a hub name."
        )
    if not download:
        from huggingface_hub import try_to_load_from_cache

        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            raise PretrainedError(
                f"The model {name!r} is neither a folder nor among the models downloaded before; name an existing "
                "folder, or allow the download with download=true."
            )
    return name


TEXTS_AT_ONCE = {True: 64, False: 1024}
"""Texts that go through a model at once, on a CPU and elsewhere; more need memory and win no time."""


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and load reports from transformers; what matters in them is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _load(name: str, download: bool) -> tuple[Any, Tokenizer]:
    """Model and tokenizer; weights from safetensors only, no code from the model's folder."""
    from transformers import AutoModel, AutoTokenizer

    where = _find(name, download)
    options: dict[str, Any] = {"local_files_only": not download, "trust_remote_code": False}
    try:
        with _quiet():
            model, report = AutoModel.from_pretrained(
                where,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PretrainedError(
            f"The model {name!r} cannot be loaded ({reason}); expected a folder with config.json, model.safetensors "
            "and tokenizer.json."
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise PretrainedError(
            f"The weights of {name!r} lack {len(missing)} tensors, such as {missing[0]}; they would be random. Name a "
            "complete model."
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise PretrainedError(
            f"The tokenizer of {name!r} has no tokenizer.json; convert it with save_pretrained first."
        )
    return model, backend


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
            *_load(model, download), frozen, pooling, words, normalise, lexical, layers, lora
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
        frozen: bool,
        pooling: str,
        words: int,
        normalise: bool,
        lexical: float,
        layers: int,
        lora: int,
    ) -> None:
        if pooling not in ("mean", "cls"):
            raise PretrainedError(f"pooling must be mean or cls; found {pooling!r}.")
        longest = getattr(model.config, "max_position_embeddings", None) or words
        if not 3 <= words <= longest:
            raise PretrainedError(
                f"words must lie between 3 and {longest} for this model; found {words}."
            )
        if getattr(model.config, "is_encoder_decoder", False):
            raise PretrainedError(
                f"The model is of the kind {model.config.model_type}, an encoder with a decoder; name an encoder such "
                "as BERT."
            )
        if lora < 0 or (lora and not frozen):
            raise PretrainedError(
                f"lora must be a rank, or 0 for no adapters, and goes with frozen=true; found lora={lora} and "
                f"frozen={str(frozen).lower()}."
            )
        if lexical < 0 or (lexical and not normalise):
            raise PretrainedError(
                f"lexical must be 0 or more, and goes with normalise=true; found lexical={lexical} and "
                f"normalise={str(normalise).lower()}."
            )
        make_exact(model)
        self.model, self._reader = model, Reader(tokenizer, words)
        self.pooling, self.normalise, self.lexical = pooling, normalise, lexical
        self.width = int(model.config.hidden_size) * (2 if lexical else 1)
        self._padding = int(getattr(model.config, "pad_token_id", None) or 0)
        self.layers = nn.Sequential(*(Refinement(self.width) for _ in range(layers)))
        model.requires_grad_(not frozen)
        if lora:
            add_lora(model, lora)
        self.train(self.training)
        self._causal = self._looks_back_only()

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
        if not len(x) or inside_transform() or torch.compiler.is_exporting():
            return self._features(x)
        words = (x != WORD_PADDING).sum(1)
        order = words.argsort(stable=True)
        pieces = [
            self._features(x[rows, : max(1, int(words[rows[-1]]))])
            for rows in order.split(TEXTS_AT_ONCE[x.device.type == "cpu"])
        ]
        return torch.cat(pieces)[order.argsort()]

    def _features(self, x: Tensor) -> Tensor:
        exists = x != WORD_PADDING
        dtype = next(self.model.parameters()).dtype
        mask = additive_mask(exists, dtype, causal=self._causal)
        tokens = torch.where(exists, x, self._padding)
        found = self.model(
            input_ids=tokens, attention_mask=mask, output_hidden_states=bool(self.lexical)
        )
        hidden = found.last_hidden_state
        pooled = hidden[:, 0] if self.pooling == "cls" else _mean(hidden, exists)
        if self.lexical:
            words = F.normalize(_mean(found.hidden_states[0], exists), dim=-1)
            pooled = torch.cat([F.normalize(pooled, dim=-1), self.lexical * words], -1)
        return F.normalize(pooled, dim=-1) * self.width**0.5 if self.normalise else pooled

    def forward(self, x: Inputs) -> Tensor:
        if x.is_floating_point():
            if x.ndim != 2 or x.shape[1] != self.width:
                raise ValueError(
                    f"Features of shape {tuple(x.shape[1:])}, but this encoder makes {self.width} of each text; give "
                    "it tokens, or features that it made."
                )
            return self.layers(x.to(next(self.model.parameters()).dtype))
        return self.layers(self.features(x))
