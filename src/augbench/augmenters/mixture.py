"""A mixture of augmenters: shares of N_aug are taken from the pools of its parts. It owns no images."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from augbench.core.contracts import Augmenter, Part, Settings


class PartSettings(Settings):
    """One part."""

    name: str
    settings: dict[str, Any] = {}
    share: float = Field(gt=0, le=1)


class Mixture(Augmenter):
    """Any mixture, written in the grid; `inout` is the one of the In&Out paper."""

    title = "mixture of other augmenters"

    class Config(Settings):
        """``parts``: at least two, with shares that add up to 1."""

        parts: tuple[PartSettings, ...] = Field(min_length=2)

        @field_validator("parts")
        @classmethod
        def _shares_add_up(cls, parts: tuple[PartSettings, ...]) -> tuple[PartSettings, ...]:
            if abs(sum(part.share for part in parts) - 1) > 1e-6:
                raise ValueError("the shares must add up to 1")
            return parts

    def parts(self) -> tuple[Part, ...]:
        """The parts as the grid gives them."""
        return tuple(Part(part.name, part.settings, part.share) for part in self.config.parts)
