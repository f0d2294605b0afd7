"""Makes the weights of `micro_resnet` from nothing: pretraining on the corpus for material and defect.

    python bench/micro/train_resnet.py                   # one CPU thread, about 20 minutes
    python bench/micro/train_resnet.py --preset gpu      # a GPU: more pictures, larger batches
    python bench/micro/train_resnet.py --resume          # goes on from the last checkpoint, with the same result

Writes the backbone (fp16 safetensors, no head) and its model card into the package, `--out` elsewhere. Order and
augmentation are derived from the seed and the step, so an interrupted training continues as if it had not been.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import timm
import torch
from corpus.pictures import DEFECT_WORDS, RESERVED, TRAINED, Arrays, make
from micro_card import write_card
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from training import Checkpoint, Progress, add_presets, apply_preset, set_rate

import augbench
from augbench.classifiers import micro_resnet
from augbench.core.seeds import derive_seed, rng
from augbench.metrics.detection import average_precision

PRESETS = {
    "cpu": {"device": "cpu", "threads": 1, "pictures": 40_000, "epochs": 30, "batch": 128, "lr": 4e-3},
    "gpu": {"device": "cuda", "threads": 8, "pictures": 200_000, "epochs": 60, "batch": 512, "lr": 6e-3},
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as augbench's protocols have them
WEIGHT_DECAY = 0.02
WARM_UP = 200  # steps
ZOOM = (1.0, 1.6)  # of augmentation; below 1 lines would become as thin as those of `surfaces`, which are held out
SEEDS = {"training": 1, "unseen seed": 2, "reserved materials": 3}  # of the corpus
MASK_WEIGHT = 1.0
DECISIVE = ("pictures", "epochs", "batch", "lr", "seed")  # settings that a resumed training must share


class Heads(nn.Module):
    """The backbone with what only the pretraining needs: material, defect, and where the defect is."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model(micro_resnet.NAME, num_classes=0)
        self.material = nn.Linear(micro_resnet.FEATURES, len(TRAINED))
        self.defect = nn.Linear(micro_resnet.FEATURES, len(DEFECT_WORDS))
        self.mask = nn.Conv2d(micro_resnet.FEATURES, 1, 1)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """N,3,H,W -> logits N,materials; N,defects; N,1,H/32,W/32."""
        maps = self.backbone.forward_features(pictures)
        pooled = maps.mean((2, 3))
        return self.material(pooled), self.defect(pooled), self.mask(maps)


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    """N,3,H,W float in [0, 1] -> as the network wants them, channels_last."""
    mean, std = (torch.tensor(v, device=pictures.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented(
    pictures: torch.Tensor, masks: torch.Tensor, draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Moved, zoomed, mirrored, turned by right angles; other light, blur and noise.

    Args:
        pictures: N,3,H,W float in [0, 1], H = W.
        masks: N,1,H,W float.
        draw: on the CPU, so that every device sees the same.

    Returns:
        The pictures, their masks, and the share of each defect that is still in the picture, N in [0, 1].
    """
    count, device = len(pictures), pictures.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (torch.rand(count, *shape, generator=draw) * (high - low) + low).to(device)

    zoom = torch.exp(uniform(math.log(ZOOM[0]), math.log(ZOOM[1]), 1, 1))
    signs = torch.where(uniform(0, 1, 2, 1) < 0.5, -1.0, 1.0)
    axes = torch.eye(2, device=device).expand(count, 2, 2) * signs
    axes = torch.where(uniform(0, 1, 1, 1) < 0.5, axes.flip(2), axes)
    shift = uniform(-1, 1, 2, 1) * torch.clamp(1 - 1 / zoom, min=0.15)
    grid = functional.affine_grid(torch.cat([axes / zoom, shift], 2), list(pictures.shape), align_corners=False)
    moved = functional.grid_sample(
        torch.cat([pictures, masks], 1), grid, padding_mode="reflection", align_corners=False
    )
    pictures, moved_masks = moved[:, :3], moved[:, 3:]
    area = masks.sum((1, 2, 3)) * zoom.view(-1) ** 2
    kept = torch.where(area > 0, moved_masks.sum((1, 2, 3)) / area.clamp(min=1), torch.ones_like(area))

    gain = uniform(0.75, 1.25, 1, 1, 1) * uniform(0.93, 1.07, 3, 1, 1)
    ramp = torch.linspace(-0.5, 0.5, pictures.shape[-1], device=device)
    sideways, down = (uniform(-0.3, 0.3, 1, 1, 1) * ramp.view(view) for view in ((1, 1, 1, -1), (1, 1, -1, 1)))
    pictures = pictures * gain * (1 + sideways + down)
    smooth = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pictures = pictures + uniform(-0.4, 0.9, 1, 1, 1) * (smooth - pictures)  # below 0 it sharpens
    noise = torch.randn(pictures.shape, generator=draw).to(device)
    return (pictures + noise * uniform(0, 0.02, 1, 1, 1)).clamp(0, 1), moved_masks, kept


class Stock:
    """A corpus on the device, as uint8."""

    def __init__(self, corpus: Arrays, device: torch.device) -> None:
        self.images = torch.from_numpy(corpus.images).permute(0, 3, 1, 2).to(device)
        self.masks = torch.from_numpy(corpus.masks)[:, None].to(device)
        place = {name: number for number, name in enumerate(TRAINED)}
        self.material = torch.tensor([place.get(item.material, -1) for item in corpus.items], device=device)
        self.defect = torch.from_numpy(corpus.defect).to(device)

    def __len__(self) -> int:
        return len(self.images)


def losses(model: Heads, stock: Stock, rows: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """The loss of one batch: material + defect + where."""
    pictures, masks, kept = augmented(stock.images[rows].float() / 255, stock.masks[rows].float(), draw)
    with torch.autocast(pictures.device.type, torch.bfloat16):
        material, defect, where = model(normalised(pictures))
    seen = kept > 0.4  # a defect of which most was cut away has no fair label
    of_defect = functional.cross_entropy(defect.float(), stock.defect[rows], reduction="none", label_smoothing=0.05)
    of_material = functional.cross_entropy(material.float(), stock.material[rows], label_smoothing=0.05)
    cover = functional.adaptive_max_pool2d(functional.avg_pool2d(masks, 4), where.shape[2:]).clamp(0, 1)
    of_place = functional.binary_cross_entropy_with_logits(where.float(), cover)
    return of_material + (of_defect * seen).sum() / seen.sum() + MASK_WEIGHT * of_place


def train(model: Heads, stock: Stock, args: argparse.Namespace) -> float:
    """Train to the end; returns the seconds that it took, resumed parts included."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=WEIGHT_DECAY)
    per_epoch = len(stock) // args.batch
    total = args.epochs * per_epoch
    decisive = {name: getattr(args, name) for name in DECISIVE}
    checkpoint = Checkpoint(Path(args.checkpoint), decisive, {"model": model, "adam": optimiser})
    first, spent = checkpoint.load(args.device) if args.resume else (0, 0.0)
    progress = Progress(total, args.batch, first, spent)
    model.train()
    order = np.empty(0)
    for step in range(first, total):
        if step % per_epoch == 0 or not len(order):
            order = rng("micro-resnet-order", args.seed, step // per_epoch).permutation(len(stock))
        rows = torch.from_numpy(order[step % per_epoch * args.batch :][: args.batch]).to(stock.images.device)
        draw = torch.Generator().manual_seed(derive_seed("micro-resnet-augment", args.seed, step))
        set_rate(optimiser, args.lr, step, total, WARM_UP)
        loss = losses(model, stock, rows, draw)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if progress.line_due(step):
            progress.show(step, loss.item())
        if progress.checkpoint_due(args.checkpoint_every):
            checkpoint.save(step + 1, progress.seconds())
    return progress.seconds()


@torch.inference_mode()
def scores(model: Heads, corpus: Arrays, device: torch.device) -> dict[str, float]:
    """Accuracy of material (NaN if never trained on) and defect, worst defect word, AP of defective against good."""
    model.eval()
    stock = Stock(corpus, device)
    parts = [model(normalised(stock.images[i : i + 256].float() / 255)) for i in range(0, len(stock), 256)]
    material, defect = (torch.cat([part[i] for part in parts]).float() for i in (0, 1))
    right = (defect.argmax(1) == stock.defect).cpu().numpy()
    words = stock.defect.cpu().numpy()
    recalls = {word: float(right[words == i].mean()) for i, word in enumerate(DEFECT_WORDS) if (words == i).any()}
    worst = min(recalls, key=lambda word: recalls[word])
    known = (stock.material >= 0).all()
    return {
        "material": float((material.argmax(1) == stock.material).float().mean()) if known else float("nan"),
        "defect": float(right.mean()),
        "worst": recalls[worst],
        "worst_word": worst or "good",
        "ap": average_precision(words > 0, -defect.log_softmax(1)[:, 0].cpu().numpy()),
    }


def save_backbone(model: Heads, path: Path) -> None:
    """The backbone alone: floats as fp16; counters stay whole numbers."""
    state = {n: t.half() if t.is_floating_point() else t for n, t in model.backbone.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({n: t.cpu().contiguous() for n, t in state.items()}, path, {"format": "pt"})
    path.chmod(0o644)


def through_fp16(model: Heads) -> None:
    """Round the backbone to what is shipped, so that the scores are of the file and not of something better."""
    for tensor in model.backbone.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())


def arguments() -> argparse.Namespace:
    """The command line; a preset gives what is not given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_presets(parser, PRESETS)
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation")
    parser.add_argument("--workers", type=int, help="processes that draw the corpus (default: one per processor)")
    parser.add_argument("--judged", type=int, default=4000, help="pictures of each evaluation")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--checkpoint", default="runs/micro_resnet/checkpoint.safetensors")
    parser.add_argument("--checkpoint-every", type=float, default=60, help="seconds")
    parser.add_argument("--out", type=Path, default=Path(micro_resnet.weights_file()).parent)
    args = parser.parse_args()
    apply_preset(args, PRESETS)
    return args


def main() -> None:
    """Draw the corpus, train, judge, save."""
    args = arguments()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    micro_resnet.register()
    begun = time.perf_counter()
    corpus = make(args.pictures, SEEDS["training"], workers=args.workers)
    print(f"{len(corpus)} pictures drawn in {time.perf_counter() - begun:.0f} s", flush=True)
    torch.manual_seed(derive_seed("micro-resnet-weights", args.seed))
    model = Heads().to(device, memory_format=torch.channels_last)
    seconds = train(model, Stock(corpus, device), args)

    through_fp16(model)
    parts = {
        "unseen seed": make(args.judged, SEEDS["unseen seed"], workers=args.workers),
        "reserved materials": make(args.judged, SEEDS["reserved materials"], materials=RESERVED, workers=args.workers),
    }
    found = {name: scores(model, part, device) for name, part in parts.items()}
    for name, values in found.items():
        print(name, values)
    save_backbone(model, args.out / "model.safetensors")
    parameters = sum(p.numel() for p in model.backbone.parameters())
    write_card(args.out / "README.md", args, SEEDS, ZOOM, found, seconds, parameters, augbench.__version__)


if __name__ == "__main__":
    main()
