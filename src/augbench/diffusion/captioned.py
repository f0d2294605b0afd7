"""Fine-tuning on one folder of captioned images, as kohya-ss's script trains without a regularisation folder.

In&Out's published files (VISAPP 2024) put their instances and the class images into one folder, each with a caption of
its own: `instance_files` makes the images of an instance, `CaptionedTraining` trains on the folder. Images are trained
in aspect buckets: each is enlarged or reduced until it covers the resolution whose aspect is nearest to its own, and
cropped at the centre; a batch holds images of one bucket. Resizing is by Lanczos, where the script has OpenCV's area
interpolation.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from augbench.core.seeds import derive_seed, rng
from augbench.diffusion.dreambooth import EpochTraining, Recipe, encode
from augbench.diffusion.lora import wrap
from augbench.diffusion.sampling import fit_image

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Resolution = tuple[int, int]
"""Width and height in pixels."""

FILES_PER_INSTANCE = 3


@dataclass(frozen=True)
class Captioned:
    """An image of the folder, H,W,3 uint8, and the text it is trained with."""

    caption: str
    image: np.ndarray


def instance_files(image: np.ndarray) -> list[np.ndarray]:
    """Return an image, its left-right and its top-bottom mirror image, each saved as JPEG with Pillow's defaults."""
    original = Image.fromarray(image)
    return [_as_jpeg(one) for one in (original, ImageOps.mirror(original), ImageOps.flip(original))]


def _as_jpeg(image: Image.Image) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return np.asarray(Image.open(file))


def resolutions(size: int) -> list[Resolution]:
    """Return the buckets of a pipeline with squares of ``size`` pixels, sorted.

    Sides are multiples of size / 8 from size / 2 to 2 * size, and an area is at most size * size: 256 to 1024 in steps
    of 64 for 512, as the published configuration has it.
    """
    step, found = size // 8, {(size, size)}
    for width in range(size // 2, 2 * size + 1, step):
        height = min(2 * size, size * size // width // step * step)
        if height >= size // 2:
            found |= {(width, height), (height, width)}
    return sorted(found)


def bucket_of(image: np.ndarray, size: int) -> Resolution:
    """Return the bucket of an image H,W,3: its own size if that is one, else the one of the nearest aspect."""
    height, width = image.shape[:2]
    known = resolutions(size)
    if (width, height) in known:
        return width, height
    return min(known, key=lambda one: abs(one[0] / one[1] - width / height))


def cropped(image: np.ndarray, bucket: Resolution) -> np.ndarray:
    """Resize an image H,W,3 until it covers the bucket, and crop it at the centre."""
    (height, width), (bucket_width, bucket_height) = image.shape[:2], bucket
    scale = max(bucket_width / width, bucket_height / height)
    resized = fit_image(image, (int(height * scale + 0.5), int(width * scale + 0.5)))
    top, left = (resized.shape[0] - bucket_height) // 2, (resized.shape[1] - bucket_width) // 2
    return resized[top : top + bucket_height, left : left + bucket_width]


def steps_per_epoch(in_buckets: Iterable[int], recipe: Recipe) -> int:
    """Return the number of batches in an epoch, from the numbers of images in the buckets, which share no batch."""
    return sum(math.ceil(count * recipe.repeats / recipe.batch) for count in in_buckets)


class CaptionedTraining(EpochTraining):
    """Training of a pipeline on a folder of captioned images. Wraps the pipeline with `lora.wrap`, for good.

    All images count alike. An epoch has each image ``repeats`` times.
    """

    def __init__(
        self, pipeline: DiffusionPipeline, recipe: Recipe, folder: Sequence[Captioned], size: int, seed: int
    ) -> None:
        """
        Args:
            pipeline: freshly loaded, on the device of the training.
            recipe: hyperparameters.
            folder: at least one image; the length of the captions has been checked.
            size: side length of the pipeline's square images, in pixels.
            seed: of LoRA weights, order and noise.
        """
        sets: dict[tuple[Resolution, str], list[np.ndarray]] = {}
        for one in folder:
            bucket = bucket_of(one.image, size)
            sets.setdefault((bucket, one.caption), []).append(cropped(one.image, bucket))
        self.sets = sorted(sets)  # prompt and examples of the same number belong to them
        self.buckets = Counter(bucket for (bucket, _), images in sets.items() for _ in images)
        examples = [encode(pipeline, bucket[::-1], sets[bucket, caption]) for bucket, caption in self.sets]
        parameters = wrap(pipeline, recipe.shape, derive_seed("dreambooth-weights", seed))
        captions = [caption for _, caption in self.sets]
        per_epoch = steps_per_epoch(self.buckets.values(), recipe)
        super().__init__(pipeline, recipe, captions, examples, parameters, per_epoch, seed)

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers of sets and of their images in a step's batch, both B int64; all are of one bucket."""
        return self._epoch(step // self.per_epoch)[step % self.per_epoch]

    def _epoch(self, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        draw = rng("dreambooth-order", self.seed, epoch)
        batches = []
        for bucket in sorted(self.buckets):
            members = [number for number, (own, _) in enumerate(self.sets) if own == bucket]
            rows = np.array([(number, i) for number in members for i in range(len(self.examples[number]))])
            order = draw.permutation(np.tile(rows, (self.recipe.repeats, 1)))  # R,2
            batches += np.split(order, range(self.recipe.batch, len(order), self.recipe.batch))
        return [(batches[i][:, 0], batches[i][:, 1]) for i in draw.permutation(len(batches))]

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return the number of images by bucket, ``width x height``, and caption."""
        found: dict[str, dict[str, int]] = {}
        for ((width, height), caption), examples in zip(self.sets, self.examples, strict=True):
            found.setdefault(f"{width} x {height}", {})[caption] = len(examples)
        return {"buckets": found}
