"""Build a timm classifier. Missing pretrained weights are an error, never a silent random initialisation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from augbench.classifiers import micro_resnet
from augbench.core.errors import UserError, WeightsError, did_you_mean
from augbench.core.protocol import Protocol
from augbench.core.temporary import log_levels
from augbench.core.weights import packaged

if TYPE_CHECKING:
    import torch


def build(protocol: Protocol, outputs: int, seed: int) -> torch.nn.Module:
    """Build the protocol's backbone with ``outputs`` logits; ``seed`` initialises its new layers.

    Raises:
        UserError: the backbone is unknown, or its weights are missing or do not fit.
    """
    import timm
    import torch

    micro_resnet.register()
    refuse_unknown(protocol.backbone)
    torch.manual_seed(seed)
    if protocol.weights == "timm":
        return _pretrained(protocol, outputs)
    if protocol.weights == "package":
        model = load_packaged(protocol.backbone)
        model.reset_classifier(outputs)
        return model
    model = timm.create_model(protocol.backbone, pretrained=False, num_classes=outputs)
    if protocol.weights != "scratch":
        _load_file(model, protocol.weights)
    return model


def refuse_unknown(backbone: str) -> None:
    """Refuse a backbone that timm does not know.

    timm's names are ``architecture`` or ``architecture.tag``; a tag names one of several sets of weights.

    Raises:
        UserError: timm has no such architecture, or no such weights of it.
    """
    import timm

    architecture, _, tag = backbone.partition(".")
    if not timm.is_model(architecture):
        raise UserError(f"backbone '{backbone}' is unknown to timm{did_you_mean(architecture, timm.list_models())}")
    tags = timm.list_pretrained(f"{architecture}.*") if tag else []
    if tag and backbone not in tags:
        raise UserError(f"backbone '{backbone}': timm has no weights of that tag{did_you_mean(backbone, tags)}")


def _pretrained(protocol: Protocol, outputs: int) -> torch.nn.Module:
    import timm

    name = protocol.backbone
    option = f"protocols.{protocol.name.partition('+')[0]}.weights"
    scratch = ", or to 'scratch' for random initialisation" if protocol.kind == "finetune" else ""
    ways = (
        f"put '{name}' into the Hugging Face cache (HF_HOME) on a machine with a network, or set "
        f"{option} to a local .safetensors file{scratch}"
    )
    if not timm.models.is_model_pretrained(name):
        raise UserError(f"timm has no pretrained weights for '{name}': {ways}")
    return pretrained(name, outputs, f"no pretrained weights of '{name}' at hand", ways)


def pretrained(name: str, outputs: int, missing: str, ways: str) -> torch.nn.Module:
    """Build a timm model with its pretrained weights; with 0 outputs it has no head.

    Raises:
        WeightsError: the weights are not available. The message begins with ``missing`` and ends with ``ways``.
    """
    import timm

    try:
        with log_levels(logging.ERROR, "huggingface_hub"):  # it warns of each retry; the error below suffices
            return timm.create_model(name, pretrained=True, num_classes=outputs)
    except Exception as error:  # hub, network and cache errors have no common base
        raise WeightsError(f"{missing} ({type(error).__name__}): {ways}") from error


def load_packaged(backbone: str) -> torch.nn.Module:
    """Build a backbone with the pretrained weights of a Python package, classifier of 1,000 ImageNet classes included.

    The package's tensors have other names, but stand in the order of timm's: each is checked against its counterpart.

    Raises:
        UserError: no package has such weights, it is not installed, or its file does not fit.
    """
    import timm
    import torch

    path = packaged(backbone).path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model(backbone, pretrained=False)
    own = model.state_dict()
    kinds = [[(name.rpartition(".")[2], tensor.shape) for name, tensor in state.items()] for state in (own, theirs)]
    if kinds[0] != kinds[1]:
        raise UserError(f"weights '{path}' do not fit '{backbone}' of this timm: install the pinned versions")
    model.load_state_dict({name: tensor.contiguous() for name, tensor in zip(own, theirs.values(), strict=True)})
    return model


def _load_file(model: torch.nn.Module, path: str) -> None:
    """Load a safetensors file; only the classifier head may be missing or differ in shape."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if Path(path).suffix != ".safetensors":
        raise UserError(f"weights '{path}': only .safetensors files are read")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"weights '{path}' cannot be read: {error}") from None
    own = model.state_dict()
    matching = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    head = model.get_classifier()
    head_names = {name for name, module in model.named_modules() if module is head}
    missing = [n for n in own if n not in matching and n.rpartition(".")[0] not in head_names]
    if missing:
        found = f"{len(missing)} tensors are missing, first '{missing[0]}'"
        raise UserError(f"weights '{path}' do not fit {type(model).__name__}: {found}")
    model.load_state_dict(matching, strict=False)
