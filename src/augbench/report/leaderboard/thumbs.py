"""Small pictures for the page: shrunk, outlined, encoded, and each kept once."""

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
    """Pictures by their content. What `add` gives is what the template shows; `library` holds the bytes."""

    def __init__(self) -> None:
        self.library: list[dict[str, Any]] = []
        self._ids: dict[bytes, dict[str, Any]] = {}

    def add(self, image: np.ndarray, alt: str, caption: str = "", mask: np.ndarray | None = None) -> dict[str, Any]:
        """A picture to be shown.

        Args:
            image: H,W,3 uint8.
            alt: what it shows, for who does not see it.
            caption: words under it.
            mask: H,W bool: what is outlined.
        """
        small = _small(image, mask)
        data = _webp(small)
        if data not in self._ids:
            url = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
            entry = {"id": f"p{len(self.library)}", "width": small.width, "height": small.height, "url": url}
            self._ids[data] = entry
            self.library.append(entry)
        entry = self._ids[data]
        return {name: entry[name] for name in ("id", "width", "height")} | {"alt": alt, "caption": caption}


def _small(image: np.ndarray, mask: np.ndarray | None) -> Image.Image:
    """At most `SIDE` pixels long, never enlarged."""
    height, width = image.shape[:2]
    factor = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if mask is not None and mask.any():
        small.paste(OUTLINE, mask=outline(mask, size))
    return small


def _webp(small: Image.Image) -> bytes:
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()
