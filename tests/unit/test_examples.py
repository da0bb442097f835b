"""The scripts under examples/ run, in a small setting."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

import tiny_corpora
from quickstudy.artifact import save_artifact
from quickstudy.build import build_learner
from quickstudy.config import RunConfig
from quickstudy.data.source import DataNote
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import ImageEncoder

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str, *arguments: str, **options: int) -> None:
    """Call the ``main`` of an example."""
    runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*arguments, **options)


@pytest.fixture
def artifact(tmp_path):
    """The folder of an untrained artifact for images."""
    torch.manual_seed(0)
    config = RunConfig(encoder={"name": "image", "width": 16, "layers": 1})
    save_artifact(tmp_path / "artifact", ProtoNet(ImageEncoder(16, layers=1)), config, {})
    return str(tmp_path / "artifact")


def test_examples_are_short():
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) >= 3
    for script in scripts:
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 60, script


def test_an_example_without_its_arguments_says_how_it_is_run(monkeypatch):
    for script in sorted(EXAMPLES.glob("*.py")):
        if "sys.argv" in script.read_text(encoding="utf-8"):
            monkeypatch.setattr("sys.argv", [str(script)])
            with pytest.raises(SystemExit, match=f"python examples/{script.name}"):
                runpy.run_path(str(script), run_name="__main__")


def test_meta_train(tmp_path, capsys):
    small = ["encoder.width=8", "encoder.layers=1", "encoder.heads=2", "episode.way=5"]
    few = ["training.steps=2", "training.warmup=0", "validation.episodes=2", "validation.every=2"]
    run_example("meta_train", str(tmp_path / "run"), *small, *few, episodes=2)
    assert "20-way 1-shot within a script" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_own_images(artifact, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for shade, name in ((20, "dark"), (120, "grey")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(2):
            picture = Image.new("L", (28, 28), shade + i)
            picture.putpixel((i, 14), 150)
            picture.save(tmp_path / "mine" / name / f"{i}.png")
    run_example("own_images", artifact, "mine", "mine/dark/0.png", "mine/grey/1.png")
    out = capsys.readouterr().out
    assert "Learned 2 classes from 4 pictures." in out
    assert out.count("% sure)") == 2


@pytest.fixture
def reader(tmp_path):
    """The folder of an untrained artifact that reads texts byte by byte."""
    torch.manual_seed(0)
    config = RunConfig(data="text:some.csv", encoder={"name": "words", "width": 8})
    learner = build_learner(config.learner, config.encoder)
    save_artifact(tmp_path / "reader", learner, config, {})
    return str(tmp_path / "reader")


def test_support_tickets(reader, tmp_path, capsys):
    table = tmp_path / "tickets.csv"
    rows = [f"{what} {i},{label}" for what, label in (("abc", "x"), ("zzz", "y")) for i in range(3)]
    table.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    run_example("support_tickets", reader, str(table), "abc 7", "zzz 8")
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Learned 2 kinds of tickets from 6."
    assert out[1].startswith("abc 7: x ")
    assert out[2].startswith("zzz 8: y ")
    assert out[3].startswith("Told that the first is x: ")


def test_many_domains(reader, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{what} {domain} {i},{label},{domain}"
        for domain in ("books", "shoes")
        for what, label in (("abc", "good"), ("zzz", "bad"))
        for i in range(4)
    ]
    Path("table.csv").write_text("\n".join(["text,label,group", *rows]), encoding="utf-8")
    run_example("many_domains", reader, "table.csv", "3")
    out = capsys.readouterr().out.splitlines()
    assert out == [f"{domain}: 2 of 2 right after 6 texts" for domain in ("books", "shoes")]
    assert sorted(file.name for file in Path("domains").iterdir()) == ["books.task", "shoes.task"]
    run_example("many_domains", reader, "table.csv", "4")
    assert "none is left to try it on" in capsys.readouterr().out


def test_new_intent(reader, tmp_path, capsys):
    table = tmp_path / "intents.csv"
    rows = [f"{what} {i},{label}" for what, label in (("abc", "x"), ("zzz", "y")) for i in range(3)]
    table.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    run_example("new_intent", reader, str(table), "a_new", "mmm 1", "abc 7", "mmm 2")
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "2 intents from 6 texts:"
    assert out[1].startswith("  abc 7: x ")
    assert out[4] == "3 intents, a_new from one text:"
    assert out[5].startswith("  abc 7: x ")
    assert [line.split(": ")[1].split()[0] for line in out[6:]] == ["a_new", "a_new"]


TINY = ["encoder=words", "encoder.width=8", "training.warmup=0", "validation.episodes=2"]


def test_new_category(tmp_path, capsys):
    run_example("new_category", str(tmp_path / "run"), "", *TINY, "training.steps=80", episodes=30)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Trained on books, films, games, phones, shoes; tested on kettles:"
    assert float(out[1].split()[4].rstrip("%")) > 80
    tiny_corpora.fdu_mtl(tmp_path / "corpus")
    data = f"fdu_mtl:{tmp_path / 'corpus'},held_out={tiny_corpora.PLACES[0]}"
    few = [*TINY, "training.steps=1", "episode.queries=1", "validation.queries=1"]
    with pytest.warns(DataNote):
        run_example("new_category", str(tmp_path / "two"), data, *few, queries=4, episodes=2)
    seen, tested = capsys.readouterr().out.splitlines()[0].split("; ")
    assert tested == f"tested on {tiny_corpora.PLACES[0]}:"
    assert tiny_corpora.PLACES[0] not in seen


def test_tables_with_sklearn(capsys):
    run_example("tables_with_sklearn", rows=30)
    out = capsys.readouterr().out
    right = re.search(r"30 wines learned, (\S+)% of 148 others right", out)
    assert float(right.group(1)) > 85
    assert "Cross-validated" in out


def test_digits_with_sklearn(artifact, capsys):
    run_example("digits_with_sklearn", artifact)
    assert "After 100 more" in capsys.readouterr().out


def save_tiny(kind: str, folder: Path, words: list[str]) -> None:
    """A model without a classification head, as pretrained ones come, and a tokenizer that knows the words."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    config = hf.AutoConfig.for_model(
        kind,
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        initializer_range=0.3,
        pad_token_id=0,
    )
    hf.AutoModel.from_config(config).save_pretrained(folder)


