"""Tiny models of texts with random weights, in the folders that Hugging Face reads."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

WORDS = ["please", "freeze", "my", "card", "hello", "again", "order", "food"]
FRAMES = {
    "bert": ("[CLS] $A [SEP]", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"),
    "roberta": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
}


def save_model(folder: Path, kind: str = "bert", *, most_words: int = 40) -> Path:
    """A model of two layers that knows eight words, with a tokenizer; its weights are always the same."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    shape = {
        "vocab_size": 16,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if kind == "roberta":
        # Positions of RoBERTa begin behind that of padding.
        longest = {
            "max_position_embeddings": most_words + 2,
            "type_vocab_size": 1,
            "pad_token_id": 1,
        }
        config = hf.RobertaConfig(**shape, **longest)
    else:
        config = hf.BertConfig(**shape, max_position_embeddings=most_words)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = hf.AutoModel.from_config(config)
        for value in model.parameters():
            nn.init.normal_(value, std=0.4)
    model.save_pretrained(folder)
    special = ["[PAD]", "[UNK]"] if kind == "bert" else ["[UNK]", "[PAD]"]
    words = [*special, "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    one, two = FRAMES[kind]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=one, pair=two, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    return folder
