"""What is checked before anything starts: better one line now than a thousand failures later."""

from __future__ import annotations

from augbench.classifiers.backbone import build
from augbench.core.errors import UserError
from augbench.features.extractor import Extractor
from augbench.planning.plan import Plan


def preflight(plan: Plan) -> None:
    """Make sure that every classifier of the plan can be built, and that every augmenter has what it needs.

    Raises:
        UserError: an unknown backbone, weights that cannot be had, or pictures of a size that it cannot take.
    """
    import torch

    for spec in {pool.augmenter.digest: pool.augmenter for pool in plan.pools.values()}.values():
        plan.library.augmenter(spec).ready()

    for extractor in sorted(_extractors(plan)):
        Extractor(extractor, "cpu")

    for protocol in plan.grid.protocols:
        model = build(protocol, 1, 0).eval()
        try:
            with torch.inference_mode():
                model(torch.zeros(1, 3, protocol.height, protocol.width))
        except (AssertionError, RuntimeError, ValueError) as error:
            name = protocol.name.partition("+")[0]
            raise UserError(
                f"backbone '{protocol.backbone}' cannot take {protocol.width} x {protocol.height} pictures ({error}): "
                f"change protocols.{name}.width and height, or the backbone"
            ) from None


def _extractors(plan: Plan) -> set[str]:
    """The feature extractors that fidelity and searches use."""
    makers = [plan.library.augmenter(pool.augmenter) for pool in plan.pools.values()]
    searched = {augmenter.scoring().extractor for augmenter in makers if augmenter.candidates()}
    return searched | {spec.extractor for spec in plan.fidelity.values()}