@pytest.mark.parametrize("kind", ["bert", "roberta", "minilm"])
def test_sequence_classification(kind, tmp_path, monkeypatch, capsys):
    model, words = kind, [f"{label}{i}" for label in "abcdef" for i in range(4)]
    if kind != "minilm":
        model = str(tmp_path / "model")
        save_tiny(kind, tmp_path / "model", words)
    table = [f"{word} {word[0]}0,{word[0]}" for word in words]
    (tmp_path / "intents.csv").write_text("\n".join(["text,label", *table]), encoding="utf-8")
    reached = []

    class Watched(torch.optim.AdamW):
        def step(self) -> None:
            parameters = self.param_groups[0]["params"]
            reached.extend(
                value.grad is not None and bool(value.grad.any()) for value in parameters
            )
            super().step()

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    run_example("sequence_classification", model, str(tmp_path / "intents.csv"), steps=1, way=2)
    before, after = re.search(r"Loss (\S+), (\S+) after", capsys.readouterr().out).groups()
    assert float(after) < 0.9 * float(before)
    # Only the biases of the keys, one of each layer, have a gradient of zero.
    assert reached.count(False) <= 2 < reached.count(True)


def test_few_labels_many_texts(tmp_path, capsys):
    torch.manual_seed(0)
    encoder = {"name": "words", "width": 8}
    config = RunConfig(data="text:some.csv", learner="linear_head", encoder=encoder)
    save_artifact(tmp_path / "reader", build_learner(config.learner, config.encoder), config, {})
    few, many = tmp_path / "few.csv", tmp_path / "many.txt"
    few.write_text("text,label\nabc one,x\nzzz two,y\n", encoding="utf-8")
    many.write_text("\n".join(f"{what} {i}" for i in range(6) for what in ("abc", "zzz")))
    run_example("few_labels_many_texts", str(few), str(many), str(tmp_path / "reader"))
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Learned 2 classes from 2 texts with a label."
    assert out[1].startswith("12 texts without one changed ")
    assert out[-1].startswith("Ask a person about: ")
    assert out[-1].count("; ") == 2
