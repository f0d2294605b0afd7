"""Read image files as arrays, or refuse files that Pillow would read wrongly without an error.

Pillow silently drops the low byte of 16-bit RGB files, transparency, and all pages of a file except the first; such
files are refused. Palette, 1-bit and CMYK files are converted, and the EXIF orientation is applied. Colour profiles are
ignored, as usual in defect detection.
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

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
"""File suffixes, in lower case, of images in folders."""

UNREAD = frozenset(
    {".jp2", ".j2k", ".jpx", ".jxl", ".heic", ".heif", ".avif", ".tga", ".exr", ".dng", ".cr2", ".nef", ".arw", ".raw"}
)
"""Suffixes of images that are not read: Pillow lacks them, or cannot tell whether they have more than 8 bits."""

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "TIFF", "WEBP", "GIF", "PPM")  # with known bit depth; MPO: cameras' JPEG
KINDS = {"1": "1-bit", "L": "8-bit grey", "P": "palette", "RGB": "8-bit RGB", "RGBA": "8-bit RGB with alpha"}
EXIF_ORIENTATION = 0x0112
FEW = 8  # colours of a mask that has one for each kind of defect; a photograph has more


@dataclass(frozen=True)
class ImageFacts:
    """Storage format of an image file."""

    format: str  # Pillow's name: "PNG", "JPEG", ...
    kind: str  # pixel format, e.g. "8-bit grey"
    turned: bool  # its EXIF orientation rotates or mirrors it


def read_rgb(path: Path) -> np.ndarray:
    """Read an 8-bit image file as H,W,3 uint8.

    Raises:
        UserError: the file is missing, truncated, not an image, or of a format that Pillow would read wrongly.
    """
    return decode_rgb(read_bytes(path), str(path))


def read_grey(path: Path) -> np.ndarray:
    """Read an 8-bit mask file as H,W uint8, the brightest channel of a coloured one. Raises as `read_rgb`."""
    return decode_grey(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Return the content of a dataset's file. Raises UserError if the file is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"image '{path}' is missing: restore it, or remove its row from the dataset") from None
    except OSError as error:
        raise UserError(f"image '{path}' cannot be read ({error.strerror}): check its permissions") from None


def decode_rgb(data: bytes, name: str) -> np.ndarray:
    """Decode an image file's bytes as `read_rgb` does; errors call it ``name``."""
    with _opened(data, name) as image:
        return np.asarray(_upright(image, name).convert("RGB"))


def decode_grey(data: bytes, name: str) -> np.ndarray:
    """Decode a mask file's bytes as `read_grey` does.

    The result is the brightest channel, not the luminance: a defect drawn in dark blue, or with small palette values,
    must not round to 0.
    """
    with _opened(data, name) as image:
        upright = _upright(image, name)
        if upright.mode in ("1", "L"):
            return np.asarray(upright.convert("L"))
        return np.asarray(upright.convert("RGB")).max(axis=2)


def look(data: bytes, name: str) -> ImageFacts:
    """Read the storage format without decoding pixels. Raises as `decode_rgb` for errors visible in the header."""
    with _opened(data, name) as image:
        turned = image.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1)
        return ImageFacts(str(image.format), KINDS.get(image.mode, image.mode), turned)


def colours(image: np.ndarray) -> int:
    """Count the colours of an image, H,W,3 or H,W uint8; where there are more than `FEW`, those of a part of it."""
    number = _count(thinned(image))
    return number if number > FEW else _count(image)


def thinned(image: np.ndarray) -> np.ndarray:
    """Return every n-th row and column of an image, 256 to 511 of the shorter side if there are as many."""
    step = max(1, min(image.shape[:2]) // 256)
    return image[::step, ::step]


def _count(image: np.ndarray) -> int:
    if image.ndim == 2:
        return int(np.count_nonzero(np.bincount(image.ravel(), minlength=1)))
    red, green, blue = np.moveaxis(image.astype(np.uint32), 2, 0)
    return len(np.unique(red << 16 | green << 8 | blue))


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open an image without decoding it; turn any error of Pillow, also while decoding, into a `UserError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse(image, name)
            if image.format == "PNG":  # Pillow does not check the CRC of pixel data by default
                with Image.open(io.BytesIO(data)) as checked:
                    checked.verify()
            yield image
    except UnidentifiedImageError:
        raise UserError(f"image '{name}' cannot be read (not an image): restore it from the original archive") from None
    except Image.DecompressionBombError:
        raise UserError(f"image '{name}' has too many pixels to be decoded safely: split it into parts") from None
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error) as error:
        raise UserError(f"image '{name}' cannot be read ({error}): restore it from the original archive") from None


def _refuse(image: Image.Image, name: str) -> None:
    if image.format not in FORMATS:
        raise UserError(f"image '{name}' is a {image.format} file: save it as PNG, JPEG, BMP, TIFF or WebP")
    deep = _deep(image)
    if deep:
        raise UserError(f"image '{name}' has {deep} pixels: convert it to 8 bits per channel")
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # the other images of a camera's file are previews
        raise UserError(f"image '{name}' holds {pages} images: save each in its own file")


def _deep(image: Image.Image) -> str:
    """Name the pixel format if it has more than 8 bits per channel, else ""."""
    if image.mode.startswith(("I", "F")):
        return image.mode
    for tile in getattr(image, "tile", ()):  # only images from files have it
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(value, str) and ";16" in value and image.format in ("PNG", "TIFF") for value in arguments):
            return f"16-bit {image.mode}"
        if image.format == "PPM" and any(isinstance(value, int) and value > 255 for value in arguments):
            return f"16-bit {image.mode}"  # the largest value of a channel
    return ""


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Decode and apply the EXIF orientation. Refuse non-opaque pixels: their hidden colour is arbitrary."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data and int(np.asarray(upright.convert("RGBA"))[..., 3].min()) < 255:
        raise UserError(f"image '{name}' has transparent pixels: put it on a background and save it as RGB")
    return upright
