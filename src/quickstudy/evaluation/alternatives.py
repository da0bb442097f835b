"""What else a person could use to learn a task from a few texts; each has two verbs, ``fit`` and ``predict``.

Texts without a label are made use of by adapted artifacts only, and by these if their learner can.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.answering import answer
from quickstudy.artifact import Artifact, extend
from quickstudy.build import build_learner
from quickstudy.config import RunConfig
from quickstudy.nn.minilm import MINILM, minilm_folder
from quickstudy.nn.pretrained import HuggingFaceEncoder


class AlternativeError(ValueError):
    """A way of learning that does not exist or is not installed; the message says what to do."""


class Alternative(Protocol):
    """One way of learning a task from texts; ``fit`` forgets the task before."""

    def fit(self, texts: Sequence[str], labels: Sequence[str], others: Sequence[str] = ()) -> None:
        """Learn which label each text has, perhaps with the help of others of which nobody says it."""

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text."""


class ByArtifact:
    """Adapts an artifact that reads texts.

    Raises:
        AlternativeError: it reads other things.
    """

    def __init__(self, artifact: Artifact) -> None:
        if artifact.inputs["kind"] != "text":
            raise AlternativeError(
                f"The model {artifact.path} reads examples of the kind {artifact.inputs['kind']}; compare is for "
                "models that read texts. Use evaluate, which has baselines of its own."
            )
        self.artifact = artifact

    def _tokens(self, texts: Sequence[str]) -> torch.Tensor:
        encoder: Any = self.artifact.learner.encoder
        tokens: torch.Tensor = encoder.tokenize(list(texts))
        return tokens

    def fit(self, texts: Sequence[str], labels: Sequence[str], others: Sequence[str] = ()) -> None:
        if not self.artifact.learner.semi_supervised:
            others = ()
        tokens = self._tokens([*texts, *others])
        self.task = extend(self.artifact, None, tokens, [*labels, *[None] * len(others)])

    def predict(self, texts: Sequence[str]) -> list[str]:
        chosen = answer(self.artifact, self.task, self._tokens(texts)).argmax(1)
        return [self.task.class_names[i] for i in chosen.tolist()]


def untrained(*, lexical: float = 0.0, **learner: Any) -> ByArtifact:
    """A learner on frozen MiniLM, which nobody has meta-trained.

    Args:
        lexical: of the encoder.
        learner: its name and options.
    """
    encoder = {"name": "text", "model": MINILM, "lexical": lexical}
    config = RunConfig(data="text", learner=learner, encoder=encoder)
    made = build_learner(config.learner, config.encoder).eval()
    return ByArtifact(Artifact(made, config, {}, id="untrained", path=None))


class FineTuned:
    """All of MiniLM and a linear head on top, trained on the task alone.

    AdamW, 20 passes over the examples, 16 at a time, the rate rising to 5e-5 (1e-2 of the head) for a tenth of the
    steps and falling to nothing. Mosbach et al. 2021, On the Stability of Fine-tuning BERT, from whom the rate differs,
    for a model as small as this one learns more slowly.
    """

    passes, batch, rate, head_rate, warmup = 20, 16, 5e-5, 1e-2, 0.1

    def __init__(self) -> None:
        self.start = HuggingFaceEncoder(frozen=False)

    def fit(self, texts: Sequence[str], labels: Sequence[str], others: Sequence[str] = ()) -> None:
        self.names = sorted(set(labels))
        y = torch.tensor([self.names.index(label) for label in labels])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = copy.deepcopy(self.start).train()
            self.head = nn.Linear(self.encoder.width, len(self.names))
            rates = (self.rate, self.head_rate)
            groups = [
                {"params": list(part.parameters()), "lr": rate}
                for part, rate in zip((self.encoder, self.head), rates, strict=True)
            ]
            optimizer = torch.optim.AdamW(groups)
            tokens, steps = self.encoder.tokenize(texts), self.passes * -(-len(y) // self.batch)
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer,
                lambda step: min((step + 1) / (self.warmup * steps), 1 - step / steps),
            )
            for _ in range(self.passes):
                for rows in torch.randperm(len(y)).split(self.batch):
                    loss = F.cross_entropy(self.head(self.encoder(tokens[rows])), y[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
        self.encoder.eval()

    @torch.no_grad()
    def predict(self, texts: Sequence[str]) -> list[str]:
        chosen = self.head(self.encoder(self.encoder.tokenize(texts))).argmax(1)
        return [self.names[i] for i in chosen.tolist()]


class ByContrast:
    """SetFit as its package does it by default, from MiniLM: pairs of texts, then logistic regression.

    Tunstall et al. 2022, Efficient Few-Shot Learning Without Prompts.

    Raises:
        AlternativeError: the package setfit is not installed.
    """

    def __init__(self) -> None:
        try:
            import setfit
            from datasets import Dataset
            from datasets.utils.logging import disable_progress_bar
        except ImportError as error:
            raise AlternativeError(
                f"SetFit cannot be imported ({error}); run: pip install 'quickstudy[setfit]', or leave setfit out."
            ) from error
        disable_progress_bar()
        setfit.logging.set_verbosity_error()
        self.setfit, self.dataset, self.folder = setfit, Dataset, str(minilm_folder())

    def fit(self, texts: Sequence[str], labels: Sequence[str], others: Sequence[str] = ()) -> None:
        self.names = sorted(set(labels))
        y = [self.names.index(label) for label in labels]
        self.model = self.setfit.SetFitModel.from_pretrained(self.folder)
        # It writes checkpoints into the folder where it is run, and prints beside its progress bar.
        with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
            options = self.setfit.TrainingArguments(
                output_dir=place, report_to="none", show_progress_bar=False, save_strategy="no"
            )
            trainer = self.setfit.Trainer(
                self.model,
                args=options,
                train_dataset=self.dataset.from_dict({"text": list(texts), "label": y}),
            )
            for each in list(trainer.st_trainer.callback_handler.callbacks):
                if type(each).__name__ in ("PrinterCallback", "ProgressCallback"):
                    trainer.st_trainer.remove_callback(each)
            trainer.train()

    def predict(self, texts: Sequence[str]) -> list[str]:
        found = self.model.predict(list(texts), show_progress_bar=False)
        return [self.names[int(each)] for each in found]


ALTERNATIVES: Mapping[str, tuple[str, Callable[[], Alternative]]] = {
    "logreg": ("logistic regression on MiniLM", lambda: untrained(name="linear_head")),
    "logreg_names": (
        "the same, names of classes as examples",
        lambda: untrained(name="linear_head", names=True),
    ),
    "prototypes": ("nearest class mean by MiniLM", lambda: untrained(name="protonet")),
    "finetune": ("MiniLM fine-tuned on the task", FineTuned),
    "setfit": ("SetFit from MiniLM", ByContrast),
}
"""Name to what it is, in a line, and to what makes it."""


def alternative(name: str) -> Alternative:
    """The alternative of that name.

    Raises:
        AlternativeError: there is none, or it is not installed.
        PretrainedError: MiniLM is not installed.
    """
    if name not in ALTERNATIVES:
        raise AlternativeError(
            f"There is no alternative named {name!r}; those known are {', '.join(ALTERNATIVES)}, and the folder or the "
            "name of another model is one."
        )
    return ALTERNATIVES[name][1]()
