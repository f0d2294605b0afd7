"""Thumbnails for the page: resized, with outlined masks, encoded and deduplicated."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from augbench.report.contact_sheet import OUTLINE, outline

SIDE = 96  # pixels of the longer side, at most
QUALITY = 78  # of WebP


class Thumbs:
    """Thumbnails by content. The template refers to what `add` returns; `library` holds the bytes."""

    def __init__(self) -> None:
        self.library: list[dict[str, Any]] = []
        self._by_url: dict[str, dict[str, Any]] = {}

    def add(self, image: np.ndarray, alt: str, caption: str = "", mask: np.ndarray | None = None) -> dict[str, Any]:
        """Add an image.

        Args:
            image: H,W,3 uint8.
            alt: alternative text.
            caption: text below it.
            mask: H,W bool: its outline is drawn.

        Returns:
            Id, width, height, alt and caption.
        """
        small, buffer = _small(image, mask), io.BytesIO()
        small.save(buffer, "WEBP", quality=QUALITY, method=4)
        url = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        known = self._by_url.get(url)
        if known is None:
            known = {"id": f"p{len(self.library)}", "width": small.width, "height": small.height}
            self._by_url[url] = known
            self.library.append(known | {"url": url})
        return known | {"alt": alt, "caption": caption}


def _small(image: np.ndarray, mask: np.ndarray | None) -> Image.Image:
    """Shrink the image to at most `SIDE` pixels; never enlarge it."""
    height, width = image.shape[:2]
    factor = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if mask is not None and mask.any():
        small.paste(OUTLINE, mask=outline(mask, size))
    return small
