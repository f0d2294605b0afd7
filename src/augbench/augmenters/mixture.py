"""A mixture of augmenters: it takes shares of N_aug from the pools of its parts and has no pool of its own."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from augbench.augmenters._settings import OURS, setting
from augbench.core.contracts import Augmenter, Part, Settings


class PartSettings(Settings):
    """One part."""

    name: str = setting(..., "an augmenter", OURS)
    settings: dict[str, Any] = setting({}, "its settings that differ from its defaults", OURS)
    share: float = setting(..., "its share of N_aug", OURS, gt=0, le=1)


class Mixture(Augmenter):
    """Mixes images of any augmenters in fixed shares; `inout` is the mixture of the In&Out paper."""

    title = "mixture of other augmenters"

    class Config(Settings):
        """The parts."""

        parts: tuple[PartSettings, ...] = setting(
            ...,
            "two or more augmenters, each with name, share and settings; the shares add up to 1",
            OURS,
            min_length=2,
        )

        @field_validator("parts")
        @classmethod
        def _shares_add_up(cls, parts: tuple[PartSettings, ...]) -> tuple[PartSettings, ...]:
            if abs(sum(part.share for part in parts) - 1) > 1e-6:
                raise ValueError("the shares must add up to 1")
            return parts

    def parts(self) -> tuple[Part, ...]:
        """Return the parts in the order of the grid."""
        return tuple(Part(part.name, part.settings, part.share) for part in self.config.parts)
