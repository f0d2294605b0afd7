"""Settings of ``filters``: which synthetic images of an augmenter are dropped and made again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from augbench.core.errors import UserError
from augbench.core.models import StrictModel
from augbench.core.protocol import Protocol, first_problem, make_protocol
from augbench.core.reviews import ReviewedBy

# Of tf_efficientnet_lite0, which was pretrained on (x - 127) / 128.
_PACKAGED = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}


class Unchanged(StrictModel):
    """Drop an image that hardly differs from its source anywhere inside its mask."""

    tolerance: int = Field(
        8, ge=0, le=255, description="the largest difference of a value in 0..255 that is no change", examples=[24]
    )


class Unseen(StrictModel):
    """Drop an image in which a frozen backbone sees no defect: no farther from normal images than these are."""

    backbone: str = Field(
        description="a timm model name, of none of the grid's protocols", examples=["tf_efficientnet_lite0"]
    )
    weights: Literal["timm", "package"] = Field("timm", description="as in a protocol", examples=["package"])
    width: int = Field(224, ge=8, le=4096, description="pixels", examples=[224])
    height: int = Field(224, ge=8, le=4096, description="pixels", examples=[224])
    quantile: float = Field(
        0.95, gt=0, lt=1, description="of the distances of held-out normal training images", examples=[0.9]
    )

    @cached_property
    def protocol(self) -> Protocol:
        """The protocol of kind ``gaussian`` with this backbone."""
        network = self.model_dump(exclude={"quantile"})
        own = _PACKAGED if self.weights == "package" else {}
        return make_protocol({"name": "unseen", "kind": "gaussian", **network, **own})


def _on_or_off(value: Any) -> Any:
    """Let ``true`` stand for a filter with its defaults, and ``false`` for none."""
    return ({} if value else None) if isinstance(value, bool) else value


class Filters(StrictModel):
    """The filters of an augmenter, in the order in which images pass them."""

    unchanged: Annotated[Unchanged | None, BeforeValidator(_on_or_off)] = Field(
        None, description="drop an image that hardly differs from its source inside its mask", examples=[True]
    )
    memorised: bool = Field(
        False, description="drop near-copies of the real defect images that the augmenter reads", examples=[True]
    )
    unseen: Unseen | None = Field(
        None,
        description="drop an image in which a frozen backbone sees no defect",
        examples=[{"backbone": "tf_efficientnet_lite0", "weights": "package"}],
    )
    review: ReviewedBy | None = Field(
        None,
        description="only images that a person accepted, see `augbench studio`; none is made again",
        examples=["my_review"],
    )
    attempts: int = Field(10, ge=1, le=1000, description="at one image, before its chunk fails", examples=[10])

    @property
    def names(self) -> tuple[str, ...]:
        """The filters that are on, in order."""
        return tuple(name for name in ("unchanged", "memorised", "unseen", "review") if getattr(self, name))

    @property
    def before_review(self) -> Filters:
        """The filters of the pool that was reviewed."""
        return self.model_copy(update={"review": None})

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values, inverse of `make_filters`: the non-default ones; {} where no filter is on."""
        return self.model_dump(mode="json", exclude_defaults=True) if self.names else {}

    @property
    def key_fields(self) -> dict[str, Any]:
        """The values that enter keys: non-default ones, without the number of attempts, which changes no image."""
        fields = {name: value for name, value in self.as_dict().items() if name != "attempts"}
        if self.unseen:
            fields["unseen"] = {"network": self.unseen.protocol.feature_fields, "quantile": self.unseen.quantile}
        if self.review:
            fields["review"] = self.review.content
        return fields


def make_filters(values: Mapping[str, Any]) -> Filters:
    """Create `Filters`. Raises UserError for an unknown key or a value out of range."""
    try:
        return Filters(**values)
    except ValidationError as error:
        raise UserError(f"filters: {first_problem(error, Filters)}") from None
