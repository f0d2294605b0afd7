"""Train `micro_resnet` from random weights: pretraining on the corpus for material and defect.

    python bench/micro/train_resnet.py --out FOLDER
    python bench/micro/train_resnet.py --out FOLDER --images 200000 --steps 23400 --batch 512 --lr 6e-3 \\
        --mixed-precision bf16      # on a GPU, which is used if available

Writes the backbone (fp16 safetensors, no head) and its model card. Never replace the shipped file under its name,
which is part of keys: other weights need another name.
"""

from __future__ import annotations

import math

import timm
import torch
from accelerate import Accelerator
from cards import resnet_card
from corpus.images import DEFECT_WORDS, RESERVED, TRAINED, Arrays, make
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import normalize
from training import about_run, batches, fit, options, tensor_of

from augbench.classifiers import micro_resnet
from augbench.core.seeds import derive_seed
from augbench.metrics.detection import average_precision

ZOOM = (1.0, 1.6)  # of augmentation; below 1, lines would get as thin as those of `surfaces`, which is held out
SEEDS = {"training": 1, "unseen seed": 2, "reserved materials": 3}  # of the corpus


class Heads(nn.Module):
    """The backbone with the heads of the pretraining: material, defect, and defect mask."""

    def __init__(self) -> None:
        super().__init__()
        micro_resnet.register()
        self.backbone = timm.create_model(micro_resnet.NAME, num_classes=0)
        self.material = nn.Linear(micro_resnet.FEATURES, len(TRAINED))
        self.defect = nn.Linear(micro_resnet.FEATURES, len(DEFECT_WORDS))
        self.mask = nn.Conv2d(micro_resnet.FEATURES, 1, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute logits of N,3,H,W in [0, 1]: N,materials; N,defects; N,1,H/32,W/32."""
        maps = self.backbone.forward_features(normalize(images, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
        pooled = maps.mean((2, 3))
        return self.material(pooled).float(), self.defect(pooled).float(), self.mask(maps).float()


def augmented(images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shift, zoom, flip, rotate by right angles; change light, blur and noise.

    Takes N,3,H,W float in [0, 1] and N,1,H,W float. Returns both, and the visible share of each defect, N in [0, 1].
    """
    count, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, device=device) * (high - low) + low

    zoom = torch.exp(uniform(math.log(ZOOM[0]), math.log(ZOOM[1]), 1, 1))
    signs = torch.where(uniform(0, 1, 2, 1) < 0.5, -1.0, 1.0)
    axes = torch.eye(2, device=device).expand(count, 2, 2) * signs
    axes = torch.where(uniform(0, 1, 1, 1) < 0.5, axes.flip(2), axes)
    shift = uniform(-1, 1, 2, 1) * torch.clamp(1 - 1 / zoom, min=0.15)
    grid = functional.affine_grid(torch.cat([axes / zoom, shift], 2), list(images.shape), align_corners=False)
    moved = functional.grid_sample(torch.cat([images, masks], 1), grid, padding_mode="reflection", align_corners=False)
    images, moved_masks = moved[:, :3], moved[:, 3:]
    area = masks.sum((1, 2, 3)) * zoom.view(-1) ** 2
    visible = torch.where(area > 0, moved_masks.sum((1, 2, 3)) / area.clamp(min=1), torch.ones_like(area))

    gain = uniform(0.75, 1.25, 1, 1, 1) * uniform(0.93, 1.07, 3, 1, 1)
    ramp = torch.linspace(-0.5, 0.5, images.shape[-1], device=device)
    sideways, down = (uniform(-0.3, 0.3, 1, 1, 1) * ramp.view(view) for view in ((1, 1, 1, -1), (1, 1, -1, 1)))
    images = images * gain * (1 + sideways + down)
    smooth = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = images + uniform(-0.4, 0.9, 1, 1, 1) * (smooth - images)  # below 0 it sharpens
    return (images + torch.randn_like(images) * uniform(0, 0.02, 1, 1, 1)).clamp(0, 1), moved_masks, visible


@torch.inference_mode()
def scores(model: Heads, corpus: Arrays) -> dict[str, object]:
    """Measure accuracy of material (None if never trained on) and defect, worst defect word, AP of defect images."""
    device = next(model.parameters()).device
    parts = [model(part.to(device) / 255) for part in tensor_of(corpus.images).split(256)]
    material, defect = (torch.cat([part[i] for part in parts]).cpu() for i in (0, 1))
    right = defect.argmax(1).numpy() == corpus.defect
    recalls = {w: float(right[corpus.defect == i].mean()) for i, w in enumerate(DEFECT_WORDS) if i in corpus.defect}
    worst = min(recalls, key=lambda word: recalls[word])
    guessed = [TRAINED[i] for i in material.argmax(1)]
    named = [guess == item.material for guess, item in zip(guessed, corpus.items, strict=True)]
    return {
        "material": sum(named) / len(named) if corpus.items[0].material in TRAINED else None,
        "defect": float(right.mean()),
        "worst": recalls[worst],
        "worst word": worst or "good",
        "ap": average_precision(corpus.defect > 0, -defect.log_softmax(1)[:, 0].numpy()),
    }


def main(given: list[str] | None = None) -> None:
    """Make the corpus, train, evaluate, save."""
    parser = options(__doc__, images=40_000, steps=9_360, batch=128, lr=4e-3)
    parser.add_argument("--evaluated", type=int, default=4000, help="images of each evaluation (default: %(default)s)")
    args = parser.parse_args(given)
    torch.manual_seed(derive_seed("micro-resnet", args.seed))
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    corpus, model = make(args.images, SEEDS["training"]), Heads()

    def loss(_: int, *batch: torch.Tensor) -> torch.Tensor:
        pixels, masks, materials, defects = batch
        images, moved, visible = augmented(pixels / 255, masks.float())
        material, defect, where = model(images)
        seen = visible > 0.4  # the label of a mostly cropped defect is not fair
        of_defect = functional.cross_entropy(defect, defects, reduction="none", label_smoothing=0.05)
        cover = functional.adaptive_max_pool2d(functional.avg_pool2d(moved, 4), where.shape[2:]).clamp(0, 1)
        of_mask = functional.binary_cross_entropy_with_logits(where, cover)
        of_material = functional.cross_entropy(material, materials, label_smoothing=0.05)
        return of_material + (of_defect * seen).sum() / seen.sum() + of_mask

    materials = torch.tensor([TRAINED.index(item.material) for item in corpus.items])
    masks, defects = torch.from_numpy(corpus.masks)[:, None], torch.from_numpy(corpus.defect)
    loader = batches(TensorDataset(tensor_of(corpus.images), masks, materials, defects), args.batch, args.steps)
    seconds = fit(accelerator, model, loader, loss, lr=args.lr, warm_up=200, weight_decay=0.02)

    model.eval().backbone.half().float()  # evaluate the weights as they are saved
    found = {
        "unseen seed": scores(model, make(args.evaluated, SEEDS["unseen seed"])),
        "reserved materials": scores(model, make(args.evaluated, SEEDS["reserved materials"], materials=RESERVED)),
    }
    print(found)
    args.out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.cpu().contiguous() for name, tensor in model.backbone.half().state_dict().items()}
    save_file(state, args.out / "model.safetensors", {"format": "pt"})
    (args.out / "model.safetensors").chmod(0o644)  # safetensors writes files with mode 0600
    about = about_run(args, seconds, accelerator.device) | {"evaluated": args.evaluated}
    (args.out / "README.md").write_text(resnet_card(about, found), encoding="utf-8")


if __name__ == "__main__":
    main()
