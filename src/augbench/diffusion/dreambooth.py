"""DreamBooth with prior preservation (CVPR 2023): a bundle learns to draw the pictures of an instance prompt.

Matrices of LoRA are trained on the instances, and on pictures that the bundle itself made from a class prompt, so that
it does not forget what else there is. Loop and numbers are those that In&Out (VISAPP 2024) published for kohya-ss's
script: an epoch shows every instance ``repeats`` times and as many class pictures, mixed in batches.

Everything random follows from the seed and the step, so a training that is cut off goes on with the same result.
`Finetuning` is the part of it that other ways of fine-tuning a bundle on pictures share.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

import augbench
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion.lora import MODELS, LoraShape, wrap
from augbench.diffusion.pipelines import PipelineSource
from augbench.diffusion.sampling import check_prompts, fit_image
from augbench.diffusion.text_encoding import encode_tokens, tokens

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

ENCODED = 8  # pictures that the VAE encodes at a time
FLUSH = 60.0  # seconds between checkpoints
CURVE = 50  # points of the loss that a record keeps
Say = Callable[[int, int, float], None]
"""Told the step, the number of steps and the loss."""


class Amounts(Protocol):
    """What every recipe has; a frozen dataclass."""

    batch: int
    lr: float
    min_snr: float  # gamma of min-SNR weighting (ICCV 2023); 0: none
    clip_skip: int  # as `encode_tokens` counts
    precision: str  # fp32, bf16 or fp16: of the arithmetic
    gradient_checkpointing: bool


@dataclass(frozen=True)
class Recipe:
    """How it is trained. The defaults are those of In&Out's published configuration, where its text has none."""

    epochs: int
    repeats: int = 10  # of an instance in an epoch
    batch: int = 12
    lr: float = 1e-5
    prior_weight: float = 1.0  # of the loss of class pictures
    min_snr: float = 5.0  # gamma of min-SNR weighting (ICCV 2023); 0: none
    clip_skip: int = 2  # as `encode_tokens` counts
    cycles: int = 3  # of the cosine
    schedule_epochs: int | None = None  # epochs that the learning rate is laid out for; None: those trained
    precision: str = "fp32"  # fp32, bf16 or fp16: of the arithmetic
    gradient_checkpointing: bool = False
    shape: LoraShape = field(default_factory=LoraShape)

    def steps_per_epoch(self, instances: int, class_pictures: int) -> int:
        """Batches in which every instance is shown ``repeats`` times, and as many class pictures if there are any."""
        shown = instances * self.repeats * (2 if class_pictures else 1)
        return math.ceil(shown / self.batch)


@dataclass(frozen=True)
class Examples:
    """Encoded pictures of one prompt: the distribution that the VAE gives each, so that every step draws anew."""

    mean: torch.Tensor  # N,C,h,w float32, scaled as the U-Net has it
    std: torch.Tensor  # N,C,h,w

    def __len__(self) -> int:
        return len(self.mean)


def encode(pipeline: DiffusionPipeline, shape: tuple[int, int], pictures: Sequence[np.ndarray]) -> Examples:
    """Each picture, H,W,3 uint8, at the height and width ``shape``, through the VAE, once for the whole training."""
    import torch

    vae, device = pipeline.vae, pipeline.device
    means, spreads = [], []
    for start in range(0, len(pictures), ENCODED):
        fitted = np.stack([fit_image(picture, shape) for picture in pictures[start : start + ENCODED]])
        batch = torch.from_numpy(fitted).permute(0, 3, 1, 2).to(device, vae.dtype) / 127.5 - 1
        with torch.inference_mode():
            found = vae.encode(batch).latent_dist
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        means.append((found.mean.float() - shift) * vae.config.scaling_factor)
        spreads.append(found.std.float() * vae.config.scaling_factor)
    whole = (torch.cat(parts).clone(memory_format=torch.contiguous_format) for parts in (means, spreads))
    return Examples(*whole)


def joined(first: Examples, second: Examples) -> Examples:
    """Both sets as one."""
    import torch

    return Examples(torch.cat([first.mean, second.mean]), torch.cat([first.std, second.std]))


def optimiser(parameters: Sequence[torch.nn.Parameter], lr: float, device: str) -> tuple[torch.optim.Optimizer, str]:
    """AdamW, with moments in 8 bits where that can be had, as In&Out; and its name."""
    import torch

    if device == "cuda":
        try:
            import bitsandbytes
        except ImportError:
            pass  # an extra that not every machine can have: the record names what was used
        else:
            return bitsandbytes.optim.AdamW8bit(parameters, lr=lr), "AdamW8bit"
    fused = True if device == "cpu" else None  # PyTorch's default there is a loop over hundreds of small tensors
    return torch.optim.AdamW(parameters, lr=lr, fused=fused), "AdamW"


