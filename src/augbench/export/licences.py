"""Licences of what is exported: of pretrained weights, datasets and augmenters."""

from __future__ import annotations

from augbench.core import registry
from augbench.core.errors import UserError
from augbench.core.protocol import Protocol
from augbench.core.weights import packaged

UNKNOWN = "not stated"


def of_weights(protocol: Protocol) -> str:
    """Name the weights that a backbone started from, and their licence."""
    if protocol.weights == "scratch":
        return "randomly initialised: no pretrained weights"
    if protocol.weights == "package":
        found = packaged(protocol.backbone)
        return f"{found.title}, package {found.package}: {found.licence}"
    if protocol.weights != "timm":
        return f"a local file, {protocol.weights.rpartition('/')[2]}: licence {UNKNOWN}"
    import timm

    from augbench.classifiers import micro_resnet

    micro_resnet.register()
    card = timm.get_pretrained_cfg(protocol.backbone)
    return f"timm {protocol.backbone}: {(card and card.license) or UNKNOWN}"


def of_plugin(kind: str, name: str) -> str:
    """Return the licence that a dataset or an augmenter states; of a plug-in that is not here it is unknown."""
    try:
        return registry.get(kind, name).licence or UNKNOWN
    except UserError:
        return f"unknown: the plug-in '{name}' is not here"
