"""MemSeg's abnormal-sample simulation: Perlin-noise shapes filled with foreign texture or the shuffled image itself.

Yang, Wu, Feng, "MemSeg: A semi-supervised method for image surface defect detection using differences and
commonalities", EAAI 2023. It reads good pictures alone. The steps and numbers are those of the common
re-implementations: Perlin noise of 2^0 to 2^5 cells per axis, turned by up to 90 degrees, above 0.5; texture or
structure source with equal chance; opacity uniform in [0.15, 1].

Not stated there, chosen here:
- A shape that comes out empty is drawn again. Cells are at least 2 pixels wide, so small pictures see fewer scales.
- A texture picture is resized to the size of the negative. Without a texture folder the texture is procedural.
- The structure source cuts any size: cells differ by a pixel where the grid does not divide the picture. The paper's
  text says 4 x 8 cells, re-implementations use 8 x 8, the default.
- A rotated structure source is filled with the image's mean colour at its corners.
- In recognition patches go onto real defect pictures (``source: shots``), which keep their class, as there are no good
  ones.
- On a grey picture (R = G = B) the source is turned grey: colour alone would give the synthetic picture away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from augbench.augmenters._photometric import cut_and_shuffle, three_of_ten, to_grey
from augbench.augmenters._textures import procedural_texture
from augbench.core.contracts import Augmenter, Reads, Request, Settings, Shots, Synthetic, TrainView
from augbench.core.errors import UserError
from augbench.procedural.noise import Shape, perlin

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
LARGEST_EXPONENT = 5  # Perlin noise has 2**0 ... 2**5 cells per axis
THRESHOLD = 0.5
TRIES = 16  # shapes drawn before a smaller threshold is accepted

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class MemSeg(Augmenter):
    """Perlin-shaped patches of texture or shuffled structure, blended into a random training negative."""

    title = "MemSeg patches"
    paper = "Yang et al., EAAI 2023"
    licence = "Apache-2.0"

    class Config(Settings):
        """The re-implementations' numbers by default."""

        texture_folder: Path | None = None  # pictures of any size (DTD in the paper); None: procedural textures
        texture_share: Share = 0.5  # chance of a texture source, else structure
        opacity: tuple[Share, Share] = (0.15, 1.0)  # range of the source's weight inside the shape
        grid: tuple[Count, Count] = (8, 8)  # rows and columns of cells that the structure source shuffles
        source: Literal["negatives", "shots"] = "negatives"  # what patches go onto; shots keep their class
        foreground: bool = False  # only on the object, found by Otsu's threshold; for objects before a plain background

        @model_validator(mode="after")
        def _opacity_rises(self) -> MemSeg.Config:
            if self.opacity[0] > self.opacity[1]:
                raise ValueError(f"opacity {list(self.opacity)}: the first number must not be larger than the second")
            return self

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        if self.config.source == "shots":
            self.tasks = frozenset({"detection", "recognition"})

    def reads(self, shots: Shots) -> frozenset[Reads]:
        """What patches go onto."""
        return frozenset({self.config.source})

    def refuses(self, shots: Shots) -> str:
        """Without shots there is nothing to patch where they are asked for."""
        return "it patches real defect pictures" if self.config.source == "shots" and not shots else ""

    def key_settings(self) -> dict[str, object]:
        """As every augmenter's, with the texture folder replaced by a digest of what is in it.

        Two machines with the same pictures under different paths share a pool; a changed picture makes a new one.

        Raises:
            UserError: the texture folder is missing or has no pictures.
        """
        settings = super().key_settings()
        if self.config.texture_folder is not None:
            settings["texture_folder"] = f"sha256:{self._texture_digest}"
        return settings

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """One picture per request; its mask is the shape, its meta holds source, kind and opacity."""
        found = {label: self._sources(view, label) for label in {request.label for request in requests}}
        return [self._one(request, found[request.label], view) for request in requests]

    def _sources(self, view: TrainView, label: str) -> list[str]:
        """Ids of the pictures that patches for that class go onto."""
        if self.config.source == "negatives":
            rows, what = view.negatives, "training negatives, and there are none: give the dataset good pictures"
        else:
            own = view.shots["label"] == label if view.task == "recognition" else slice(None)
            rows, what = view.shots[own], f"a shot of class '{label}', and there is none: give it shots"
        if rows.empty:
            raise UserError(f"memseg needs {what}")
        return rows["id"].tolist()

    def _one(self, request: Request, ids: list[str], view: TrainView) -> Synthetic:
        rng = request.rng
        source_id = ids[rng.integers(len(ids))]
        image = view.image(source_id)  # H,W,3 uint8
        allowed = otsu_foreground(image) if self.config.foreground else None
        mask = perlin_mask(rng, image.shape[:2], allowed)

        kind = "texture" if rng.random() < self.config.texture_share else "structure"
        opacity = rng.uniform(*self.config.opacity)
        patch = self._texture(rng, image.shape[:2]) if kind == "texture" else self._structure(rng, image)
        if (image == image[..., :1]).all():
            patch = to_grey(patch)
        meta = {"source": source_id, "kind": kind, "opacity": opacity}
        return Synthetic(blend(image, patch, mask, opacity), request.label, mask, meta)

    def _structure(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        return cut_and_shuffle(rng, three_of_ten(rng, image), self.config.grid)

    def _texture(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """A texture of that size, H,W,3 uint8."""
        if self.config.texture_folder is None:
            return procedural_texture(rng, shape)
        from PIL import Image

        path = self._texture_files[rng.integers(len(self._texture_files))]
        try:
            with Image.open(path) as picture:
                picture.draft("RGB", shape[::-1])  # lets JPEG decode at a smaller scale
                return np.asarray(picture.convert("RGB").resize(shape[::-1], Image.Resampling.BILINEAR))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"texture '{path}' cannot be read ({error}): take it out of the folder") from None

    @cached_property
    def _texture_files(self) -> list[Path]:
        """The folder's pictures, below it too, in an order that no file system decides."""
        folder = Path(self.config.texture_folder)
        way = "set memseg's texture_folder to a folder of pictures, or leave it out for procedural textures"
        if not folder.is_dir():
            raise UserError(f"texture_folder '{folder}' is not a folder: {way}")
        found = [p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and p.is_file()]
        if not found:
            raise UserError(f"texture_folder '{folder}' holds no pictures ({', '.join(sorted(PICTURES))}): {way}")
        return sorted(found, key=lambda p: p.relative_to(folder).as_posix())

    @cached_property
    def _texture_digest(self) -> str:
        """SHA-256 (hex) over names and bytes, for a name decides which request gets which picture."""
        total = hashlib.sha256()
        for path in self._texture_files:
            total.update(path.relative_to(self.config.texture_folder).as_posix().encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()


def perlin_mask(rng: np.random.Generator, shape: Shape, allowed: np.ndarray | None = None) -> np.ndarray:
    """A random shape, H,W bool, never empty; inside ``allowed`` (H,W bool with at least one pixel) if given."""
    for _ in range(TRIES):
        exponents = [rng.integers(min(LARGEST_EXPONENT, int(np.log2(max(n // 2, 1)))) + 1) for n in shape]
        cells = (int(2 ** exponents[0]), int(2 ** exponents[1]))
        noise = perlin(rng, shape, cells, np.deg2rad(rng.uniform(-90, 90)))
        mask = noise > THRESHOLD
        if allowed is not None:
            mask &= allowed
        if mask.any():
            return mask
    if allowed is not None:
        noise = np.where(allowed, noise, -np.inf)
    return noise >= noise.max()  # a picture of a few pixels, or a tiny object


def blend(image: np.ndarray, patch: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    """``opacity`` of the patch over the image inside the mask, H,W,3 uint8; outside nothing changes."""
    result = image.copy()
    inside = image[mask].astype(np.float32)
    result[mask] = np.round(inside + np.float32(opacity) * (patch[mask] - inside)).astype(np.uint8)
    return result


def otsu_foreground(image: np.ndarray) -> np.ndarray:
    """The object, H,W bool with at least one pixel: the side of Otsu's threshold that less of the border lies on.

    Otsu, IEEE Trans. SMC 1979. A picture of one brightness is all object.
    """
    grey = to_grey(image)[..., 0]
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    below, total = np.cumsum(counts), grey.size
    moment = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below / total - moment) ** 2 / (below * (total - below))
    bright = grey > np.argmax(np.nan_to_num(between, posinf=0))
    if not bright.any() or bright.all():
        return np.ones(grey.shape, bool)
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    return ~bright if border.mean() > 0.5 else bright
