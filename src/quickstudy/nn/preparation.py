"""What a model of Hugging Face needs before it adapts: exact norms, ready masks, adapters."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.nn.layers import Norm
from quickstudy.nn.minilm import PretrainedError


def make_exact(model: Any) -> None:
    """Make a loaded model safe under ``vmap`` and second derivatives, in place: same names, same outputs.

    Layer norms become :class:`quickstudy.nn.layers.Norm`; embeddings lose their padding index, whose rule for
    the gradient differs inside and outside of ``vmap``; the pooling head, which nothing here uses, goes.
    """
    for module in model.modules():
        if type(module) is nn.LayerNorm:
            module.__class__ = Norm
        elif isinstance(module, nn.Embedding):
            module.padding_idx = None
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None


def additive_mask(exists: Tensor, dtype: torch.dtype, *, causal: bool = False) -> Tensor:
    """An attention mask that models of Hugging Face take as it is, inside function transforms as well.

    From a flat mask transformers makes one like it with a branch on the data, which ``vmap`` refuses, and a boolean one
    is silently wrong under eager attention.

    Args:
        exists: bool (example, word); False is padding.
        dtype: of the model's weights.
        causal: hide the words behind each word too, as a model such as GPT-2 does; a ready mask has to say so itself.

    Returns:
        Float (example, 1, word, word): zero, or the least float where a word is hidden. Not minus infinity, so that
        a text without any word, which is padding of a task, is free of NaN.

    >>> additive_mask(torch.tensor([[True, False]]), torch.float32).eq(0).tolist()
    [[[[True, False], [True, False]]]]
    """
    words = exists.shape[1]
    visible = exists[:, None, None, :]
    if causal:
        visible = visible & torch.ones(words, words, dtype=torch.bool, device=exists.device).tril()
    shown = torch.zeros(visible.shape, dtype=dtype, device=exists.device)
    return shown.masked_fill(~visible, torch.finfo(dtype).min).expand(-1, 1, words, words)


def take_change(adapted: nn.Module, trained: nn.Module, *, scale: float = 1.0) -> float:
    """Let adapters of LoRA do what training did to the linear maps of a model, as nearly as their rank allows.

    ``B A ≈ scale (W_trained - W)``, the best of that rank by Eckart & Young 1936, The approximation of one matrix by
    another of lower rank. With a scale below 1 the model stays nearer to what it was (Wortsman et al. 2022, Robust
    fine-tuning of zero-shot models). Changes of biases and norms are left out.

    Args:
        adapted: has adapters (:func:`add_lora`), and beside them the weights from which training began; changed in
            place.
        trained: the same model without adapters, trained.
        scale: how much of the change is taken.

    Returns:
        The share of the change, in squares of its entries, that the adapters hold.
    """
    kept = whole = 0.0
    after = dict(trained.named_modules())
    with torch.no_grad():
        for name, part in adapted.named_modules():
            if not hasattr(part, "lora_A"):
                continue
            base: Any = part.base_layer
            change = scale * (after[name].weight - base.weight)
            (below,), (above,) = part.lora_A.values(), part.lora_B.values()
            left, sizes, right = torch.linalg.svd(change, full_matrices=False)
            rank, root = below.out_features, sizes.sqrt()
            below.weight.copy_(root[:rank, None] * right[:rank])
            above.weight.copy_(left[:, :rank] * root[:rank])
            kept += sizes[:rank].square().sum().item()
            whole += sizes.square().sum().item()
    return kept / max(whole, 1e-30)


def add_lora(model: Any, rank: int) -> None:
    """Put adapters of LoRA on every linear map of a model, in place; only they can be trained afterwards.

    ``W x`` becomes ``W x + B A x`` with A (rank, inputs) and B (outputs, rank), B at first zero.

    Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise PretrainedError(
            f"Adapters of LoRA need peft, which cannot be imported ({error}); run: pip install 'quickstudy[lora]'."
        ) from error
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear")
    with warnings.catch_warnings():
        # GPT-2 keeps its weights transposed; peft sees that, and says so.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        inject_adapter_in_model(config, model)
