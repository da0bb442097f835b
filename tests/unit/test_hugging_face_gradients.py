"""Meta-gradients through stock models of Hugging Face: every strategy against one task after the other, spelled out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.functional import (
    InnerLoop,
    Weights,
    adapted_names,
    descend,
    exact_derivatives,
)
from quickstudy.functional.descent import graph_bytes
from quickstudy.nn.preparation import additive_mask

TASKS, EXAMPLES, WORDS, WAY, WIDTH, STEPS = 3, 4, 5, 3, 16, 3
PADDING = 1
BERT_LIKE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
MODELS = ("bert", "roberta", "vit", "gpt2", "t5")
EXACT = (("unroll", 1), ("unroll", 2), ("sweep", 1), ("sweep", 2), ("sqrt", 2))


def stock_model(name: str) -> nn.Module:
    """A tiny model as transformers builds it, in training mode, no class swapped; only its weights are drawn anew."""
    import transformers as hf

    words = {"vocab_size": 20, "max_position_embeddings": 12, "pad_token_id": PADDING}
    gpt2 = {
        **{"vocab_size": 20, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 12},
        **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        **{"bos_token_id": 0, "eos_token_id": 0},
    }
    t5 = {
        **{"vocab_size": 20, "d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2},
        **{"num_heads": 2, "dropout_rate": 0.0},
    }
    build: dict[str, Callable[[], Any]] = {
        "bert": lambda: hf.AutoModel.from_config(hf.BertConfig(**BERT_LIKE, **words)),
        "roberta": lambda: hf.AutoModel.from_config(hf.RobertaConfig(**BERT_LIKE, **words)),
        "vit": lambda: hf.AutoModel.from_config(
            hf.ViTConfig(image_size=8, patch_size=4, num_channels=1, **BERT_LIKE)
        ),
        "gpt2": lambda: hf.AutoModel.from_config(hf.GPT2Config(**gpt2)),
        "t5": lambda: hf.T5EncoderModel(hf.T5Config(**t5)),
    }
    torch.manual_seed(0)
    model = build[name]().double().train()
    for key, value in model.named_parameters():
        scale = "norm" in key.lower() or ".ln_" in key
        nn.init.normal_(value, mean=float(scale and key.endswith("weight")), std=0.3)
    return model


class Problem(NamedTuple):
    loop: InnerLoop
    weights: Weights
    shared: Weights
    support: Any
    query: Any

    def gradient(self, ends: list[Weights]) -> Weights:
        """The slope of the queries' loss after adaptation in everything that the tasks began with."""
        outer = sum(
            self.loop.loss(end, self.shared, tuple(part[task] for part in self.query))
            for task, end in enumerate(ends)
        )
        inputs = self.weights | self.shared
        found = torch.autograd.grad(outer, list(inputs.values()))
        return dict(zip(inputs, found, strict=True))

    def by_descent(self, **options: Any) -> Weights:
        start = {name: value.expand(TASKS, *value.shape) for name, value in self.weights.items()}
        ends = descend(self.loop, start, self.shared, self.support, **options)
        return self.gradient([{n: v[task] for n, v in ends.items()} for task in range(TASKS)])

    def by_a_loop(self) -> Weights:
        """Neither vmap nor anything of this library: the graph of all steps, one task after the other."""
        ends = []
        for task in range(TASKS):
            support, own = tuple(part[task] for part in self.support), self.weights
            for step in range(STEPS):
                loss = self.loop.loss(own, self.shared, support)
                slopes = torch.autograd.grad(loss, list(own.values()), create_graph=True)
                named = dict(zip(own, slopes, strict=True))
                own = self.loop.update(own, named, self.shared, step)
            ends.append(own)
        return self.gradient(ends)


