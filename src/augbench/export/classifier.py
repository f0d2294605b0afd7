"""The trained classifier of a cell as one torch module: resized images in, logits and probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from augbench.classifiers.backbone import build
from augbench.classifiers.loader import normaliser
from augbench.classifiers.probe import SMALLEST
from augbench.core.errors import UserError
from augbench.core.protocol import NORMALS_ONLY, Protocol
from augbench.core.specs import Cell
from augbench.features.frozen import FrozenBackbone
from augbench.storage.records import spec_of
from augbench.storage.store import Store

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StoredClassifier:
    """A cell whose weights are in a store."""

    cell: Cell
    key: str  # as stored: weights files that the key names need not be here
    record: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]  # its weights by name

    @property
    def classes(self) -> tuple[str, ...]:
        """The class of each logit in recognition; () in detection, with one logit."""
        return tuple(self.record["result"].get("classes", ()))

    @property
    def outputs(self) -> int:
        """The number of logits of an image."""
        return len(self.classes) or 1

    @property
    def has_probability(self) -> bool:
        """Whether its score is a logit. That of normal images alone is a distance."""
        return self.cell.protocol.kind not in NORMALS_ONLY


def read_classifier(store: Store, asked: str) -> StoredClassifier:
    """Read the classifier of a cell by its key, or a unique prefix of it.

    Raises:
        UserError: there is no such cell, its weights were not saved or are damaged, or its images pass a VAE first.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    key = store.full_key("cells", asked)
    record = store.read_record(key)
    cell = spec_of("cells", record["spec"])
    assert isinstance(cell, Cell)
    if cell.protocol.roundtrip:
        raise UserError(f"cell '{key}' sees images that passed a VAE ('roundtrip'), a control: export another cell")
    if cell.protocol.kind == "neighbours":
        raise UserError(f"cell '{key}' compares with every normal image, which no graph holds: export another cell")
    where = store.where("weights", key)
    try:
        arrays = load(store.files.read(store.name("weights", key)))
    except FileNotFoundError:
        again = "set 'save_weights: last' in its grid, and run it into a new store"
        raise UserError(f"cell '{key}' has no weights in the store ('{where}'): {again}") from None
    except SafetensorError as error:
        raise UserError(f"weights '{where}' are damaged ({error}): restore the file") from None
    return StoredClassifier(cell, key, record, arrays)


def module_of(stored: StoredClassifier) -> torch.nn.Module:
    """Build the module: images N,H,W,3 uint8 -> logits N,K float32 and, unless of a distance, probability N,K float32.

    It is in eval mode, in fp32, on the CPU. Probabilities are a sigmoid in detection, with K = 1, else a softmax.

    Raises:
        UserError: the weights of the backbone are not here, or those of the store do not fit it.
    """
    import torch

    is_finetuned = stored.cell.protocol.kind == "finetune"
    network, compute = _finetuned(stored) if is_finetuned else _probe(stored)

    class Classifier(torch.nn.Module):
        """What is exported."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network  # so that its parameters belong to this module

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            logits = compute(images)
            if not stored.has_probability:
                return (logits,)
            return logits, logits.sigmoid() if stored.outputs == 1 else logits.softmax(1)

    return Classifier().eval()


Compute = Callable[["torch.Tensor"], "torch.Tensor"]


def _finetuned(stored: StoredClassifier) -> tuple[torch.nn.Module, Compute]:
    import torch

    # Its own weights replace all of the pretrained ones, so those need not be here.
    protocol = stored.cell.protocol.model_copy(update={"weights": "scratch"})
    network = build(protocol, stored.outputs, 0)
    _fit_into(stored, lambda: network.load_state_dict({k: torch.from_numpy(v) for k, v in stored.arrays.items()}))
    normalise = normaliser(protocol, torch.device("cpu"))
    network.eval()
    return network, lambda images: network(normalise(images))


def _probe(stored: StoredClassifier) -> tuple[torch.nn.Module, Compute]:
    import torch

    protocol = stored.cell.protocol.model_copy(update={"precision": "fp32"})
    backbone = FrozenBackbone(protocol, "cpu")
    head = _head(stored.arrays, protocol, stored.outputs)
    blank = torch.zeros(1, protocol.height, protocol.width, 3, dtype=torch.uint8)
    with torch.inference_mode():
        features = backbone.features(blank)
        _fit_into(stored, lambda: head(features))
    return backbone.model, lambda images: head(backbone.features(images))


def _fit_into(stored: StoredClassifier, use: Callable[[], object]) -> None:
    """Use the stored arrays; turn an error, of missing ones or other shapes, into a `UserError`."""
    try:
        use()
    except (KeyError, RuntimeError) as error:
        found = str(error).splitlines()[0]
        what = f"the weights of cell '{stored.key}' do not fit '{stored.cell.protocol.backbone}' of this timm ({found})"
        raise UserError(f"{what}: install the versions that its record names") from None


def _head(arrays: Mapping[str, np.ndarray], protocol: Protocol, outputs: int) -> Compute:
    """Return the function from features N,D float32 to logits N,K float32, as `classifiers.probe` computes them.

    Distances are sums over D x D products, so these are computed in float64.
    """
    import torch

    own = {name: torch.from_numpy(array) for name, array in arrays.items()}
    is_distance = protocol.kind == "gaussian"
    kind = torch.float64 if is_distance or protocol.normality else torch.float32
    own = {name: tensor.to(kind) for name, tensor in own.items()}

    def distance(features: torch.Tensor, prefix: str) -> torch.Tensor:
        centred = (features - own[f"{prefix}mean"]) / own[f"{prefix}scale"]
        return ((centred @ own[f"{prefix}precision"]) * centred).sum(1, keepdim=True).clamp(min=0).sqrt()

    def head(features: torch.Tensor) -> torch.Tensor:
        inputs = features.to(kind)
        if is_distance:
            return distance(inputs, "").float()
        if protocol.normality:
            inputs = torch.cat([inputs, distance(inputs, "normal_")], 1)
        inputs = (inputs - own["mean"]) / own["scale"]
        if protocol.head == "mlp":
            found = _mlp(inputs, own)
        else:
            found = torch.nn.functional.linear(inputs, own["coef"], own["intercept"])
        if outputs == 2:  # scikit-learn has one value for two classes
            found = torch.cat([-found / 2, found / 2], 1)
        return found.float()

    return head


def _mlp(inputs: torch.Tensor, own: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return log odds N,1, or log probabilities N,K, by the perceptron with one hidden layer."""
    import torch
    from torch.nn.functional import linear

    hidden = linear(inputs, own["coef_0"].T, own["intercept_0"]).relu()
    found = linear(hidden, own["coef_1"].T, own["intercept_1"])
    if found.shape[1] > 1:
        return found.softmax(1).clamp(min=SMALLEST).log()
    shares = torch.cat([1 - found.sigmoid(), found.sigmoid()], 1).clamp(min=SMALLEST).log()
    return shares[:, 1:] - shares[:, :1]
