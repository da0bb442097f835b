"""Adapters of LoRA: a few thousand numbers adapt to a task, and the pretrained model stays as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quickstudy.episode import Context, Episode, Examples
from quickstudy.functional import adapted_names
from quickstudy.learners.gradient import MAML
from quickstudy.nn.features import has_frozen_features
from quickstudy.nn.preparation import add_lora, take_change
from quickstudy.nn.pretrained import HuggingFaceEncoder, PretrainedError

RANK = 2


def save_model(folder: Path, kind: str = "bert") -> Path:
    """A tiny random model with a tokenizer of five words."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    if kind == "bert":
        config = hf.BertConfig(
            vocab_size=12,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
        )
    else:
        config = hf.GPT2Config(
            **{"vocab_size": 12, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16},
            **{"bos_token_id": 0, "eos_token_id": 0},
        )
    model = hf.AutoModel.from_config(config)
    for value in model.parameters():
        nn.init.normal_(value, std=0.4)
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "please", "freeze", "my", "card", "hello"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return save_model(tmp_path_factory.mktemp("models") / "bert")


def build(folder: Path, **options: object) -> HuggingFaceEncoder:
    return HuggingFaceEncoder(str(folder), words=8, **options)  # type: ignore[arg-type]


def two_tasks(encoder: HuggingFaceEncoder) -> Episode:
    support = encoder.tokenize(["freeze my card", "hello", "please freeze", "hello my"])
    query = encoder.tokenize(["my card", "hello please"])

    def examples(x: Tensor, way: int = 2) -> Examples:
        y = torch.arange(len(x)) % way
        both = torch.stack([x, x.flip(0)])
        mask = torch.ones(2, len(x), dtype=torch.bool)
        return Examples(both, torch.stack([y, y.flip(0)]), mask)

    classes = torch.ones(2, 2, dtype=torch.bool)
    context = Context(classes, torch.zeros(2, 0), torch.zeros(2, 2, 0))
    return Episode(examples(support), examples(query), context)


def test_adapters_change_nothing_before_they_are_trained(folder: Path) -> None:
    plain, with_adapters = build(folder), build(folder, lora=RANK)
    tokens = plain.tokenize(["freeze my card", "hello"])
    torch.testing.assert_close(with_adapters.eval()(tokens), plain.eval()(tokens))
    assert has_frozen_features(plain)
    assert not has_frozen_features(with_adapters)


@pytest.mark.parametrize("by", ["option", "peft"])
def test_only_adapters_adapt_and_the_model_stays(folder: Path, by: str) -> None:
    if by == "option":
        encoder = build(folder, lora=RANK)
    else:
        from peft import LoraConfig, inject_adapter_in_model

        encoder = build(folder)
        config = LoraConfig(r=RANK, target_modules=["query", "value"])
        inject_adapter_in_model(config, encoder.model)
        assert not has_frozen_features(encoder)
    names = set(adapted_names(encoder, "lora"))
    linear = [part for _, part in encoder.named_modules() if hasattr(part, "lora_A")]
    assert len(linear) == (2 * 6 if by == "option" else 2 * 2)
    assert len(names) == 2 * len(linear)

    learner = MAML(encoder.double(), adapt="lora", steps=3, rate=0.5)
    state = learner.adapt(*(episode := two_tasks(encoder))[::2])
    assert set(state) == {"head.weight", "head.bias", *(f"encoder.{name}" for name in names)}
    for name in names:
        moved = (state[f"encoder.{name}"] - encoder.get_parameter(name)).abs().amax((1, 2))
        assert (moved > 0).all(), name

    before = {name: value.clone() for name, value in learner.named_parameters()}
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    learner(episode).backward()
    optimizer.step()
    for name, value in learner.named_parameters():
        trained = name.removeprefix("encoder.") in names
        assert (value.grad is not None and value.grad.abs().sum() > 0) == trained, name
        assert torch.equal(value, before[name]) != trained, name


