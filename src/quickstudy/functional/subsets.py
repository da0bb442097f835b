"""Which weights of a module adapt, chosen by name."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from torch import nn


def adapted_names(module: nn.Module, subset: str) -> tuple[str, ...]:
    """Names of the trainable parameters of ``module`` that ``subset`` chooses, in the order of the module.

    Args:
        module: usually an encoder.
        subset: one of the following, or several of them with commas between:

            - ``all``: every parameter;
            - ``head``: none of the module's, only the head that a learner puts on it;
            - ``norms``: the scales and shifts of the normalisation layers;
            - ``lora``: the adapters of LoRA (Hu et al. 2022), in the naming of peft;
            - ``last:n``: the last n layers of the longest stack, and what follows them;
            - a pattern of names with ``*`` and ``?``, such as ``*.attention.*``.

    Returns:
        Names; frozen parameters are never among them.

    Raises:
        ValueError: a part chooses nothing, with the names that there are; ``last`` without a positive number.

    >>> stack = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    >>> adapted_names(stack, "norms")
    ('1.weight', '1.bias')
    >>> adapted_names(stack, "*.bias")
    ('0.bias', '1.bias')
    """
    names = [name for name, value in module.named_parameters() if value.requires_grad]
    chosen: set[str] = set()
    for part in (text.strip() for text in subset.split(",")):
        if part == "head" or (part == "all" and not names):
            continue
        if part == "all":
            found = set(names)
        elif part == "norms":
            found = set(names) & _of_norms(module)
        elif part == "lora":
            found = set(names) & _of_lora(module)
        elif part.startswith("last:"):
            found = set(names) & _of_last(module, part)
        else:
            found = {name for name in names if fnmatchcase(name, part)}
        if not found:
            raise ValueError(
                f"No trainable parameter matches {part!r}; choose all, head, norms, lora, last:n, or a pattern of "
                f"these names: {_patterns(names)}."
            )
        chosen |= found
    return tuple(name for name in names if name in chosen)


def _of_norms(module: nn.Module) -> set[str]:
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return {
        f"{path}.{name}".lstrip(".")
        for path, part in module.named_modules()
        if isinstance(part, kinds) or type(part).__name__.endswith(("LayerNorm", "RMSNorm"))
        for name, _ in part.named_parameters(recurse=False)
    }


def _of_lora(module: nn.Module) -> set[str]:
    adapters = {
        name: value
        for name, value in module.named_parameters()
        if any(part.startswith("lora_") for part in name.split("."))
    }
    if not adapters:
        raise ValueError(
            "Found 'lora', but the module has no adapters, parameters named lora_A and lora_B; build a text encoder "
            "with lora=8, or put them into its model by peft.inject_adapter_in_model."
        )
    if not any(value.requires_grad for value in adapters.values()):
        raise ValueError(
            f"Found 'lora', but all {len(adapters)} parameters of adapters are frozen; call requires_grad_(True) on "
            "those that adapt."
        )
    return set(adapters)


def _of_last(module: nn.Module, part: str) -> set[str]:
    count = part.removeprefix("last:")
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(f"Found {part!r}; write last:n with n at least 1, such as last:2.")
    stacks = [
        (path, len(part))
        for path, part in module.named_modules()
        if isinstance(part, nn.ModuleList)
    ]
    if not stacks:
        raise ValueError(f"Found {part!r}, but the module has no stack of layers; choose by name.")
    path, length = max(stacks, key=lambda stack: stack[1])
    if int(count) > length:
        raise ValueError(f"Found {part!r}, but the stack {path} has {length} layers.")
    names = [name for name, _ in module.named_parameters()]
    first = next(
        i for i, name in enumerate(names) if name.startswith(f"{path}.{length - int(count)}.")
    )
    return set(names[first:])


def _patterns(names: list[str]) -> str:
    """The names with layer numbers folded: 100 names of 12 equal layers become about 10."""
    folded = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    frozen = "(none; every parameter is frozen: build a text encoder with frozen=false or lora=8)"
    return ", ".join(folded) or frozen
