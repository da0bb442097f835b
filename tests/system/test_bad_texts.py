"""Bad texts through what people use: the commands and the classifier. What is odd is named, and nothing is lost."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from quickstudy import FewShotClassifier
from quickstudy.artifact import load_artifact, load_task, save_artifact
from quickstudy.build import build_learner, build_source
from quickstudy.cli import main
from quickstudy.config import parse_config
from quickstudy.data.source import DataError, DataNote

Capture = pytest.CaptureFixture[str]

GOOD = "text,label\nwhere is my card,card\npay me back,money\nis it here,card\nthe money,money\n"


def save_model(path: Path, encoder: dict[str, object]) -> str:
    """An artifact that reads texts, with random weights."""
    config = parse_config(
        {"data": "text:some.csv", "encoder": encoder, "learner": {"name": "protonet"}}
    )
    torch.manual_seed(0)
    save_artifact(path, build_learner(config.learner, config.encoder), config, {})
    return str(path)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that reads texts byte by byte."""
    return save_model(tmp_path_factory.mktemp("model") / "reader", {"name": "words", "width": 8})


@pytest.fixture(scope="module")
def short_reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of Hugging Face that knows a dozen words and reads six tokens."""
    import transformers as hf

    folder = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD.replace(",", " ").split()]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    ).save_pretrained(folder / "hf")
    config = hf.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
    )
    hf.BertModel(config).save_pretrained(folder / "hf")
    return save_model(
        folder / "artifact", {"name": "text", "model": str(folder / "hf"), "words": 6}
    )


@pytest.fixture
def adapt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture):
    """Adapts a model to a table with this content; the exit code and what was said."""
    monkeypatch.chdir(tmp_path)

    def run(model: str, content: str | bytes, *more: str, name: str = "a.csv") -> tuple[int, str]:
        data = content.encode() if isinstance(content, str) else content
        Path(name).write_bytes(data)
        capsys.readouterr()
        code = main(["adapt", model, name, "--out", "new.task", *more])
        return code, capsys.readouterr().err

    return run


def test_a_text_under_two_labels_is_learned_and_named(reader: str, adapt) -> None:
    code, said = adapt(reader, GOOD + "pay me back,card\nthe money,card\n")
    assert code == 0
    assert (
        "Note: The same text 'pay me back' has two classes: 'money' at a.csv:3 and 'card' at a.csv:6 (1 more such)."
        " Both are kept"
    ) in said
    assert load_task("new.task", load_artifact(reader)).examples == 6
    classifier = FewShotClassifier(reader)
    with pytest.warns(
        DataNote, match=r"'b c' has two classes: '1' at example 2 and '2' at example 4\."
    ):
        classifier.fit(["a", "b c", "d", " b c"], [1, 1, 2, 2])
    assert classifier.task_.examples == 4
    with pytest.warns(DataNote, match="'e' has two classes"):
        classifier.partial_fit(["e", "e"], [1, 2])


def test_labels_that_read_alike_are_named_and_stay_apart(reader: str, adapt) -> None:
    rows = ["where,Card arrival", "is it,card_arrival", "my money, card_arrival ", "pay,Money"]
    code, said = adapt(reader, "\n".join(["text,label", *rows]))
    assert code == 0
    assert "Note: The labels 'Card arrival' and 'card_arrival' read alike, but each is" in said
    assert (
        "labels ' card_arrival ' and 'card_arrival' differ only in the blanks around them" in said
    )
    names = load_task("new.task", load_artifact(reader)).class_names
    assert names == ["Card arrival", "Money", "card_arrival"]
    # One more that is like an old one, and none: nothing more is said of the old ones.
    more = ("--from", "new.task", "--new-classes")
    code, said = adapt(reader, "text,label\nyour money,money\n", *more)
    assert code == 0
    assert "'card_arrival', 'Money' and 'money' read alike" in said
    code, said = adapt(reader, "text,label\nyour money,money\n", *more)
    assert code == 0
    assert "alike" not in said
    classifier = FewShotClassifier(reader)
    with pytest.warns(DataNote, match="'Card arrival' and 'card_arrival' read alike"):
        classifier.fit(["a", "b", "c"], ["Card arrival", "card_arrival", "x"])
    assert len(classifier.classes_) == 3
    with pytest.warns(DataNote, match="' card arrival ' and 'card_arrival' read alike"):
        classifier.fit(["a", "b"], ["card_arrival", " card arrival "])


def test_labels_of_a_training_file_that_read_alike_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{label} text {i},{label}" for label in ("A b", "a_b", " a_b", "c") for i in range(3)]
    path.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    with pytest.warns(DataNote) as notes:
        build_source(f"text:{path},test=1")
    said = [str(note.message) for note in notes]
    assert any(
        "' a_b' and 'a_b' differ only in the blanks around them and are one class" in s
        for s in said
    )
    assert any("'A b' and 'a_b' read alike, but each is" in s for s in said)


def test_empty_texts_and_one_class_are_refused(reader: str, adapt) -> None:
    code, said = adapt(reader, GOOD + '"  ",card\n')
    assert code == 1
    assert said == (
        "Error: a.csv, line 6: the column 'text' is empty; fill it or take the line away.\n"
    )
    code, said = adapt(reader, "text,label\nx,a\ny,a\n")
    assert code == 1
    assert "a.csv holds one class, 'a'; a task needs at least 2" in said
    assert not Path("new.task").exists()
    classifier = FewShotClassifier(reader)
    with pytest.raises(
        ValueError, match=r"The text number 2 is empty \(1 more such\); leave it out"
    ):
        classifier.fit(["a", "", " "], [1, 2, 2])
    with pytest.raises(ValueError, match="one class only, 'a'"):
        classifier.fit(["x", "y"], ["a", "a"])
    with pytest.raises(ValueError, match="number 1 is empty; leave"):
        classifier.fit(["x", "y"], ["a", "b"]).predict(["\n"])


def test_long_texts_are_counted_once(short_reader: str, adapt) -> None:
    long = "where is my card pay me back the money"
    code, said = adapt(short_reader, GOOD + f"{long},card\n{long} {long},money\n")
    assert code == 0
    assert said.count("cut off") == 1
    assert (
        "Note: 2 of 6 texts are longer than the 6 tokens that the encoder reads and cut off there, such as "
        "'where is my card pay me back the money'; shorten them, or train with a larger encoder.words."
    ) in said
    # What just fits is not cut.
    with pytest.warns(DataNote, match="1 of 3 texts is longer"):
        FewShotClassifier(short_reader).fit(
            ["where is my card", "is it here", "where is my card pay"], ["a", "b", "b"]
        )


def test_an_unknown_script_is_said(short_reader: str, adapt, capsys: Capture) -> None:
    code, said = adapt(short_reader, GOOD + "ſſ ჲჲ,card\n")
    assert code == 0
    assert (
        "Note: 1 of 5 texts is without a single word or letter that the encoder knows, so they all look alike to it, "
        "such as 'ſſ ჲჲ'; use an encoder that was trained on this script."
    ) in said
    assert main(["predict", "new.task", "ჲჲჲ", "ჲ card"]) == 0
    assert "1 of 2 texts is without a single word" in capsys.readouterr().err


def test_quotes_line_breaks_and_a_byte_order_mark_are_read(reader: str, adapt) -> None:
    table = 'text,label\r\n"she said ""hi"",\r\nand left",a\r\nbye,"b, c"\r\n'
    code, said = adapt(reader, table.encode("utf-8-sig"))
    assert code == 0
    assert "Learned 2 classes (a, b, c) from 2 examples." in said
    begun = load_task("new.task", load_artifact(reader))
    plain = FewShotClassifier(reader).fit(['she said "hi",\r\nand left', "bye"], ["a", "b, c"])
    assert begun.class_names == plain.task_.class_names
    assert begun.seen == plain.task_.seen
    code, _ = adapt(reader, gzip.compress(table.encode("utf-8-sig")), "--replace", name="a.csv.gz")
    assert code == 0


def test_a_broken_line_far_down_is_found_and_the_task_stays(reader: str, adapt) -> None:
    adapt(reader, GOOD)
    before = Path("new.task").read_bytes()
    rows = "".join(f"text {i},label {i % 2}\n" for i in range(5000)).encode()
    code, said = adapt(reader, b"text,label\n" + rows + b"caf\xe9,a\n", "--replace")
    assert code == 1
    assert "line 5002: the byte 0xe9 is not UTF-8" in said
    assert Path("new.task").read_bytes() == before


def test_a_long_file_is_streamed_into_bounded_memory(tmp_path: Path) -> None:
    import tracemalloc

    def peak(lines: int, spec: str) -> tuple[int, dict[str, object]]:
        path = tmp_path / "a.csv"
        with path.open("w", encoding="utf-8") as file:
            file.write("text,label\n")
            file.writelines(
                f"the text number {i} of the file,label {i % 10}\n" for i in range(lines)
            )
        tracemalloc.start()
        found = build_source(f"{spec.replace('FILE', str(path))},test=1").describe()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most, found

    peak(100, "text:FILE,most=5")
    few, facts = peak(500, "text:FILE,most=5")
    many, more = peak(4_000, "text:FILE,most=5")
    assert facts["splits"]["test"] == more["splits"]["test"] == {"classes": 10, "examples": 50}  # type: ignore[index]
    assert more["most_of_a_class"] == 5
    assert many < few + 20_000
    whole, facts = peak(4_000, "text:FILE")
    assert facts["splits"]["test"]["examples"] == 4_000  # type: ignore[index]
    assert whole > many + 4_000 * 100
    with pytest.raises((DataError, ValueError), match="most must be at least 1; found -1"):
        peak(100, "text:FILE,most=-1")


def test_what_a_task_has_learned_counts_once(tmp_path: Path, reader: str, capsys: Capture) -> None:
    table, task = tmp_path / "good.csv", str(tmp_path / "one.task")
    table.write_text(GOOD + "is it here,card\n")
    assert main(["adapt", reader, str(table), "--out", task]) == 0
    said = capsys.readouterr().err
    assert "The text at" in said
    assert "counts once" in said
    assert "from 4 examples" in said
    before = Path(task).read_bytes()
    assert main(["adapt", reader, str(table), "--from", task, "--out", task]) == 0
    assert (
        "learned all these examples before; they are not counted twice" in capsys.readouterr().err
    )
    assert Path(task).read_bytes() == before
    table.write_text(GOOD + "lost my card,card\n")
    assert main(["adapt", reader, str(table), "--from", task, "--out", task]) == 0
    said = capsys.readouterr().err
    assert "learned 4 of these 5 examples before" in said
    assert "from 5 examples" in said
    whole = load_task(task, load_artifact(reader))
    at_once = str(tmp_path / "two.task")
    assert main(["adapt", reader, str(table), "--out", at_once]) == 0
    for one, other in zip(
        whole.state, load_task(at_once, load_artifact(reader)).state, strict=True
    ):
        torch.testing.assert_close(one, other)
