"""DIAG: SDXL paints defects into good pictures, where an expert marks and as an expert says (Ital-IA 2024, section 3).

Nothing is trained: a good picture, a region and a prompt give a picture with a defect inside the region. Numbers that
the text leaves open are those of the published code: squares of 1024 pixels, 30 steps, guidance 20, strength 0.99, a
crop around the mask with 2 pixels of padding; good picture and mask are drawn for each picture, with repetition.

Where the regions come from is a setting. The paper takes the masks of training positives, standing in for the expert,
also at zero-shot, where they are information that a strict zero-shot has not: reports say so. ``procedural`` regions
come from no defect; ``drawn`` ones are what a person marked.

Not as published, unless ``as_published`` asks for it: what is painted is laid into the good picture at its own size, so
that every pixel outside the region, but for a soft edge of one pixel, is that of the good picture. The published code
resizes the whole picture to 1024 x 1024 and back, which leaves a trace of resizing in synthetic pictures alone. It also
resizes masks so that their edges turn grey; here a mask is all that it touches. What is painted into a grey picture
(R = G = B) turns grey, since colour alone would give the synthetic picture away. (Before all that the published code
resizes all pictures to 224 x 632. Here they have their own size, and the result has it again.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from augbench.augmenters._photometric import to_grey
from augbench.augmenters._sd import Precision, loaded
from augbench.core.contracts import Augmenter, Request, Settings, Shots, Synthetic, TrainView
from augbench.core.errors import UserError
from augbench.diffusion.gpu_memory import enough_memory
from augbench.diffusion.inpaint import Inpainted, composited, inpaint_around, overlaid
from augbench.diffusion.masks import Kind, drawn_digest, drawn_files, procedural_region, read_drawn
from augbench.diffusion.pipelines import PipelineSource, embedded, fetch, find, of_content
from augbench.diffusion.prompts import PromptSet, read_prompts
from augbench.diffusion.sampling import check_prompts, fit_image, fit_mask

Area = Annotated[float, Field(gt=0, le=1)]

NOTES = {
    "positives": "regions are the masks of its real defects",
    "procedural": "regions are drawn by rules, from no real defect",
    "drawn": "regions were drawn by a person",
}
LEAK = "regions are the masks of all training defects: a strict zero-shot has none (masks: procedural goes without)"


@dataclass(frozen=True)
class Scene:
    """A good picture, and where it shall be painted in."""

    image: np.ndarray  # H,W,3 uint8
    region: np.ndarray  # H,W bool
    square: np.ndarray  # S,S,3 uint8: the picture as the bundle is shown it
    mask: np.ndarray  # S,S uint8: the region there, 255 where to paint
    meta: dict[str, str]


class DIAG(Augmenter):
    """With ``masks: positives`` it sees the masks of the shots; at zero-shot those of all training positives.

    Of these it sees no picture, so that zero-shot and full-shot share their pools, as in the published code.
    """

    title = "DIAG (SDXL inpainting, training-free)"
    paper = "DIAG, Ital-IA 2024"
    uses_gpu = True
    without_masks = "set its masks to procedural, or to drawn with a mask_folder"

    class Config(Settings):
        """Defaults: the paper's text, and where it is silent the published code."""

        bundle: str = "sdxl-inpaint"
        prompts: str = "diag"  # a set that comes with the package, or a .yaml file
        masks: Literal["positives", "procedural", "drawn"] = "positives"
        mask_folder: Path | None = Field(default=None, validate_default=True)  # of masks: drawn; white: paint here
        kinds: tuple[Kind, ...] = Field(default=("noise", "line", "blob"), min_length=1)  # of procedural regions
        area: tuple[Area, Area] = (0.003, 0.05)  # range of a procedural region's share of the picture
        steps: int = Field(default=30, ge=1, le=1000)
        guidance: float = Field(default=20.0, ge=0, allow_inf_nan=False)
        strength: float = Field(default=0.99, gt=0, le=1)  # at 1 the picture's brightness under the mask is lost
        padding: int = Field(default=2, ge=0)  # pixels around the mask that are cut out with it
        batch: int = Field(default=4, ge=1)  # pictures at a time; another number changes pictures by rounding
        precision: Precision = "auto"  # auto: fp16 on a GPU, as published, else fp32; bf16 saves time on CPUs with it
        as_published: bool = False  # the whole picture goes through resizing

        @field_validator("mask_folder")
        @classmethod
        def _folder_where_drawn(cls, folder: Path | None, info: Any) -> Path | None:
            if (folder is None) == (info.data.get("masks") == "drawn"):
                needed = "masks: drawn needs one, a folder of mask pictures"
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
        """Negatives; and masks of positives where these are the regions."""
        if self.config.masks != "positives":
            return frozenset({"negatives"})
        return frozenset({"negatives", "regions"} if shots in (0, "all") else {"negatives", "shots", "masks"})

    def notes(self, shots: Shots) -> str:
        """Where its regions come from."""
        return LEAK if self.config.masks == "positives" and shots == 0 else NOTES[self.config.masks]

    def key_settings(self) -> dict:
        """Prompts, drawn masks and bundles in folders count by their content.

        Raises:
            UserError: no such prompts, or no masks in the folder.
        """
        settings = of_content(super().key_settings(), "bundle") | {"prompts": self._words.identity}
        if self.config.mask_folder is not None:
            settings["mask_folder"] = f"sha256:{drawn_digest(self.config.mask_folder, self._drawn)}"
        return settings

    def embedded(self) -> bool:
        """Whether the bundle comes with the package."""
        return embedded(self.config.bundle)

    def ready(self) -> None:
        """The bundle is one that it can use, and on this machine; drawn masks can be read."""
        for path in self._drawn if self.config.mask_folder is not None else ():
            read_drawn(path)
        fetch(_usable(find(self.config.bundle)))

    def load(self, adapter: Path | None, device: str) -> None:
        """The bundle, in the precision of the setting."""
        self._bundle = _usable(find(self.config.bundle))
        with enough_memory("precision"):
            self._pipeline = loaded(self._bundle, self.config.precision, device)
        self._pipeline.vae.enable_slicing()  # one picture at a time: less memory, and no rounding by the batch
        check_prompts(self._pipeline, self._bundle, [*self._words.prompts, self._words.negative_prompt])

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """A picture for each request, prompts in turn, at the size of the good picture that it is painted in.

        The mask that comes with it is the region. Outside it the picture is the good one, but for the pixels that touch
        the region: there at most half of what was painted shows (`augbench.diffusion.inpaint.feathered`). The meta
        holds the prompt, the id of the good picture (source), where masks come from (masks), and which it was (mask):
        the id of a sample, the kind of a procedural region, or the name of a file.

        Raises:
            UserError: no good picture, no mask with a marked pixel, or too little memory.
        """
        config, words = self.config, self._words
        if view.negatives.empty:
            raise UserError("diag needs training negatives, and there are none: give the dataset good pictures")
        prompts = [words.prompts[request.index % len(words.prompts)] for request in requests]
        scenes = [self._scene(request.rng, view) for request in requests]
        with enough_memory("batch", "precision"):
            painted = inpaint_around(
                self._pipeline,
                self._bundle,
                prompts,
                [scene.square for scene in scenes],
                [scene.mask for scene in scenes],
                seeds=[request.seed for request in requests],
                padding=config.padding,
                batch=config.batch,
                steps=config.steps,
                guidance=config.guidance,
                strength=config.strength,
                negative=words.negative_prompt,
            )
        laid_in = _laid_in_as_published if config.as_published else _laid_in
        return [
            Synthetic(laid_in(scene, part), request.label, scene.region, {"prompt": prompt, **scene.meta})
            for request, prompt, scene, part in zip(requests, prompts, scenes, painted, strict=True)
        ]

    def _scene(self, rng: np.random.Generator, view: TrainView) -> Scene:
        """A good picture and a region, drawn independently; a mask of another size is stretched to the picture's."""
        source = str(rng.choice(view.negatives["id"]))
        image, size = view.image(source), self._bundle.size
        drawn, name = self._region(rng, view, image.shape[:2])
        region = fit_mask(drawn, image.shape[:2])
        if self.config.as_published:  # Pillow's default filter, which leaves grey edges
            square, mask = (np.asarray(Image.fromarray(a).resize((size, size))) for a in (image, np.uint8(255) * drawn))
        else:
            square, mask = fit_image(image, (size, size)), np.uint8(255) * fit_mask(region, size)
        if not mask.any():  # a thin mask that resizing wiped out
            mask = np.uint8(255) * fit_mask(region, size)
        return Scene(image, region, square, mask, {"source": source, "masks": self.config.masks, "mask": name})

    def _region(self, rng: np.random.Generator, view: TrainView, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
        """H,W bool, of ``shape`` only where it is procedural, with at least one pixel; and what it is called."""
        config = self.config
        if config.masks == "procedural":
            return procedural_region(rng, shape, config.kinds, config.area)
        if config.masks == "drawn":
            path = self._drawn[rng.integers(len(self._drawn))]
            return read_drawn(path), path.relative_to(config.mask_folder).as_posix()
        everywhere = view.reads("regions")
        names = list(view.regions) if everywhere else list(view.shots["id"])
        for name in rng.permutation(names).tolist():  # masks may be empty in a dataset whose labels say otherwise
            mask = view.region(name) if everywhere else view.mask(name)
            if mask is not None and mask.any():
                return mask, name
        raise UserError(f"diag needs masks, and none of {len(names)} real defects has one: {self.without_masks}")

    @cached_property
    def _words(self) -> PromptSet:
        return read_prompts(self.config.prompts)

    @cached_property
    def _drawn(self) -> list[Path]:
        """The pictures of the mask folder."""
        return drawn_files(self.config.mask_folder, "set diag's mask_folder to a folder of masks, white where to paint")


def _laid_in(scene: Scene, painted: Inpainted) -> np.ndarray:
    """H,W,3 uint8: only what was painted goes through resizing; grey in a grey picture, as colour would tell it."""
    if (scene.image == scene.image[..., :1]).all():
        painted = replace(painted, image=to_grey(painted.image))
    return composited(scene.image, scene.region, painted)


def _laid_in_as_published(scene: Scene, painted: Inpainted) -> np.ndarray:
    """H,W,3 uint8: as diffusers lays it in, at the bundle's size, and the whole resized."""
    whole = Image.fromarray(overlaid(scene.square, scene.mask, painted))
    return np.asarray(whole.resize(scene.image.shape[1::-1]))


def _usable(bundle: PipelineSource) -> PipelineSource:
    if bundle.kind != "sdxl-inpaint":
        ways = "take sdxl-inpaint or micro-sdxl-inpaint"
        raise UserError(f"augmenter 'diag' cannot use bundle '{bundle.name}' ({bundle.title}): {ways}")
    return bundle
