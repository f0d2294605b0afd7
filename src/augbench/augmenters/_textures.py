"""Foreign textures: images of a folder that a setting names, or random coloured ones where there is none."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from augbench.augmenters._folders import content_key, image_files
from augbench.augmenters._settings import OURS, setting
from augbench.core.contracts import Augmenter, Settings
from augbench.core.errors import UserError
from augbench.procedural.noise import Shape, perlin, spectral, streaks


class TextureSettings(Settings):
    """Where textures come from."""

    texture_folder: Path | None = setting(
        None,
        "folder of texture images of any size; none: procedural textures",
        f"paper (DTD); procedural textures: {OURS}",
    )


class TexturedAugmenter(Augmenter):
    """An augmenter that pastes foreign textures."""

    config: TextureSettings

    def key_settings(self) -> dict[str, object]:
        """Return the settings that enter keys, with the texture folder replaced by a digest of its content.

        Two machines with the same images under different paths share a pool; a changed image makes a new one.

        Raises:
            UserError: the texture folder is missing or has no images.
        """
        settings = super().key_settings()
        if self.config.texture_folder is not None:
            settings["texture_folder"] = self._texture_content
        return settings

    def texture(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """Draw a texture of that size, H,W,3 uint8.

        Raises:
            UserError: an image of the texture folder cannot be read.
        """
        if self.config.texture_folder is None:
            return procedural_texture(rng, shape)
        path = self._texture_files[rng.integers(len(self._texture_files))]
        try:
            with Image.open(path) as texture:
                texture.draft("RGB", shape[::-1])  # lets JPEG decode at a smaller scale
                return np.asarray(texture.convert("RGB").resize(shape[::-1], Image.Resampling.BILINEAR))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"texture '{path}' cannot be read ({error}): take it out of the folder") from None

    @cached_property
    def _texture_files(self) -> list[Path]:
        fix = f"set {self.name}'s texture_folder to a folder of images, or leave it out for procedural textures"
        return image_files("texture_folder", self.config.texture_folder, fix)

    @cached_property
    def _texture_content(self) -> str:
        return content_key(self.config.texture_folder, self._texture_files)


def procedural_texture(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw a texture of no particular material, H,W,3 uint8: a random field in a palette of four random colours."""
    field = _FIELDS[rng.integers(len(_FIELDS))](rng, shape)
    low, high = np.quantile(field[:: max(1, shape[0] // 64)], (0.02, 0.98))
    level = np.clip((field - low) * (255 / (high - low + 1e-6)), 0, 255).astype(np.uint8)
    return _palette(rng)[level]


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Return a colour map, 256,3 uint8: a gradient of four colours of one tint, as in photographs of textures."""
    tint = rng.normal(0, 35, 3)
    colours = np.clip(rng.uniform(0, 255, (4, 1)) + tint + rng.normal(0, 15, (4, 3)), 0, 255)
    stops = np.linspace(0, 255, 4)
    return np.stack([np.interp(np.arange(256), stops, colours[:, c]) for c in range(3)], 1).astype(np.uint8)


def _stripes(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Return warped sinusoidal bands of 4 to 40 pixels, half of the time crossed by a second set."""
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(4, 40)
    warp = np.float32(rng.uniform(0, 1.5)) * perlin(rng, shape, (3, 3)) * 2
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    bands = np.sin((x * cos + y * sin) * np.float32(2 * np.pi / pitch) + warp)
    return bands * np.sin((y * cos - x * sin) * np.float32(2 * np.pi / pitch) + warp) if rng.random() < 0.5 else bands


_FIELDS = (  # clouds, grain, brushed metal, stripes, and flat patches with sharp borders as in stone or camouflage
    lambda rng, shape: spectral(rng, shape, rng.uniform(0.3, 2.2)),
    lambda rng, shape: spectral(rng, shape, 0.0, lowest=rng.uniform(0.02, 0.15), highest=rng.uniform(0.2, 0.6)),
    lambda rng, shape: streaks(rng, shape, rng.uniform(0, np.pi), rng.uniform(4, 30), rng.uniform(0.3, 2)),
    _stripes,
    lambda rng, shape: np.round(1.5 * spectral(rng, shape, rng.uniform(1.0, 2.0))),
)
