"""In&Out (VISAPP 2024): half in-distribution images by DDPM, half out-of-distribution patches by MemSeg."""

from __future__ import annotations

from typing import Any

from augbench.augmenters._settings import OURS, setting
from augbench.core.contracts import Augmenter, Part, Settings


class InOut(Augmenter):
    """Mixes images from the pools of `ddpm` and `memseg`; it has no pool of its own."""

    title = "In&Out: half DDPM, half MemSeg"
    paper = "In&Out, VISAPP 2024, section 4"

    class Config(Settings):
        """Share and settings of the two parts; the paper takes halves."""

        ddpm_share: float = setting(
            0.5, "share of N_aug that DDPM makes; MemSeg makes the rest", "paper, section 4", gt=0, lt=1
        )
        ddpm: dict[str, Any] = setting(
            {},
            "settings of DDPM that differ from its defaults; see `augbench augmenters show ddpm`",
            "paper, sections 4 and 5, see ddpm",
        )
        memseg: dict[str, Any] = setting(
            {},
            "settings of MemSeg that differ from its defaults; see `augbench augmenters show memseg`",
            f"{OURS}: the paper does not state its variant of MemSeg",
        )

    def parts(self) -> tuple[Part, ...]:
        """Return DDPM first, so that it makes the odd image where N_aug does not divide."""
        share = self.config.ddpm_share
        return Part("ddpm", self.config.ddpm, share), Part("memseg", self.config.memseg, 1 - share)
