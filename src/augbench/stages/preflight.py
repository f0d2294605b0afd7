"""Checks before a run starts, so that an error is one message now and not a thousand failures later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from augbench.classifiers.backbone import build
from augbench.core.errors import UserError
from augbench.core.filters import Unseen, make_filters
from augbench.core.protocol import Protocol, load_preset, preset_names
from augbench.features.extractor import Extractor
from augbench.features.frozen import FrozenBackbone
from augbench.planning.extractor_choice import INCEPTION, resolve
from augbench.planning.plan import Plan
from augbench.stages.filters import load_judge

Check = Callable[[], object]
"""Raises UserError where something is not available, or does not fit."""


def preflight(plan: Plan) -> None:
    """Check that every classifier of the plan can be built, and that every augmenter has what it needs.

    Raises:
        UserError: a backbone is unknown, weights are not available, or a backbone does not support the image size.
    """
    for _, check in needs(plan):
        check()


def needs(plan: Plan) -> Iterator[tuple[str, Check]]:
    """Yield what a plan needs besides its datasets, each by name with its check. Checks download missing weights."""
    for spec in {pool.augmenter.digest: pool.augmenter for pool in plan.pools.values()}.values():
        yield f"augmenter {spec.alias}", plan.library.augmenter(spec).ready
        if judge := make_filters(spec.filters).unseen:
            yield f"filter {judge.backbone}", partial(_check_judge, judge)
    for extractor in sorted(_extractors(plan)):
        yield f"extractor {extractor}", partial(Extractor, extractor, "cpu")
    for protocol in plan.grid.protocols:
        yield f"protocol {protocol.name}", partial(_check_backbone, protocol)
        if vae := protocol.vae():
            yield f"roundtrip of {protocol.name}", vae.ready


def pretrained_backbones() -> Iterator[tuple[str, Check]]:
    """Yield the pretrained backbones of all presets and the extractor of FID, each by name with its check."""
    for preset in {(one.backbone, one.weights): one for one in map(load_preset, preset_names())}.values():
        if preset.weights != "scratch":
            yield f"backbone {preset.backbone}", partial(build, preset, 1, 0)
    yield f"extractor {INCEPTION}", partial(Extractor, INCEPTION, "cpu")


def _check_backbone(protocol: Protocol) -> None:
    """Build the backbone of a protocol, and show it an image of the protocol's size."""
    frozen = protocol.kind != "finetune"
    model = FrozenBackbone(protocol, "cpu") if frozen else build(protocol, 1, 0).eval()
    _show(model, protocol, f"protocols.{protocol.name.partition('+')[0]}")


def _check_judge(judge: Unseen) -> None:
    """Build the backbone of a filter, and show it an image of its size."""
    _show(load_judge(judge, "cpu"), judge.protocol, "filters.unseen")


def _show(model: Callable, protocol: Protocol, option: str) -> None:
    """Show a backbone an image of a protocol's size; ``option`` is where that is set."""
    import torch

    try:
        if isinstance(model, FrozenBackbone):
            model(np.zeros((1, protocol.height, protocol.width, 3), np.uint8))
        else:
            with torch.inference_mode():
                model(torch.zeros(1, 3, protocol.height, protocol.width))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"backbone '{protocol.backbone}' cannot take {protocol.width} x {protocol.height} images ({error}): "
            f"change {option}.width and height, or the backbone"
        ) from None


def _extractors(plan: Plan) -> set[str]:
    """Return the feature extractors of fidelity and quality searches; of datasets that are absent, all that may be."""
    augmenters = [plan.library.augmenter(pool.augmenter) for pool in plan.pools.values()]
    searched = {augmenter.scoring().extractor for augmenter in augmenters if augmenter.candidates()}
    unknown = {resolve(plan.grid.fidelity.extractor)} if plan.absent and plan.grid.fidelity else set()
    return searched | unknown | {spec.extractor for spec in plan.fidelity.values()}
