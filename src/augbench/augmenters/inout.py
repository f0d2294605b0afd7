"""In&Out (VISAPP 2024): half in-distribution pictures by DDPM, half out-of-distribution patches by MemSeg."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from augbench.core.contracts import Augmenter, Part, Settings


class InOut(Augmenter):
    """Takes its shares from the pools of `ddpm` and `memseg`; it owns no images."""

    title = "In&Out: half DDPM, half MemSeg"
    paper = "In&Out, VISAPP 2024, section 3.3"

    class Config(Settings):
        """Ratio and settings of the parts; the paper takes halves."""

        ddpm_share: float = Field(default=0.5, gt=0, lt=1)
        ddpm: dict[str, Any] = {}
        memseg: dict[str, Any] = {}

    def parts(self) -> tuple[Part, ...]:
        """DDPM first, so that it takes what does not divide."""
        share = self.config.ddpm_share
        return Part("ddpm", self.config.ddpm, share), Part("memseg", self.config.memseg, 1 - share)
