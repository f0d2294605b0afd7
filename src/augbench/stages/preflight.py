"""Checks before a run starts, so that an error is one message now and not a thousand failures later."""

from __future__ import annotations

import numpy as np

from augbench.classifiers.backbone import build
from augbench.core.errors import UserError
from augbench.features.extractor import Extractor
from augbench.features.frozen import FrozenBackbone
from augbench.planning.plan import Plan


def preflight(plan: Plan) -> None:
    """Check that every classifier of the plan can be built, and that every augmenter has what it needs.

    Raises:
        UserError: a backbone is unknown, weights are not available, or a backbone does not support the image size.
    """
    import torch

    for spec in {pool.augmenter.digest: pool.augmenter for pool in plan.pools.values()}.values():
        plan.library.augmenter(spec).ready()

    for extractor in sorted(_extractors(plan)):
        Extractor(extractor, "cpu")

    for protocol in plan.grid.protocols:
        frozen = protocol.kind != "finetune"
        model = FrozenBackbone(protocol, "cpu") if frozen else build(protocol, 1, 0).eval()
        try:
            if frozen:
                model(np.zeros((1, protocol.height, protocol.width, 3), np.uint8))
            else:
                with torch.inference_mode():
                    model(torch.zeros(1, 3, protocol.height, protocol.width))
        except (AssertionError, RuntimeError, ValueError) as error:
            name = protocol.name.partition("+")[0]
            raise UserError(
                f"backbone '{protocol.backbone}' cannot take {protocol.width} x {protocol.height} images ({error}): "
                f"change protocols.{name}.width and height, or the backbone"
            ) from None


def _extractors(plan: Plan) -> set[str]:
    """Return the feature extractors of fidelity and quality searches."""
    augmenters = [plan.library.augmenter(pool.augmenter) for pool in plan.pools.values()]
    searched = {augmenter.scoring().extractor for augmenter in augmenters if augmenter.candidates()}
    return searched | {spec.extractor for spec in plan.fidelity.values()}
