"""The judge of made pictures: a small CNN that names the material and the defect of a picture of the corpus.

    python bench/micro/probe.py [--device cuda] [--checkpoint FILE]     # trains it once, then prints its scores

How far its accuracy falls on reconstructed or generated pictures says what they have lost. It shares no weights, layers
or pictures with `micro_resnet`, by whose features the VAE is trained. It knows all materials, the reserved ones too, so
that it can judge pictures of them. It is trained on sharp pictures only: blur in its training would make it forgive the
blur that it is to find.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from corpus.pictures import DEFECT_WORDS, MATERIAL_WORDS, make
from torch import nn
from torch.nn import functional
from training import Checkpoint, Progress, about_checkpoint, pixels_of, set_rate

from augbench.core.seeds import derive_seed, rng

SEEDS = {"training": 6, "unseen seed": 7}  # of the corpus
SETTINGS = {"pictures": 20_000, "epochs": 6, "batch": 128, "lr": 4e-3, "seed": 0}
WARM_UP = 50  # steps
CHANNELS = (16, 32, 64, 128)
CHECKPOINT = Path("runs/micro_probe/checkpoint.safetensors")


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Network(nn.Module):
    """Pairs of 3 x 3 convolutions, each pair at half the size of the one before; mean and maximum; one layer.

    The first keeps the full resolution, as lines and grain of a pixel's width are what a poor picture lacks.
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
        """N,3,H,W uint8 -> N,outputs."""
        pictures = (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        maps = self.body(pictures)
        return self.head(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)).float()


def _block(before: int, channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def turned(pixels: torch.Tensor, draw: np.random.Generator) -> torch.Tensor:
    """A batch mirrored and turned by right angles, N,3,H,W uint8, H = W; the same for all of it."""
    flips = [dim for dim in (2, 3) if draw.random() < 0.5]
    pixels = pixels.flip(flips) if flips else pixels
    return pixels.transpose(2, 3) if draw.random() < 0.5 else pixels


def fit(network: Network, pixels: torch.Tensor, loss: Loss, settings: dict, use: str) -> float:
    """Train a network; returns the seconds.

    Args:
        network: on the device of the pictures.
        pixels: N,3,H,W uint8.
        loss: takes the logits of a batch and which pictures they are of (B int64), and returns a scalar.
        settings: ``epochs``, ``batch``, ``lr``, ``seed``.
        use: names the streams of random numbers.
    """
    network.train().to(memory_format=torch.channels_last)
    batch, per_epoch = settings["batch"], len(pixels) // settings["batch"]
    total = settings["epochs"] * per_epoch
    optimiser = torch.optim.AdamW(network.parameters(), settings["lr"], weight_decay=0.02)
    progress = Progress(total, batch, 0, 0.0, every=30)
    for step in range(total):
        set_rate(optimiser, settings["lr"], step, total, WARM_UP)
        draw = rng(f"{use}-step", settings["seed"], step)
        if step % per_epoch == 0:
            order = rng(f"{use}-order", settings["seed"], step // per_epoch).permutation(len(pixels))
        rows = torch.from_numpy(order[step % per_epoch * batch :][:batch]).to(pixels.device)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            logits = network(turned(pixels[rows], draw))
        value = loss(logits.float(), rows)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        if progress.line_due(step):
            progress.show(step, value.item())
    network.eval()
    return progress.seconds()


@torch.inference_mode()
def logits_of(network: Network, pixels: torch.Tensor) -> torch.Tensor:
    """Of N,3,H,W uint8: N,outputs float32."""
    return torch.cat([network(part) for part in pixels.split(256)])


def probe(checkpoint: Path = CHECKPOINT, device: str = "cpu", workers: int | None = None, **settings: int) -> Network:
    """The probe, trained where the checkpoint does not hold it yet; outputs are materials, then defects."""
    settings = SETTINGS | settings
    torch.manual_seed(derive_seed("micro-probe-weights", settings["seed"]))
    network = Network(len(MATERIAL_WORDS) + len(DEFECT_WORDS)).to(device)
    kept = Checkpoint(checkpoint, settings, {"network": network})
    if about_checkpoint(checkpoint) is None:
        corpus = make(settings["pictures"], SEEDS["training"], materials=MATERIAL_WORDS, workers=workers)
        material, defect = (torch.from_numpy(words).to(device) for words in (corpus.material, corpus.defect))

        def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            of_material, of_defect = logits.split([len(MATERIAL_WORDS), len(DEFECT_WORDS)], 1)
            return functional.cross_entropy(of_material, material[rows]) + functional.cross_entropy(
                of_defect, defect[rows]
            )

        seconds = fit(network, pixels_of(corpus, device), loss, settings, "micro-probe")
        kept.save(settings["epochs"], seconds)
    kept.load(device)
    return network.eval()


def scores(network: Network, pixels: torch.Tensor, material: np.ndarray, defect: np.ndarray) -> dict[str, object]:
    """How often the probe names what is meant to be in the pictures.

    Args:
        network: the probe.
        pixels: N,3,H,W uint8.
        material: N, places in `MATERIAL_WORDS`.
        defect: N, places in `DEFECT_WORDS`.

    Returns:
        ``material`` and ``defect``: accuracy in [0, 1]; ``by_defect``: the same for each word ("good" for none).
    """
    guessed = logits_of(network, pixels).split([len(MATERIAL_WORDS), len(DEFECT_WORDS)], 1)
    materials, defects = (logits.argmax(1).cpu().numpy() for logits in guessed)
    right = defects == defect
    words = {word or "good": right[defect == i] for i, word in enumerate(DEFECT_WORDS)}
    return {
        "material": float((materials == material).mean()),
        "defect": float(right.mean()),
        "by_defect": {word: float(own.mean()) for word, own in words.items() if len(own)},
    }


def main() -> None:
    """Train where needed; print the scores on an unseen seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, help="processes that draw the corpus (default: one per processor)")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = probe(args.checkpoint, args.device, args.workers)
    judged = make(2000, SEEDS["unseen seed"], materials=MATERIAL_WORDS, workers=args.workers)
    print(scores(network, pixels_of(judged, args.device), judged.material, judged.defect))


if __name__ == "__main__":
    main()
