"""Names as bytes, and the reader that makes vectors of them."""

import pytest
import torch
from torch import nn

from quickstudy.nn.words import NameReader, bytes_of, piece_counts, present


def test_bytes_are_utf8_padded_and_composed() -> None:
    found = bytes_of(["ab", "é", "e\u0301", "", "ნ"])
    assert found.dtype == torch.int64
    assert found.shape == (5, 3)
    assert found.tolist()[:4] == [[97, 98, -1], [195, 169, -1], [195, 169, -1], [-1, -1, -1]]
    assert bytes(found[4].tolist()).decode() == "ნ"
    assert bytes_of([]).shape == (0, 0)
    assert bytes_of([""]).shape == (1, 0)
    assert present(found).tolist() == [True, True, True, False, True]
    assert present(bytes_of(["", ""])).tolist() == [False, False]


@pytest.fixture
def reader() -> NameReader:
    return NameReader(8, buckets=512, heads=2).double().eval()


def test_any_leading_axes_and_invisible_padding(reader: NameReader) -> None:
    words = bytes_of(["alpha", "beta", "", "gamma", "a", "delta epsilon"])
    vectors = reader(words)
    assert vectors.shape == (6, 8)
    assert vectors.dtype == torch.float64
    alone = [reader(words[i, words[i] >= 0]) for i in (0, 1, 3, 4, 5)]
    assert torch.allclose(torch.stack(alone), vectors[[0, 1, 3, 4, 5]], atol=1e-12)
    wider = nn.functional.pad(words.view(2, 3, -1), (0, 7), value=-1)
    assert torch.allclose(reader(wider), vectors.view(2, 3, 8), atol=1e-12)
    assert len({tuple(row) for row in vectors.tolist()}) == 6


def test_what_has_no_name_is_zero(reader: NameReader) -> None:
    assert reader(bytes_of(["", "b"]))[0].eq(0).all()
    assert reader(torch.zeros(2, 3, 0, dtype=torch.int64)).eq(0).all()
    assert reader(torch.zeros(2, 3, 0, dtype=torch.int64)).shape == (2, 3, 8)
    # Its gradient is zero as well, not undefined.
    reader(bytes_of(["", "b"])).square().sum().backward()
    for parameter in reader.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


def test_the_order_of_bytes_counts_and_single_bytes_do_not_know_it() -> None:
    for longest, alike in ((1, True), (2, False)):
        reader = NameReader(8, longest=longest, left_out=0.0).double()
        forth, back = reader(bytes_of(["star", "rats"]))
        assert torch.allclose(forth, back, atol=1e-12) == alike


def test_pieces_are_left_out_in_training_alone_and_never_all_of_them(reader: NameReader) -> None:
    words = bytes_of(["georgian letter an", "a", ""])
    whole = reader(words)
    assert torch.equal(whole, reader(words))
    reader.train()
    first, second = reader(words), reader(words)
    assert not torch.allclose(first[0], second[0])
    assert not torch.allclose(first[0], whole[0])
    for _ in range(20):
        found = reader(words)
        assert found.isfinite().all()
        assert found[1].abs().sum() > 0
        assert found[2].eq(0).all()


def test_the_gradient_is_exact(reader: NameReader) -> None:
    words = bytes_of(["ab", "ba"])
    names = [name for name, _ in reader.read.named_parameters()]
    values = tuple(value.detach().requires_grad_() for value in reader.read.parameters())
    scores = reader.scores.detach().requires_grad_()

    def read(scores: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        changed = {f"read.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(reader, {"scores": scores, **changed}, (words,))

    assert torch.autograd.gradcheck(read, (scores, *values), fast_mode=True)


def test_it_learns_which_word_of_a_name_matters_and_meets_new_words_with_it() -> None:
    colours, things = ["red", "blue"], ["house", "tree", "river", "stone", "cloud", "grass"]
    names = [f"the {colour} {thing}" for thing in things for colour in colours]
    y = torch.arange(2).repeat(len(things))
    reader, head = NameReader(16), nn.Linear(16, 2)
    optimizer = torch.optim.AdamW([*reader.parameters(), *head.parameters()], lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(reader(bytes_of(names))), y).backward()
        optimizer.step()
    new = ["the red lantern", "the blue window", "a red boat", "my blue coat"]
    assert head(reader(bytes_of(new))).argmax(1).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("options", [{"longest": 0}, {"longest": 5}, {"buckets": 0}, {"heads": 3}])
def test_options_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="found"):
        NameReader(8, **options)


def test_names_may_be_typed_large_or_small_but_single_letters_are_told_apart() -> None:
    counts = piece_counts(
        bytes_of(["HEBREW ALEF", "hebrew alef", "A", "a"]), longest=4, buckets=2**20
    )
    long, short = ((counts[i] != counts[i + 1]).sum().item() for i in (0, 2))
    # The letters themselves, but for those of no case; start, end and the blank are as they were.
    assert long == len(set("HEBREWALEF")) * 2
    assert short == 2
