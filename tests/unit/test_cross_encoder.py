"""Pairs of texts as the stock tokenizer and model read them, and what a cross-encoder makes of them, spelled out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from learner_table import PairReader, shaken
from named_tasks import Words, text_task
from quickstudy.artifact import answer, extend, load_artifact, load_task, save_artifact, save_task
from quickstudy.build import build_learner
from quickstudy.config import RunConfig
from quickstudy.episode import Episode, collate
from quickstudy.learners import cross_encoder
from quickstudy.learners.cross_encoder import CrossEncoder
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import VectorEncoder
from quickstudy.nn.pretrained import HuggingFaceEncoder
from tiny_models import save_model

close = torch.testing.assert_close
PAIRS = [("freeze my card", "hello"), ("hello", "order food again please"), ("", "card")]


class Both(PairReader):
    """Reads pairs of the texts of :class:`Words`."""

    tokenize = Words.tokenize


def learner_of(**options: Any) -> CrossEncoder:
    torch.manual_seed(0)
    learner = shaken(CrossEncoder(Both(Words()), **options))
    assert isinstance(learner, CrossEncoder)
    return learner.eval()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_pair_is_read_as_the_stock_model_reads_it(
    tmp_path: Path, kind: str, pooling: Any
) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = save_model(tmp_path, kind)
    stock, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    encoder = HuggingFaceEncoder(str(folder), words=8, pooling=pooling, normalise=False).eval()
    first, second = (encoder.tokenize(texts) for texts in zip(*PAIRS, strict=True))
    found = encoder.read_pairs(first, second)
    for pair, own in zip(PAIRS, found, strict=True):
        told = tokenizer(*pair, return_tensors="pt", return_token_type_ids=kind == "bert")
        hidden = stock(**told).last_hidden_state[0]
        close(own, hidden.mean(0) if pooling == "mean" else hidden[0], atol=1e-5, rtol=1e-4)
    padded = encoder.read_pairs(F.pad(first, (0, 2), value=-1), F.pad(second, (0, 3), value=-1))
    close(padded, found)
    with pytest.raises(ValueError, match=r"by their tokens.*give the tokens"):
        encoder.read_pairs(found, found)


def test_a_pair_that_is_too_long_keeps_half_of_each_text(tmp_path: Path) -> None:
    encoder = HuggingFaceEncoder(str(save_model(tmp_path, most_words=12)), words=12)
    seen = []
    encoder.model.register_forward_hook(
        lambda _, __, kwargs, ___: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    tokens = encoder.tokenize(["card " * 20, "hello " * 20])
    encoder.read_pairs(tokens[:1], tokens[1:])
    assert seen[-1].tolist() == [[2, 7, 7, 7, 7, 3, 8, 8, 8, 8, 3]]


def test_a_class_is_as_its_examples_and_its_name_say() -> None:
    learner = learner_of(names=True)
    task = text_task(torch.randint(20, (3, 4)))
    state = learner.adapt(*(episode := collate([task]))[::2])
    found = learner.predict(state, episode.query.x, episode.context)[0]
    encoder, weight = learner.encoder, learner.log_name_weight.exp()
    for asked, logits in zip(task.query_x, found, strict=True):
        for way in range(3):
            own = task.support_x[task.support_y == way]
            texts = torch.cat([own, task.names[way : way + 1]])
            counts = torch.cat([weight.new_ones(len(own)), weight[None]])
            middle = (F.normalize(encoder(texts), dim=1) * counts[:, None]).sum(0)
            near = torch.cosine_similarity(encoder(asked[None])[0], middle, dim=0)
            pairs = encoder.read_pairs(asked.expand(len(texts), -1), texts)
            said = (pairs @ learner.read.weight[0]).exp()
            expected = near * learner.log_temperature.exp()
            expected = expected + ((said * counts).sum() / counts.sum()).log()
            close(logits[way], expected, rtol=1e-10, atol=1e-10)


def plain_logits(learner: CrossEncoder, episode: Episode) -> torch.Tensor:
    """Those of a prototypical network on the same encoder."""
    reference = ProtoNet(learner.encoder).double()
    torch.nn.init.constant_(reference.log_temperature, learner.log_temperature.item())
    state = reference.adapt(episode.support, episode.context)
    return reference.predict(state, episode.query.x, episode.context)


def test_untrained_or_with_too_many_examples_it_is_a_prototypical_network() -> None:
    episode = collate([text_task(torch.zeros(3, 0, dtype=torch.int64))])
    cases = [({}, True, True), ({"pairs": 5}, False, True), ({"pairs": 6}, False, False)]
    for options, silent, same in cases:
        learner = learner_of(**options)
        if silent:
            torch.nn.init.zeros_(learner.read.weight)
        state = learner.adapt(episode.support, episode.context)
        found = learner.predict(state, episode.query.x, episode.context)
        expected = plain_logits(learner, episode)
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12) is same, options


@pytest.mark.parametrize("names", [False, True])
def test_queries_a_few_at_a_time_have_the_gradient_of_all_at_once(
    names: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of(names=names)
    episode = collate([text_task(torch.randint(20, (3, 4))) for _ in range(2)])
    weights = list(learner.parameters())
    right = learner.query_loss(episode)
    expected = torch.autograd.grad(right, weights)
    read = []
    monkeypatch.setattr(cross_encoder, "PAIRS_AT_ONCE", {True: 20, False: 20})
    whole = learner.encoder.read_pairs
    monkeypatch.setattr(
        learner.encoder, "read_pairs", lambda a, b: (read.append(len(a)), whole(a, b))[1]
    )
    loss = learner(episode)
    close(loss, right, rtol=1e-12, atol=1e-12)
    close(torch.autograd.grad(loss, weights), expected, rtol=1e-10, atol=1e-12)
    assert max(read) <= 20
    assert sum(read) == 2 * 5 * (9 if names else 6)


def test_what_cannot_be_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="as one text, which VectorEncoder cannot; choose the enc"):
        CrossEncoder(VectorEncoder(2))
    with pytest.raises(ValueError, match="at least 1; found 0"):
        CrossEncoder(Both(Words()), pairs=0)
    folder = str(save_model(tmp_path))
    with pytest.raises(ValueError, match="build it with lora=8 or frozen=false"):
        CrossEncoder(HuggingFaceEncoder(folder, words=8))
    assert CrossEncoder(HuggingFaceEncoder(folder, words=8, lora=2))


def test_a_task_comes_back_from_its_file(tmp_path: Path) -> None:
    encoder = {
        "name": "text",
        "model": str(save_model(tmp_path / "bert")),
        "frozen": False,
        "words": 16,
    }
    options = {"name": "cross_encoder", "names": True}
    config = RunConfig(data="text:own.csv", learner=options, encoder=encoder)
    learner = shaken(build_learner(config.learner, config.encoder)).eval()
    save_artifact(tmp_path / "artifact", learner, config, {})
    artifact = load_artifact(tmp_path / "artifact")
    texts = artifact.learner.encoder.tokenize(["freeze my card", "hello", "order food", "my card"])
    task = extend(artifact, None, texts, ["card", "hello", "order", "card"])
    asked = artifact.learner.encoder.tokenize(["please freeze", "hello again"])
    before = answer(artifact, task, asked)
    save_task(tmp_path / "own.task", task)
    again = load_task(tmp_path / "own.task", artifact)
    assert torch.equal(answer(artifact, again, asked), before)
    more = extend(artifact, again, asked, ["order", "order"])
    assert not torch.equal(answer(artifact, more, asked), before)
