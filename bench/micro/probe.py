"""The probe of generated images: a small CNN that classifies material and defect of an image of the corpus.

The drop of its accuracy on reconstructed or generated images measures what they have lost. It shares no weights, layers
or images with `micro_resnet`, whose features train the VAE. It knows all materials, including the reserved ones, so
that it can classify images of them. It is trained on sharp images only, so that it does not tolerate blur.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from corpus.images import DEFECT_WORDS, MATERIAL_WORDS, Item, make
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from training import Loss, batches, fit, tensor_of

from augbench.core.seeds import derive_seed

SEED = 6  # of the corpus
SETTINGS = {"images": 20_000, "epochs": 6, "batch": 128, "lr": 4e-3}
CHANNELS = (16, 32, 64, 128)
CHECKPOINT = Path("runs/micro_probe/model.safetensors")
SIZES = [len(MATERIAL_WORDS), len(DEFECT_WORDS)]


class Network(nn.Module):
    """Pairs of 3 x 3 convolutions, each pair at half the previous size; mean and maximum pooling; one linear layer.

    The first convolution keeps the full resolution, as poor images lack lines and grain of a pixel's width.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        layers, before = [], 3
        for number, channels in enumerate(CHANNELS):
            layers += _block(before, channels, 2 if number else 1)
            layers += _block(channels, channels, 1) if number else []
            before = channels
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * before, outputs)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute N,outputs of N,3,H,W uint8."""
        maps = self.body(pixels.float() / 127.5 - 1)
        return self.head(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)).float()


def _block(before: int, channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def trained(sizes: list[int], dataset: TensorDataset, loss: Loss, settings: dict) -> Network:
    """Train a network with ``sizes`` logits on N,3,H,W uint8 and their targets.

    ``loss`` takes the logits of a batch, split by ``sizes``, and its targets. All images of a batch are flipped and
    rotated by right angles in the same way.
    """
    network = Network(sum(sizes))

    def of_batch(_: int, pixels: torch.Tensor, *wanted: torch.Tensor) -> torch.Tensor:
        across, down, turned = (torch.rand(3) < 0.5).tolist()
        pixels = pixels.flip([dim for dim, chosen in ((2, down), (3, across)) if chosen])
        return loss(network(pixels.transpose(2, 3) if turned else pixels).split(sizes, 1), *wanted)

    loader = batches(dataset, settings["batch"], settings["epochs"] * len(dataset) // settings["batch"])
    fit(Accelerator(), network, loader, of_batch, lr=settings["lr"], warm_up=50, weight_decay=0.02)
    return network.eval()


@torch.inference_mode()
def logits_of(network: Network, pixels: torch.Tensor) -> torch.Tensor:
    """Compute the logits of N,3,H,W uint8: N,outputs float32, on the CPU."""
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).cpu() for part in pixels.split(256)])


def named_loss(logits: tuple[torch.Tensor, ...], *wanted: torch.Tensor) -> torch.Tensor:
    """Sum the cross-entropies of material and defect."""
    return sum(functional.cross_entropy(part, target) for part, target in zip(logits, wanted, strict=True))


def probe(checkpoint: Path = CHECKPOINT, **settings: float) -> Network:
    """Load the probe, or train it first if the file does not exist; outputs are materials, then defects."""
    if not checkpoint.exists():
        settings = SETTINGS | settings
        torch.manual_seed(derive_seed("micro-probe"))
        corpus = make(settings["images"], SEED, materials=MATERIAL_WORDS)
        dataset = TensorDataset(
            tensor_of(corpus.images), torch.from_numpy(corpus.material), torch.from_numpy(corpus.defect)
        )
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        save_model(trained(SIZES, dataset, named_loss, settings), checkpoint)
    network = Network(sum(SIZES))
    load_model(network, checkpoint)
    return network.to(Accelerator().device).eval()


def scores(network: Network, pixels: torch.Tensor, items: list[Item]) -> dict[str, object]:
    """Measure the probe's accuracy on N,3,H,W uint8 against the intended content.

    Returns:
        Accuracies in [0, 1]: ``material``, ``defect``, and ``by_defect`` for each defect ("good" for none).
    """
    material = np.array([MATERIAL_WORDS.index(item.material) for item in items])
    defect = np.array([DEFECT_WORDS.index(item.defect) for item in items])
    materials, defects = (logits.argmax(1).numpy() for logits in logits_of(network, pixels).split(SIZES, 1))
    right = defects == defect
    words = {word or "good": right[defect == i] for i, word in enumerate(DEFECT_WORDS)}
    return {
        "material": float((materials == material).mean()),
        "defect": float(right.mean()),
        "by_defect": {word: float(own.mean()) for word, own in words.items() if len(own)},
    }
