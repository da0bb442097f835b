"""Pretrained text models of Hugging Face, found and read: weights from safetensors only, nothing fetched unasked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from quickstudy.nn.minilm import MINILM, PretrainedError, minilm_folder

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


def load_text_model(name: str, download: bool) -> tuple[Any, Tokenizer]:
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