def problem(name: str, attention: str, masking: str = "additive") -> Problem:
    """The last layer and every norm adapt, with a head; the rest and the rate of the steps are shared."""
    model = stock_model(name)
    model.set_attn_implementation(attention)  # type: ignore[operator]
    torch.manual_seed(1)

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        x = torch.randint(2, 20, (TASKS, EXAMPLES, WORDS))
        exists = torch.ones_like(x, dtype=torch.bool)
        exists[:, 0, 3:] = exists[1, 2, 2:] = False
        x[~exists] = PADDING
        if name == "vit":
            x = torch.randn(TASKS, EXAMPLES, 1, 8, 8, dtype=torch.float64)
        return x, torch.randint(0, WAY, (TASKS, EXAMPLES)), exists

    named = {n: p for n, p in model.named_parameters() if not n.startswith("pooler.")}
    adapted = [n for n in adapted_names(model, "last:1, norms") if n in named]
    weights = {n: p for n, p in named.items() if n in adapted}
    shared = {n: p for n, p in named.items() if n not in adapted}
    weights["head"] = torch.randn(WIDTH, WAY, dtype=torch.float64, requires_grad=True)
    shared["rate"] = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def loss(weights: Weights, shared: Weights, data: Any) -> Tensor:
        x, y, exists = data
        own = {n: v for n, v in (shared | weights).items() if n in named}
        if name == "vit":
            inputs = {"pixel_values": x}
        elif masking == "flat":
            inputs = {"input_ids": x, "attention_mask": exists.long()}
        else:
            mask = additive_mask(exists, torch.float64, causal=name == "gpt2")
            inputs = {"input_ids": x, "attention_mask": mask}
        hidden = torch.func.functional_call(model, own, (), inputs).last_hidden_state
        if name == "vit":
            pooled = hidden.mean(1)
        else:
            pooled = (hidden * exists[..., None]).sum(1) / exists.sum(1, keepdim=True)
        return F.cross_entropy(pooled @ weights["head"], y)

    def update(weights: Weights, slopes: Weights, shared: Weights, step: int) -> Weights:
        return {n: v - shared["rate"] * slopes[n] for n, v in weights.items()}

    return Problem(InnerLoop(loss, update, STEPS), weights, shared, draw(), draw())


@cache
def expected(name: str, attention: str = "eager") -> Weights:
    """From the loop, with the flat mask that a user of transformers gives."""
    with exact_derivatives():
        return problem(name, attention, masking="flat").by_a_loop()


def error(found: Weights, right: Weights) -> float:
    """The worst error of a tensor, relative to its norm.

    Tensors without a ten-thousandth of the whole gradient count as if they had it: the bias of the keys has a gradient
    of zero, which in numbers is one of rounding errors.
    """
    whole = torch.cat([value.flatten() for value in right.values()]).norm()
    return max(
        float((found[n] - value).norm() / max(value.norm(), 1e-4 * whole))
        for n, value in right.items()
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("strategy", "tasks_at_once"), EXACT)
def test_strategies_are_exact(name: str, strategy: str, tasks_at_once: int) -> None:
    found = problem(name, "eager").by_descent(strategy=strategy, tasks_at_once=tasks_at_once)
    assert error(found, expected(name)) < 1e-12


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "vit"])
@pytest.mark.parametrize(("strategy", "tasks_at_once"), [("unroll", 1), ("sweep", 2)])
def test_the_attention_that_models_come_with_is_exact(
    name: str, strategy: str, tasks_at_once: int
) -> None:
    found = problem(name, "sdpa").by_descent(strategy=strategy, tasks_at_once=tasks_at_once)
    # The eager attention of ViT takes its softmax in float32, whatever the weights are.
    assert error(found, expected(name, "sdpa" if name == "vit" else "eager")) < 1e-12


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tasks_at_once", [1, 2])
def test_central_differences_are_close(
    name: str, tasks_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "t5":
        # T5 takes its variance in float32, whose rounding errors a step fit for float64 would blow up.
        from transformers.models.t5.modeling_t5 import T5LayerNorm

        monkeypatch.setattr(
            T5LayerNorm,
            "forward",
            lambda norm, x: norm.weight * F.rms_norm(x, x.shape[-1:], eps=norm.variance_epsilon),
        )
    attention = "sdpa" if name == "vit" else "eager"
    found = problem(name, attention).by_descent(strategy="fd", tasks_at_once=tasks_at_once)
    assert error(found, expected(name, attention)) < 1e-4


@pytest.mark.parametrize("name", ["bert", "t5"])
@pytest.mark.parametrize("strategy", ["unroll", "sweep"])
def test_a_flat_mask_under_vmap_says_what_to_do(name: str, strategy: str) -> None:
    flat = problem(name, "eager", masking="flat")
    with pytest.raises(RuntimeError, match=r"take tasks_at_once=1.*additive_mask in its place"):
        flat.by_descent(strategy=strategy, tasks_at_once=2)
    found = flat.by_descent(strategy=strategy, tasks_at_once=1)
    assert error(found, expected(name)) < 1e-12


def test_the_measured_step_runs_by_the_exact_kernels() -> None:
    """Fused attention keeps no square of words by words, so measuring it would promise too much memory."""

    def loss(weights: Weights, shared: Weights, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x * weights["scale"], x, x).square().sum()

    words = 64
    loop = InnerLoop(loss, lambda weights, slopes, shared, step: weights, 1)
    start = {"scale": torch.ones(1, 1)}
    assert graph_bytes(loop, start, {}, torch.randn(1, 1, 1, words, 4)) > words * words * 4
