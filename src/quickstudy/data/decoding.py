"""Image files as pixels of one shape, decoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from quickstudy.cache import digest, remember
from quickstudy.data.source import DataError

Pixels = npt.NDArray[np.uint8]
Invert = Literal["auto", "yes", "no"]

PAPER = 160
"""Brightness from which a pixel can be paper."""

PAPER_SHARE = 0.75
"""Share of the border that is paper in a drawing on paper."""

FORMAT = 1
"""Raised when decoding changes, so that nobody meets an array cached by an older version."""


def _grey(image: Image.Image) -> Image.Image:
    """Deep greys scaled to 8 bits; Pillow would cut them off at 255."""
    values = np.asarray(image, dtype=np.float64)
    most = 65535.0 if values.max(initial=0) > 255 else 255.0
    return Image.fromarray((values.clip(0, most) * (255.0 / most)).round().astype(np.uint8))


def _edge(pixels: Pixels) -> Pixels:
    """The pixels on the border of (channel, height, width), as (channel, pixel)."""
    sides = (pixels[:, 0], pixels[:, -1], pixels[:, 1:-1, 0], pixels[:, 1:-1, -1])
    return np.concatenate(sides, axis=1)


@lru_cache(maxsize=256)
def _area_weights(before: int, after: int) -> npt.NDArray[np.float32]:
    """(after, before): the share of each old pixel in each new one, by the length they have in common."""
    edges = np.arange(after + 1) * (before / after)
    low = np.maximum(edges[:-1, None], np.arange(before))
    high = np.minimum(edges[1:, None], np.arange(before) + 1)
    return ((high - low).clip(0) * (after / before)).astype(np.float32)


def by_area(pixels: npt.NDArray[Any], height: int, width: int) -> Pixels:
    """Images (…, height, width) in 0 … 255 brought to another size, each new pixel the exact mean over its area.

    >>> by_area(np.array([[0, 200, 100]]), 1, 2).tolist()
    [[67, 133]]
    """
    rows, columns = _area_weights(pixels.shape[-2], height), _area_weights(pixels.shape[-1], width)
    return np.rint(rows @ pixels.astype(np.float32) @ columns.T).astype(np.uint8)


def to_pixels(image: Image.Image, *, size: int, channels: int, invert: Invert) -> Pixels:
    """An image as uint8 (channel, size, size), in proportion, ink bright on dark.

    The longer side becomes ``size``, by the mean over areas; the rest is filled with the median colour
    of the border.

    Args:
        image: of any mode; what is transparent becomes white.
        size: side of the result in pixels.
        channels: 1 for grey, 3 for colour.
        invert: ``yes``, ``no``, or ``auto``: grey images whose border is bright like paper.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    if longest > 8 * size:  # the exact mean of a large image would cost more than its decoding
        image = image.resize((4 * width, 4 * height), Image.Resampling.BOX)
    elif longest < size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    planes = np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)
    pixels = by_area(planes, height, width)
    edge = _edge(pixels)
    paper = channels == 1 and float((edge >= PAPER).mean()) >= PAPER_SHARE
    square = np.empty((channels, size, size), dtype=np.uint8)
    square[:] = np.median(edge, axis=1)[:, None, None]
    top, left = (size - height) // 2, (size - width) // 2
    square[:, top : top + height, left : left + width] = pixels
    return 255 - square if invert == "yes" or (invert == "auto" and paper) else square


def decode(data: bytes, name: str, *, size: int, channels: int, invert: Invert) -> Pixels:
    """The bytes of an image file as uint8 (channel, size, size).

    Raises:
        DataError: the bytes are empty or no image.
    """
    if not data:
        raise DataError(f"The image {name} is empty (0 bytes); replace it or take it away.")
    try:
        with Image.open(BytesIO(data)) as image:
            return to_pixels(image, size=size, channels=channels, invert=invert)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is no image of a known format" if "identify" in str(error) else str(error)
        raise DataError(
            f"The image {name} cannot be read ({reason.rstrip('.')}); replace it or take it away."
        ) from error


def check_image_options(size: int, channels: int) -> None:
    """Check the shape that images are brought to.

    Raises:
        DataError: no such shape.
    """
    if channels not in (1, 3):
        raise DataError(f"channels must be 1 (grey) or 3 (colour); found {channels}.")
    if not 4 <= size <= 1024:
        raise DataError(f"size must lie between 4 and 1024 pixels; found {size}.")


def read_images(
    files: Sequence[Path], *, size: int, channels: int, invert: Invert
) -> tuple[Tensor, list[bytes]]:
    """Decode files in parallel, or map what an earlier call decoded.

    Returns:
        uint8 (image, channel, size, size), and a hash of each file's bytes.

    Raises:
        DataError: a file is missing, empty or no image.
    """
    check_image_options(size, channels)

    def one(file: Path) -> tuple[Pixels, bytes]:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DataError(f"The image {file} cannot be opened: {error.strerror}.") from error
        pixels = decode(data, str(file), size=size, channels=channels, invert=invert)
        return pixels, blake2b(data, digest_size=16).digest()

    def make() -> dict[str, npt.NDArray[np.generic]]:
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
            decoded = list(threads.map(one, files))
        return {
            "pixels": np.stack([pixels for pixels, _ in decoded]),
            "digests": np.stack([np.frombuffer(mark, np.uint8) for _, mark in decoded]),
        }

    key = digest([FORMAT, size, channels, invert, *(_identity(file) for file in files)])
    arrays = remember("images", key, make)
    return torch.from_numpy(arrays["pixels"]), [mark.tobytes() for mark in arrays["digests"]]


def _identity(file: Path) -> str:
    """What changes when a file does."""
    try:
        facts = file.stat()
    except OSError as error:
        raise DataError(f"The image {file} cannot be opened: {error.strerror}.") from error
    return f"{file.absolute()}\0{facts.st_size}\0{facts.st_mtime_ns}"
