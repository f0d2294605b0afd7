"""DIAG: SDXL inpaints defects into normal images, in regions and by prompts of an expert (Ital-IA 2024, section 3).

It is training-free: a normal image, a region and a prompt give an image with a defect inside the region. Numbers that
the text leaves open are those of the published code: squares of 1024 pixels, 30 steps, guidance 20, strength 0.99, a
crop around the mask with 2 pixels of padding. Normal image and mask are drawn anew for each image, with repetition.

The source of the regions is a setting. The paper takes the masks of training positives in place of the expert, also at
zero-shot, where a strict zero-shot does not have them; reports note this. ``procedural`` regions do not depend on
defects; a person marked the ``drawn`` ones, in a ``mask_folder``.

``prompts: my_prompts.yaml`` names a file like ``src/augbench/assets/prompts/diag.yaml``; with ``chosen_by: training
images of defects``, say, tables tell what its prompts were chosen by looking at.

The default differs from the published code in four points; ``as_published`` restores the first three:
- The inpainted region is composited into the normal image at its own size, so that all pixels outside the region are
  unchanged, except for a soft edge of one pixel. The published code resizes the whole image to 1024 x 1024 and back,
  which leaves resizing artefacts in synthetic images only.
- Masks stay binary. The published code resizes them with interpolation, so that their edges turn grey.
- In a grey image (R = G = B) the inpainted region is converted to grey: colour alone would identify synthetic images.
- Images keep their own size. The published code first resizes all images to 224 x 632.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from augbench.augmenters._folders import content_key, image_files
from augbench.augmenters._photometric import is_grey, to_grey
from augbench.augmenters._sd import PRECISION, PipelineAugmenter, Precision
from augbench.augmenters._settings import OURS, setting
from augbench.core.contracts import Request, Settings, Shots, Synthetic, TrainView
from augbench.core.errors import UserError
from augbench.core.gpu import enough_memory
from augbench.diffusion.inpaint import Inpainted, composited, inpaint_around, overlaid
from augbench.diffusion.masks import Kind, procedural_region, read_drawn
from augbench.diffusion.prompts import PromptSet, read_prompts
from augbench.diffusion.sampling import check_prompts, fit_image, fit_mask

Area = Annotated[float, Field(gt=0, le=1)]
CODE = "published code"

NOTES = {
    "positives": "regions are the masks of its real defects",
    "procedural": "regions are drawn by rules, from no real defect",
    "drawn": "regions were drawn by a person",
}
LEAK = "regions are the masks of all training defects: a strict zero-shot has none (masks: procedural goes without)"


@dataclass(frozen=True)
class Scene:
    """A normal image and the region to inpaint."""

    image: np.ndarray  # H,W,3 uint8
    region: np.ndarray  # H,W bool
    square: np.ndarray  # S,S,3 uint8: the image at the pipeline's size
    mask: np.ndarray  # S,S uint8: the region at the pipeline's size, 255 where to inpaint
    meta: dict[str, str]


class DIAG(PipelineAugmenter):
    """Inpaints defects into normal images with SDXL, inside a region and by a prompt; nothing is trained.

    With ``masks: positives`` it reads the masks of the shots, and at zero-shot those of all training positives. It
    reads no image of these, so that zero-shot and full-shot share their pools, as in the published code.
    """

    title = "DIAG (SDXL inpainting, training-free)"
    paper = "DIAG, Ital-IA 2024"
    kind = "sdxl-inpaint"
    without_masks = "set its masks to procedural, or to drawn with a mask_folder"

    class Config(Settings):
        """Defaults: the paper's text, and where it is silent the published code."""

        bundle: str = setting(
            "sdxl-inpaint",
            "the pipeline: a name (sdxl-inpaint, micro-sdxl-inpaint), a diffusers folder or a .safetensors file",
            "paper, section 4.2 (SDXL of diffusers); which weights: published code",
        )
        prompts: str = setting(
            "diag", "prompts and negative prompt: a set of the package, or a .yaml file", "paper, section 4.2"
        )
        masks: Literal["positives", "procedural", "drawn"] = setting(
            "positives",
            "regions: masks of training positives, procedural shapes, or masks that a person drew",
            f"positives: paper, section 4.2; procedural and drawn: {OURS}",
        )
        mask_folder: Path | None = setting(
            None, "folder of mask images for masks: drawn; white is inpainted", OURS, validate_default=True
        )
        kinds: tuple[Kind, ...] = setting(
            ("noise", "line", "blob"),
            "shapes of procedural regions, one at random per image",
            f"{OURS}; noise: the masks of MemSeg",
            min_length=1,
        )
        area: tuple[Area, Area] = setting(
            (0.003, 0.05), "range of the share of the image that a procedural region covers", OURS
        )
        steps: int = setting(30, "denoising steps per image", CODE, ge=1, le=1000)
        guidance: float = setting(20.0, "classifier-free guidance scale", CODE, ge=0, allow_inf_nan=False)
        strength: float = setting(
            0.99,
            "share of the noise schedule that is applied inside the mask; 1 loses the brightness under the mask",
            CODE,
            gt=0,
            le=1,
        )
        padding: int = setting(2, "pixels around the mask that are cropped together with it", CODE, ge=0)
        batch: int = setting(4, "images inpainted at a time; other values give equal images up to rounding", OURS, ge=1)
        precision: Precision = setting("auto", PRECISION, f"fp16: {CODE}; fp32 on a CPU: {OURS}")
        as_published: bool = setting(
            False,
            "resize the whole image and its mask as the published code does, and keep colours in grey images",
            f"{OURS}: the default leaves no resizing artefacts",
        )

        @field_validator("mask_folder")
        @classmethod
        def _folder_where_drawn(cls, folder: Path | None, info: Any) -> Path | None:
            if (folder is None) == (info.data.get("masks") == "drawn"):
                needed = "masks: drawn needs one, a folder of mask images"
                raise ValueError(needed if folder is None else "is for masks: drawn")
            return folder

        @field_validator("area")
        @classmethod
        def _area_rises(cls, area: tuple[float, float]) -> tuple[float, float]:
            if area[0] > area[1]:
                raise ValueError(f"{list(area)}: the first number must not be larger than the second")
            return area

    config: Config

    def reads(self, shots: Shots) -> frozenset[str]:
        """Read normal images, and masks of positives if these are the regions."""
        if self.config.masks != "positives":
            return frozenset({"negatives"})
        return frozenset({"negatives", "regions"} if shots in (0, "all") else {"negatives", "shots", "masks"})

    def notes(self, shots: Shots) -> str:
        """Name the source of the regions."""
        return LEAK if self.config.masks == "positives" and shots == 0 else NOTES[self.config.masks]

    def prompts_from(self) -> str:
        """Return what its set of prompts says about itself."""
        return self._prompts.chosen_by

    def key_settings(self) -> dict:
        """Return the settings that enter keys; prompts, drawn masks and pipelines in folders enter by their content.

        Raises:
            UserError: no such prompts, or no masks in the folder.
        """
        settings = super().key_settings() | {"prompts": self._prompts.identity}
        if self.config.mask_folder is not None:
            settings["mask_folder"] = content_key(self.config.mask_folder, self._drawn)
        return settings

    def ready(self) -> None:
        """Check that the pipeline inpaints and drawn masks can be read; download the pipeline if necessary."""
        for path in self._drawn if self.config.mask_folder is not None else ():
            read_drawn(path)
        super().ready()

    def batches(self) -> tuple[int, int]:
        """Return the batch, and one image for the VAE."""
        return self.config.batch, 1

    def load(self, adapter: Path | None, device: str) -> None:
        """Load the pipeline in the configured precision."""
        self._pipeline_source = self.find_pipeline()
        self._pipeline = self.load_pipeline(self._pipeline_source, device)
        self._pipeline.vae.enable_slicing()  # one image at a time: less memory, and rounding independent of the batch
        check_prompts(self._pipeline, self._pipeline_source, [*self._prompts.prompts, self._prompts.negative_prompt])

    def trying(self, prompt: str, negative_prompt: str = "", **settings: Any) -> Self:
        """Return this augmenter with another prompt and other settings, as `PipelineAugmenter.trying`."""
        other = super().trying(prompt, negative_prompt, **settings)
        other._prompts = PromptSet(prompts=(prompt,), negative_prompt=negative_prompt)
        return other

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Generate one image per request, prompts in turn, at the size of the normal image that is inpainted.

        Its mask is the region. Outside the region it equals the normal image, except for the pixels that touch the
        region, which the inpainted image enters with a weight of at most a half
        (`augbench.diffusion.inpaint.feathered`). Its meta holds the prompt, the id of the normal image (source), the
        source of the masks (masks), and the mask (mask): the id of a sample, the kind of a procedural region, or a
        file name.

        Raises:
            UserError: no normal image, no mask with a marked pixel, or too little memory.
        """
        config, prompt_set = self.config, self._prompts
        if view.negatives.empty:
            raise UserError("diag needs training negatives, and there are none: give the dataset normal images")
        prompts = [prompt_set.prompts[request.index % len(prompt_set.prompts)] for request in requests]
        scenes = [self._scene(request.rng, view) for request in requests]
        with enough_memory("batch", "precision"):
            inpainted = inpaint_around(
                self._pipeline,
                self._pipeline_source,
                prompts,
                [scene.square for scene in scenes],
                [scene.mask for scene in scenes],
                seeds=[request.seed for request in requests],
                padding=config.padding,
                batch=config.batch,
                steps=config.steps,
                guidance=config.guidance,
                strength=config.strength,
                negative=prompt_set.negative_prompt,
            )
        composite = _composite_as_published if config.as_published else _composite
        return [
            Synthetic(composite(scene, part), request.label, scene.region, {"prompt": prompt, **scene.meta})
            for request, prompt, scene, part in zip(requests, prompts, scenes, inpainted, strict=True)
        ]

    def _scene(self, rng: np.random.Generator, view: TrainView) -> Scene:
        """Draw a normal image and a region independently; resize the mask to the size of the image."""
        source = str(rng.choice(view.negatives["id"]))
        image, size = view.image(source), self._pipeline_source.size
        drawn, name = self._region(rng, view, image.shape[:2])
        region = fit_mask(drawn, image.shape[:2])
        if self.config.as_published:  # Pillow's default filter, which leaves grey edges
            square, mask = (np.asarray(Image.fromarray(a).resize((size, size))) for a in (image, np.uint8(255) * drawn))
        else:
            square, mask = fit_image(image, (size, size)), np.uint8(255) * fit_mask(region, size)
        if not mask.any():  # resizing removed a thin mask
            mask = np.uint8(255) * fit_mask(region, size)
        return Scene(image, region, square, mask, {"source": source, "masks": self.config.masks, "mask": name})

    def _region(self, rng: np.random.Generator, view: TrainView, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
        """Draw a region, H,W bool with at least one pixel, and return it with its name.

        Only procedural regions have ``shape``; masks from files keep their own.
        """
        config = self.config
        if config.masks == "procedural":
            return procedural_region(rng, shape, config.kinds, config.area)
        if config.masks == "drawn":
            path = self._drawn[rng.integers(len(self._drawn))]
            return read_drawn(path), path.relative_to(config.mask_folder).as_posix()
        of_all_positives = view.reads("regions")
        names = list(view.regions) if of_all_positives else list(view.shots["id"])
        for name in rng.permutation(names).tolist():  # the mask of a positive can be empty
            mask = view.region(name) if of_all_positives else view.mask(name)
            if mask is not None and mask.any():
                return mask, name
        raise UserError(f"diag needs masks, and none of {len(names)} real defects has one: {self.without_masks}")

    @cached_property
    def _prompts(self) -> PromptSet:
        return read_prompts(self.config.prompts)

    @cached_property
    def _drawn(self) -> list[Path]:
        fix = "set diag's mask_folder to a folder of masks: white is inpainted"
        return image_files("mask_folder", self.config.mask_folder, fix)


def _composite(scene: Scene, inpainted: Inpainted) -> np.ndarray:
    """Composite the inpainted region into the image at its own size, in grey if the image is grey: H,W,3 uint8."""
    if is_grey(scene.image):
        inpainted = replace(inpainted, image=to_grey(inpainted.image))
    return composited(scene.image, scene.region, inpainted)


def _composite_as_published(scene: Scene, inpainted: Inpainted) -> np.ndarray:
    """Composite at the pipeline's size as diffusers does, then resize the whole image: H,W,3 uint8."""
    whole = Image.fromarray(overlaid(scene.square, scene.mask, inpainted))
    return np.asarray(whole.resize(scene.image.shape[1::-1]))
