"""Encoders: pieces change nothing, examples stay apart, and wrong sizes are named."""

from __future__ import annotations

import pytest
import torch

from quickstudy.functional import exact_derivatives
from quickstudy.nn import encoders
from quickstudy.nn.encoders import ImageEncoder, RawEncoder, VectorEncoder, encode

close = torch.testing.assert_close


def test_examples_go_through_in_pieces_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = ImageEncoder(8, layers=1, heads=2, size=16).double()
    images = torch.rand(3, 5, 1, 16, 16, dtype=torch.float64)
    whole = encode(encoder, images)
    seen: list[int] = []
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(encoders, "LARGEST_CPU_TENSOR", 4 * encoder.bytes_per_example)
    close(encode(encoder, images), whole)
    assert seen == [4, 4, 4, 3]
    assert whole.shape == (3, 5, 8)


@pytest.mark.parametrize("readout", ["flatten", "mean"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
def test_images_do_not_see_each_other(positions: str, readout: str) -> None:
    encoder = ImageEncoder(
        8, layers=1, heads=2, size=12, positions=positions, readout=readout
    ).double()
    images = torch.rand(4, 1, 12, 12, dtype=torch.float64)
    close(encoder(images)[2:3], encoder(images[2:3]))


def test_the_memory_layout_inside_a_transform_changes_nothing() -> None:
    encoder = ImageEncoder(8, layers=1, heads=2, size=16).double()
    images = torch.rand(2, 3, 1, 16, 16, dtype=torch.float64)
    with exact_derivatives():
        close(torch.func.vmap(encoder)(images), encode(encoder, images))


def test_bytes_and_fractions_are_one_image() -> None:
    encoder = ImageEncoder(8, layers=1, heads=2, size=16)
    image = torch.randint(0, 256, (1, 1, 16, 16), dtype=torch.uint8)
    close(encoder(image), encoder(image / 255))
    close(RawEncoder(256)(image), image.flatten(1) / 255)


def test_missing_columns_are_zeros() -> None:
    encoder = VectorEncoder(5, width=8)
    rows = torch.randn(3, 4)
    close(encoder(rows), encoder(torch.nn.functional.pad(rows, (0, 1))))


@pytest.mark.parametrize(
    ("encoder", "x", "message"),
    [
        (
            ImageEncoder(8, heads=2, size=16),
            torch.zeros(2, 1, 9, 16),
            r"\(1, 9, 16\).*\(1, 16, 16\)",
        ),
        (VectorEncoder(3), torch.zeros(2, 4), r"\(4,\).*at most 3 numbers"),
        (RawEncoder(3), torch.zeros(2, 4), "4 numbers, but this encoder takes 3"),
    ],
)
def test_examples_of_another_size_are_named(
    encoder: encoders.Encoder, x: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 27}, "multiple of 4; found 27"),
        ({"width": 20}, "multiple of 8; found 20"),
        ({"positions": "turned"}, "sinusoidal or rotary or none; found 'turned'"),
        ({"readout": "first"}, "flatten or mean; found 'first'"),
        ({"stem": 6}, "multiple of 4; found 6"),
    ],
)
def test_options_out_of_range_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageEncoder(**options)
