"""Picture files as arrays: read as they are meant, or refused by name; never silently something else.

Pillow drops the low byte of 16-bit RGB files, the transparent part of a picture, and all pages of a file but the first
without a word; each of these is refused here. Palettes, 1-bit and CMYK files are converted, and what a camera marked
as turned (EXIF) is read upright. Colour profiles are ignored, as everywhere in this field.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from augbench.core.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""Endings, in lower case, by which pictures are found in folders."""

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "TIFF", "WEBP", "GIF", "PPM")  # whose depth can be told; MPO: cameras' JPEG
KINDS = {"1": "1-bit", "L": "8-bit grey", "P": "palette", "RGB": "8-bit RGB", "RGBA": "8-bit RGB with alpha"}
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageFacts:
    """How a picture is stored."""

    format: str  # as Pillow calls it: "PNG", "JPEG", ...
    kind: str  # of its pixels, e.g. "8-bit grey"
    turned: bool  # its EXIF data say that it must be turned or mirrored to be upright


def read_rgb(path: Path) -> np.ndarray:
    """An 8-bit picture file as H,W,3 uint8.

    Raises:
        UserError: the file is missing, truncated, no picture, or of a kind that would be read wrongly.
    """
    return decode_rgb(read_bytes(path), str(path))


def read_grey(path: Path) -> np.ndarray:
    """An 8-bit mask file as H,W uint8; of a coloured one the brightest channel. Raises as `read_rgb`."""
    return decode_grey(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a file of a dataset.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"picture '{path}' is missing: restore it, or take its row out of the dataset") from None
    except OSError as error:
        raise UserError(f"picture '{path}' cannot be read ({error.strerror}): check its rights") from None


def decode_rgb(data: bytes, name: str) -> np.ndarray:
    """The same as `read_rgb` from a file's bytes; ``name`` is what errors call it."""
    with _opened(data, name) as picture:
        return np.asarray(_upright(picture, name).convert("RGB"))


def decode_grey(data: bytes, name: str) -> np.ndarray:
    """The same as `read_grey` from a mask file's bytes.

    The brightest channel, not the luminance: a defect painted in dark blue, or with the small numbers of a palette,
    must not fade to 0.
    """
    with _opened(data, name) as picture:
        upright = _upright(picture, name)
        if upright.mode in ("1", "L"):
            return np.asarray(upright.convert("L"))
        return np.asarray(upright.convert("RGB")).max(axis=2)


def look(data: bytes, name: str) -> ImageFacts:
    """How the picture is stored; its pixels are not decoded. Raises as `decode_rgb`, where the header tells."""
    with _opened(data, name) as picture:
        turned = picture.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1)
        return ImageFacts(str(picture.format), KINDS.get(picture.mode, picture.mode), turned)


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The picture, not yet decoded; whatever Pillow then stumbles over becomes one line."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            _refuse(picture, name)
            if picture.format == "PNG":  # Pillow does not look at the checksums of pixels: flipped bits would pass
                with Image.open(io.BytesIO(data)) as whole:
                    whole.verify()
            yield picture
    except UnidentifiedImageError:
        raise UserError(f"picture '{name}' cannot be read (no picture): restore it from the original archive") from None
    except Image.DecompressionBombError:
        raise UserError(f"picture '{name}' has too many pixels to be decoded safely: cut it into parts") from None
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error) as error:
        raise UserError(f"picture '{name}' cannot be read ({error}): restore it from the original archive") from None


def _refuse(picture: Image.Image, name: str) -> None:
    if picture.format not in FORMATS:
        raise UserError(f"picture '{name}' is a {picture.format} file: save it as PNG, JPEG, BMP, TIFF or WebP")
    deep = _deep(picture)
    if deep:
        raise UserError(f"picture '{name}' has {deep} pixels: convert it to 8 bits per channel")
    pages = getattr(picture, "n_frames", 1)
    if pages > 1 and picture.format != "MPO":  # in a camera's file the others are previews
        raise UserError(f"picture '{name}' holds {pages} pictures: save each as a file of its own")


def _deep(picture: Image.Image) -> str:
    """How pixels of more than 8 bits a channel are called, "" where there are none."""
    if picture.mode.startswith(("I", "F")):
        return picture.mode
    for tile in picture.tile:
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(value, str) and ";16" in value and picture.format in ("PNG", "TIFF") for value in arguments):
            return f"16-bit {picture.mode}"
        if picture.format == "PPM" and any(isinstance(value, int) and value > 255 for value in arguments):
            return f"16-bit {picture.mode}"  # the largest value of a channel
    return ""


def _upright(picture: Image.Image, name: str) -> Image.Image:
    """Decoded and turned as its EXIF data say; refused where a pixel is not opaque: what lies below was never meant."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(picture)
    if upright.has_transparency_data and int(np.asarray(upright.convert("RGBA"))[..., 3].min()) < 255:
        raise UserError(f"picture '{name}' has transparent pixels: put it on a background and save it as RGB")
    return upright
