"""VAE round trip: normal images, encoded and decoded by the VAE of a pipeline, labelled as defects.

Every image of a latent diffusion model has passed this decoder, and the real ones of training have not. A classifier
that tells the two apart gains from the decoder's traces alone. Images are resized to the size at which the pipeline
generates, and back, as `ddpm` and `stablesdg` do. Colours that the VAE shifts in grey images stay, as they do there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from augbench.augmenters._sd import ASPECT, Aspect, PipelineAugmenter, generation_size
from augbench.augmenters._settings import OURS, setting
from augbench.augmenters._sources import normal_ids
from augbench.core.contracts import Request, Settings, Synthetic, TrainView
from augbench.core.gpu import enough_memory
from augbench.diffusion.img2img import round_trip
from augbench.diffusion.pipelines import PipelineSource, find, load
from augbench.diffusion.sampling import fit_image

BATCH = 4  # images encoded at a time; fixed, because an image depends slightly on its batch


class VAERoundTrip(PipelineAugmenter):
    """Passes normal images through a pipeline's VAE: what a classifier gains from the traces of the decoder.

    It computes in fp32 on every device, because the VAE of SDXL overflows in fp16.
    """

    title = "normal images through a VAE"
    licence = "Apache-2.0"
    control = "normal images, resized and passed through a pipeline's VAE, with no defect"

    class Config(Settings):
        """Which VAE, at which size."""

        bundle: str = setting(
            "sd15",
            "the pipeline: a name (sd15, sdxl-inpaint, micro-sd, micro-sdxl-inpaint), a diffusers folder or a "
            ".safetensors file",
            f"{OURS}: that of ddpm",
        )
        aspect: Aspect = setting("squeeze", ASPECT, f"{OURS}: as ddpm")

    config: Config

    def find_pipeline(self) -> PipelineSource:
        """Find the pipeline, of any kind: each has a VAE."""
        return find(self.config.bundle)

    def prompts_from(self) -> str:
        """Return that there are no prompts."""
        return ""

    def precision_on(self, device: str) -> str:
        """Return fp32, whatever the device."""
        return "fp32"

    def batches(self) -> tuple[int, int]:
        """Return the batch of encoding and decoding; the estimate of memory counts the rest of the pipeline, too."""
        return BATCH, BATCH

    def load(self, adapter: Path | None, device: str) -> None:
        """Load the pipeline, and move its VAE to the device."""
        self._pipeline_source = self.find_pipeline()
        self._pipeline = load(self._pipeline_source)
        with enough_memory("the pipeline"):
            self._pipeline.vae.to(device)

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request from a random normal image, which is its source."""
        ids = normal_ids("vae_roundtrip", view)
        sources = [ids[request.rng.integers(len(ids))] for request in requests]
        real = [view.image(source) for source in sources]
        with enough_memory("bundle"):
            decoded = self.reconstruct(real)
        return [
            Synthetic(image, request.label, None, {"source": source})
            for request, source, image in zip(requests, sources, decoded, strict=True)
        ]

    def reconstruct(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encode and decode images H,W,3 uint8, each of its own size; `roundtrip` of a protocol does it to real ones.

        Raises:
            UserError: the result is NaN.
        """
        shape = generation_size(self._pipeline_source, self.config.aspect, images)
        decoded = round_trip(self._pipeline, self._pipeline_source, images, shape, BATCH)
        return [fit_image(image, own.shape[:2]) for own, image in zip(images, decoded, strict=True)]
