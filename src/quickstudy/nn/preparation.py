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