def test_the_gradient_through_adapters_is_that_of_central_differences(folder: Path) -> None:
    encoder = build(folder, lora=RANK).double().eval()
    learner = MAML(encoder, adapt="lora", steps=2, rate=0.5, tasks_at_once=2, strategy="unroll")
    names = adapted_names(encoder, "lora")
    for name in names:
        nn.init.normal_(encoder.get_parameter(name), std=0.4)
    episode = two_tasks(encoder)
    parameters = [encoder.get_parameter(name) for name in names]
    slopes = torch.autograd.grad(learner(episode), parameters)
    way = [torch.randn_like(value) for value in parameters]
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            for value, part in zip(parameters, way, strict=True):
                value += sign * 1e-5 * part
            ends.append(learner(episode))
            for value, part in zip(parameters, way, strict=True):
                value -= sign * 1e-5 * part
    expected = (ends[0] - ends[1]) / 2e-5
    found = sum((slope * part).sum() for slope, part in zip(slopes, way, strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_an_encoder_with_adapters_is_rebuilt_from_its_assets(folder: Path) -> None:
    encoder = build(folder, lora=RANK)
    for name in adapted_names(encoder, "lora"):
        nn.init.normal_(encoder.get_parameter(name))
    assets = json.loads(json.dumps({k: v.decode() for k, v in encoder.assets().items()}))
    again = HuggingFaceEncoder.from_assets(
        {k: v.encode() for k, v in assets.items()}, model="/gone", words=8, lora=RANK
    )
    again.load_state_dict(encoder.state_dict())
    tokens = encoder.tokenize(["freeze my card"])
    assert torch.equal(again.eval()(tokens), encoder.eval()(tokens))
    assert adapted_names(again, "lora") == adapted_names(encoder, "lora")


def test_transposed_weights_take_adapters_too(tmp_path: Path) -> None:
    encoder = build(save_model(tmp_path, "gpt2"), lora=RANK)
    assert len(adapted_names(encoder, "lora")) == 2 * 4


def test_where_there_are_no_adapters(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no adapters.*build a text encoder with lora=8"):
        adapted_names(build(folder, frozen=False), "lora")
    with pytest.raises(ValueError, match="no adapters"):
        MAML(build(folder), adapt="lora")
    encoder = build(folder, lora=RANK).requires_grad_(False)
    with pytest.raises(ValueError, match=r"all 24 parameters of adapters are frozen"):
        adapted_names(encoder, "lora")


def test_wrong_options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PretrainedError, match="found lora=-1 and frozen=true"):
        build(folder, lora=-1)
    with pytest.raises(PretrainedError, match="found lora=2 and frozen=false"):
        build(folder, lora=2, frozen=False)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(PretrainedError, match=r"pip install 'quickstudy\[lora\]'"):
        add_lora(build(folder).model, RANK)


def test_adapters_take_over_what_training_changed(folder: Path) -> None:
    trained = build(folder, frozen=False).double().eval()
    adapted = build(folder, lora=RANK).double().eval()
    maps = [part for part in trained.model.modules() if isinstance(part, nn.Linear)]
    tokens = trained.tokenize(["where is my card", "hello"])
    before = trained(tokens)
    with torch.no_grad():
        for part in maps:
            rows, columns = part.weight.shape
            part.weight += 0.3 * torch.randn(rows, RANK) @ torch.randn(RANK, columns)
    assert take_change(adapted.model, trained.model) == pytest.approx(1)
    torch.testing.assert_close(adapted(tokens), trained(tokens))
    assert take_change(adapted.model, trained.model, scale=0.0) == 0
    torch.testing.assert_close(adapted(tokens), before)
    with torch.no_grad():
        maps[0].weight += torch.randn(maps[0].weight.shape)
    assert 0.5 < take_change(adapted.model, trained.model) < 0.999
