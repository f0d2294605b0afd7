"""Contact sheets: images in rows under headings, with the outline of the defect mask."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from augbench.storage.files import write_atomic

WIDTH = 1480  # largest width of a sheet, in pixels
TILE_AREA = 168 * 168  # pixels of a tile; the aspect ratio of the image is preserved
NARROW, WIDE = 0.3, 2.6  # limits of the aspect ratio (width / height) of a tile; other images are padded
GAP, MARGIN = 10, 24
PAPER, INK, FAINT = (255, 255, 255), (28, 28, 30), (120, 120, 126)
OUTLINE = (255, 0, 170)  # magenta: rare on real surfaces
CAPTION, HEADING, TITLE = 11, 15, 20  # font sizes


@dataclass(frozen=True)
class Tile:
    """One image of a sheet."""

    image: np.ndarray  # H,W,3 uint8
    caption: str
    mask: np.ndarray | None = None  # H,W bool: the defect to outline


@dataclass(frozen=True)
class Section:
    """Images under one heading."""

    heading: str
    note: str  # in grey beside the heading
    tiles: Sequence[Tile]


def draw_sheet(title: str, sections: Sequence[Section]) -> Image.Image:
    """Draw a contact sheet as an RGB image with rows of equal height."""
    height = _height([tile for section in sections for tile in section.tiles])
    rows = [list(_rows([_thumbnail(tile, height) for tile in section.tiles])) for section in sections]
    width = max(sum(image.width + GAP for image in row) - GAP for section in rows for row in section)
    row_height = height + CAPTION + 8 + GAP
    heights = [HEADING + 16 + len(section) * row_height for section in rows]
    sheet = Image.new("RGB", (max(width, 480) + 2 * MARGIN, 2 * MARGIN + TITLE + 18 + sum(heights)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), _one_line(title), INK, _font(TITLE))
    top = MARGIN + TITLE + 18
    for section, image_rows, extent in zip(sections, rows, heights, strict=True):
        heading = _one_line(section.heading)
        pen.text((MARGIN, top), heading, INK, _font(HEADING))
        left = MARGIN + pen.textlength(heading, _font(HEADING)) + 10
        pen.text((left, top + HEADING - CAPTION), _one_line(section.note), FAINT, _font(CAPTION))
        captions = iter(_one_line(tile.caption) for tile in section.tiles)
        for number, row in enumerate(image_rows):
            x, y = MARGIN, top + HEADING + 12 + number * row_height
            for image in row:
                sheet.paste(image, (x, y))
                pen.text((x, y + height + 4), _cut(pen, next(captions), image.width), FAINT, _font(CAPTION))
                x += image.width + GAP
        top += extent
    return sheet


def write_sheet(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a contact sheet as an optimised PNG file, atomically. Equal arguments give equal bytes."""
    buffer = io.BytesIO()
    draw_sheet(title, sections).save(buffer, "PNG", optimize=True)
    write_atomic(path, buffer.getvalue())


def evenly_spaced(rows: pd.DataFrame, number: int) -> pd.DataFrame:
    """Return up to ``number`` evenly spaced rows."""
    return rows.iloc[np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int)]


def _height(tiles: Sequence[Tile]) -> int:
    """Return the common height of the tiles, in pixels: larger for tall images, so that they stay legible."""
    aspect = float(np.median([tile.image.shape[1] / tile.image.shape[0] for tile in tiles]))
    return round(math.sqrt(TILE_AREA / min(max(aspect, 0.25), 4.0)))


def _rows(images: Sequence[Image.Image]) -> Iterator[list[Image.Image]]:
    """Break images into rows of at most `WIDTH` pixels."""
    row: list[Image.Image] = []
    for image in images:
        if row and sum(other.width + GAP for other in row) + image.width > WIDTH - 2 * MARGIN:
            yield row
            row = []
        row.append(image)
    yield row


def _thumbnail(tile: Tile, height: int) -> Image.Image:
    """Resize a tile to that height and outline its defect; very wide or narrow images are padded to a box."""
    aspect = tile.image.shape[1] / tile.image.shape[0]
    width = round(height * min(max(aspect, NARROW), WIDE))
    size = min(width, max(1, round(height * aspect))), min(height, max(1, round(width / aspect)))
    image = Image.fromarray(tile.image).resize(size, Image.Resampling.LANCZOS)
    if tile.mask is not None and tile.mask.any():
        image.paste(OUTLINE, mask=outline(tile.mask, size))
    if size == (width, height):
        return image
    boxed = Image.new("RGB", (width, height), PAPER)
    boxed.paste(image, (0, height - size[1]))
    return boxed


def outline(mask: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Draw a ring around a defect mask, one pixel away, so that it does not cover the defect.

    Where the defect touches the image border, the ring follows the border.

    Args:
        mask: H,W bool.
        size: width and height of the result.

    Returns:
        An image of mode "L": 255 on the ring, 0 elsewhere.
    """
    area = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    area = area.point(lambda value: 255 * (value > 0))
    border = 4
    wide = Image.new("L", (size[0] + 2 * border, size[1] + 2 * border))
    wide.paste(area, (border, border))
    ring = ImageChops.subtract(wide.filter(ImageFilter.MaxFilter(7)), wide.filter(ImageFilter.MaxFilter(3)))
    edge = Image.new("L", size, 255)
    edge.paste(0, (2, 2, size[0] - 2, size[1] - 2))
    ring = ring.crop((border, border, border + size[0], border + size[1]))
    return ImageChops.lighter(ring, ImageChops.multiply(edge, area))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _one_line(text: str) -> str:
    """Replace line breaks, which prompts may have, and which Pillow cannot measure."""
    return " ".join(text.split())


def _cut(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """Shorten a text at its start until it fits, since ids differ at their end."""
    if pen.textlength(text, _font(CAPTION)) <= width:
        return text
    while text and pen.textlength("..." + text, _font(CAPTION)) > width:
        text = text[1:]
    return "..." + text