class Finetuning:
    """The loop: some parameters of a pipeline learn to take the noise from encoded pictures, told what they show.

    A subclass says which parameters, and by `rows` and `rate` what each step shows them and how fast they learn.
    """

    file: ClassVar[str]  # of its checkpoint

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        recipe: Amounts,
        prompts: Sequence[str],
        examples: Sequence[Examples],
        parameters: Sequence[torch.nn.Parameter],
        steps: int,
        seed: int,
    ) -> None:
        """
        Args:
            pipeline: on the device it is trained on.
            recipe: how to train.
            prompts: one for each set of examples; the subclass has checked their length.
            examples: at least one set with at least one picture.
            parameters: what learns; all else of the pipeline has stopped.
            steps: updates to make.
            seed: of order and noise.
        """
        import torch
        from diffusers import DDPMScheduler

        self.pipeline, self.recipe, self.seed = pipeline, recipe, seed
        self.examples, self.parameters, self.steps = examples, parameters, steps
        self.ids = tokens(pipeline, prompts).to(pipeline.device)
        if recipe.gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
        self.optimiser, self.optimiser_name = optimiser(self.parameters, recipe.lr, pipeline.device.type)
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.predicts_v = scheduler.config.prediction_type == "v_prediction"
        self.kept = scheduler.alphas_cumprod.to(pipeline.device, torch.float32)  # alpha bar of each time
        self.losses = torch.zeros(self.steps)  # of the steps done
        self.scaler = torch.amp.GradScaler(enabled=recipe.precision == "fp16" and pipeline.device.type == "cuda")

    def rate(self, step: int) -> float:
        """The learning rate."""
        raise NotImplementedError

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Which prompt and which of its pictures a batch shows: two arrays of int64."""
        raise NotImplementedError

    def mean_of(self, each: torch.Tensor, kinds: np.ndarray) -> torch.Tensor:
        """The loss of a batch from that of each of its pictures, B float32."""
        return each.mean()

    def counts(self) -> dict[str, int]:
        """What it learned from, for the adapter's record."""
        return {"instances": len(self.examples[0])}

    def loss(self, step: int) -> torch.Tensor:
        """Of one batch; everything random in it follows from the seed and the step."""
        import torch

        recipe, device = self.recipe, self.pipeline.device
        kinds, which = self.rows(step)
        draw = torch.Generator().manual_seed(derive_seed("dreambooth-step", self.seed, step))
        mean, std = self.encoded(kinds, which)
        encoder_noise, noise = (torch.randn(mean.shape, generator=draw).to(device) for _ in range(2))
        times = torch.randint(len(self.kept), (len(mean),), generator=draw).to(device)
        latents = mean + std * encoder_noise
        kept = self.kept[times].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        target = kept.sqrt() * noise - (1 - kept).sqrt() * latents if self.predicts_v else noise
        reduced = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision, torch.float32)
        reducing = torch.autocast(device.type, reduced, enabled=recipe.precision != "fp32")
        with reducing:
            made = self.pipeline.unet(noisy, times, **self.conditions(kinds), return_dict=False)[0]
        each = ((made.float() - target) ** 2).mean((1, 2, 3)) * self.weights(times)
        return self.mean_of(each, kinds)

    def encoded(self, kinds: np.ndarray, which: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of the latents of these pictures, each B,C,h,w: made once for the whole training."""
        import torch

        chosen = [(self.examples[kind], i) for kind, i in zip(kinds, which, strict=True)]
        mean, std = (torch.stack([getattr(examples, name)[i] for examples, i in chosen]) for name in ("mean", "std"))
        return mean, std

    def conditions(self, kinds: np.ndarray) -> dict[str, Any]:
        """What the U-Net is told for each picture; the text encoder learns too, and reads each prompt once."""
        import torch

        states = encode_tokens(self.pipeline.text_encoder, self.ids, self.recipe.clip_skip)
        return {"encoder_hidden_states": states[torch.from_numpy(kinds).to(states.device)]}

    def weights(self, times: torch.Tensor) -> torch.Tensor:
        """Of the loss at these times, by min-SNR: of noise min(snr, gamma) / snr, of v min(snr, gamma) / (snr + 1)."""
        import torch

        if not self.recipe.min_snr:
            return torch.ones_like(self.kept[times])
        snr = self.kept[times] / (1 - self.kept[times])
        return snr.clamp(max=self.recipe.min_snr) / (snr + 1 if self.predicts_v else snr)

    def step(self, step: int) -> float:
        """One update; returns the loss."""
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(step)
        loss = self.loss(step)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.item()

    def run(self, scratch: Path | None = None, say: Say | None = None) -> dict[str, Any]:
        """Train to the end, from the checkpoint in the folder ``scratch`` if it has one of this training.

        Returns:
            What an adapter's record says of it.
        """
        for part in MODELS:
            getattr(self.pipeline, part).train()
        kept = None if scratch is None else Checkpoint(scratch / self.file, self)
        first = kept.load() if kept else 0
        flushed = time.monotonic()
        for step in range(first, self.steps):
            self.losses[step] = loss = self.step(step)
            if say:
                say(step + 1, self.steps, loss)
            if kept and time.monotonic() - flushed > FLUSH:
                kept.save(step + 1)
                flushed = time.monotonic()
        for part in MODELS:
            getattr(self.pipeline, part).eval()
        return {
            "steps": self.steps,
            "optimiser": self.optimiser_name,
            "trained_parameters": sum(parameter.numel() for parameter in self.parameters),
            **self.counts(),
            "recipe": asdict(self.recipe),
            "loss": self.curve(),
        }

    def curve(self) -> list[float]:
        """The loss from begin to end: means over `CURVE` stretches of about as many steps, or of each where few."""
        return [float(f"{part.mean().item():.4g}") for part in self.losses.tensor_split(min(CURVE, self.steps))]


class Training(Finetuning):
    """One DreamBooth training of a pipeline, which is wrapped with `lora.wrap` and stays so."""

    file = "dreambooth.safetensors"

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        bundle: PipelineSource,
        recipe: Recipe,
        prompts: tuple[str, str],
        instances: Examples,
        class_examples: Examples | None,
        seed: int,
    ) -> None:
        """
        Args:
            pipeline: a fresh one, on the device it is trained on.
            bundle: what it was loaded from.
            recipe: how to train.
            prompts: of the instances and of the class pictures.
            instances: at least one.
            class_examples: None: no prior preservation.
            seed: of matrices, order and noise.

        Raises:
            UserError: a prompt is longer than the bundle reads.
        """
        check_prompts(pipeline, bundle, prompts)
        examples = [instances] if class_examples is None else [instances, class_examples]
        parameters = wrap(pipeline, recipe.shape, derive_seed("dreambooth-weights", seed))
        self.per_epoch = recipe.steps_per_epoch(len(instances), len(class_examples) if class_examples else 0)
        steps = recipe.epochs * self.per_epoch
        super().__init__(pipeline, recipe, prompts[: len(examples)], examples, parameters, steps, seed)

    def rate(self, step: int) -> float:
        """The learning rate: a cosine that falls to 0 and begins again, ``cycles`` times."""
        total = (self.recipe.schedule_epochs or self.recipe.epochs) * self.per_epoch
        return self.recipe.lr * 0.5 * (1 + math.cos(math.pi * (self.recipe.cycles * step / total % 1)))

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Which prompt (0 instance, 1 class) and which of its pictures a batch shows: two arrays of int64."""
        recipe, epoch = self.recipe, step // self.per_epoch
        draw = rng("dreambooth-order", self.seed, epoch)
        shown = len(self.examples[0]) * recipe.repeats
        kinds = np.repeat(np.arange(len(self.examples)), shown)
        which = [np.tile(np.arange(len(self.examples[0])), recipe.repeats)]
        if len(self.examples) > 1:
            count = len(self.examples[1])
            turns = [draw.permutation(count) for _ in range(-(-shown // count))]
            which.append(np.concatenate(turns)[:shown])
        order = draw.permutation(len(kinds))
        own = order[step % self.per_epoch * recipe.batch :][: recipe.batch]
        return kinds[own], np.concatenate(which)[own]

    def mean_of(self, each: torch.Tensor, kinds: np.ndarray) -> torch.Tensor:
        """Class pictures weigh as the recipe says."""
        import torch

        prior = torch.from_numpy(kinds).to(each.device) == 1
        return (each * torch.where(prior, self.recipe.prior_weight, 1.0)).mean()

    def counts(self) -> dict[str, int]:
        """Instances and class pictures."""
        return super().counts() | {"class_pictures": len(self.examples[1]) if len(self.examples) > 1 else 0}


class Checkpoint:
    """Where a training stands: one safetensors file, written beside and renamed."""

    def __init__(self, path: Path, training: Finetuning) -> None:
        self.path, self.training = path, training
        about = {"recipe": asdict(training.recipe), "seed": training.seed, "ids": training.ids.tolist(), "format": 3}
        about["augbench"] = augbench.__version__  # another version may round otherwise
        self.about = json.dumps(about, sort_keys=True)

    def save(self, step: int) -> None:
        """What is needed to go on with that step."""
        from safetensors.torch import save_file

        tensors = {f"weight.{i}": parameter.detach() for i, parameter in enumerate(self.training.parameters)}
        tensors["losses"] = self.training.losses
        for i, state in self.training.optimiser.state_dict()["state"].items():
            tensors |= {f"state.{i}.{name}": tensor for name, tensor in state.items()}
        beside = self.path.with_suffix(".part")
        said = {"step": str(step), "about": self.about, "scaler": json.dumps(self.training.scaler.state_dict())}
        save_file({k: t.contiguous() for k, t in tensors.items()}, beside, said)
        beside.replace(self.path)

    def load(self) -> int:
        """Go on from the file; returns the next step, 0 where there is none or it is of another training."""
        import torch
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "pt", device=str(self.training.pipeline.device)) as file:
                said = file.metadata()
                if said["about"] != self.about:
                    return 0
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError):
            return 0
        self.training.losses = tensors["losses"].cpu()
        with torch.no_grad():
            for i, parameter in enumerate(self.training.parameters):
                parameter.copy_(tensors[f"weight.{i}"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("state."):
                _, number, what = name.split(".")
                state.setdefault(int(number), {})[what] = tensor
        optimiser = self.training.optimiser
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        if scaler := json.loads(said["scaler"]):
            self.training.scaler.load_state_dict(scaler)
        return int(said["step"])
