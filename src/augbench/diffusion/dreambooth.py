"""DreamBooth with prior preservation (CVPR 2023): fine-tune a diffusion pipeline on the images of an instance prompt.

LoRA weights are trained on the instance images and on class images, which the pipeline itself sampled from a class
prompt (prior preservation). Training loop and hyperparameters are those that In&Out (VISAPP 2024) published for
kohya-ss's script: an epoch holds every instance ``repeats`` times and class images, shuffled into batches.

All randomness follows from the seed and the step, so an interrupted training resumes with the same result.
`Finetuning` is the loop that other fine-tuning methods share.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

import augbench
from augbench.core.determinism import deterministic
from augbench.core.errors import UserError
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion.lora import MODELS, LoraShape, update_norm, wrap
from augbench.diffusion.sampling import as_pixels
from augbench.diffusion.text_encoding import encode_tokens, tokens

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

ENCODE_BATCH = 8  # images per call of the VAE
FLUSH = 60.0  # seconds between checkpoints
CURVE_POINTS = 50  # of the loss curve in a record
LARGE_UNET = 10**8  # parameters; larger ones are always trained with gradient checkpointing, as In&Out published
Optimiser = Literal["auto", "adamw", "adamw8bit"]
"""AdamW, or bitsandbytes' AdamW whose moments have 8 bits; auto: 8 bits on a GPU that has bitsandbytes."""
EpochsFrom = Literal["text", "published"]
"""What an epoch holds, see `Recipe.steps_per_epoch`."""
ReportProgress = Callable[[int, int, float], None]
"""Called with the step, the number of steps and the loss."""


class BaseRecipe(Protocol):
    """Hyperparameters that every recipe has; a frozen dataclass."""

    batch: int
    lr: float
    min_snr: float  # gamma of min-SNR weighting (ICCV 2023); 0: none
    clip_skip: int  # as `encode_tokens` counts
    precision: str  # of the arithmetic: fp32, tf32, bf16 or fp16
    gradient_checkpointing: bool
    optimiser: Optimiser


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of DreamBooth. Where In&Out's text names none, the defaults are its published configuration."""

    epochs: int
    repeats: int = 10  # of an instance in an epoch
    batch: int = 12
    lr: float = 1e-5
    prior_weight: float = 1.0  # weight of the class images in the loss
    min_snr: float = 5.0  # gamma of min-SNR weighting (ICCV 2023); 0: none
    clip_skip: int = 2  # as `encode_tokens` counts
    cycles: int = 3  # of the cosine schedule
    epochs_from: EpochsFrom = "text"
    schedule_epochs: int | None = None  # length of the learning rate schedule; None: ``epochs``
    precision: str = "fp32"  # of the arithmetic: fp32, tf32, bf16 or fp16
    gradient_checkpointing: bool = False
    optimiser: Optimiser = "auto"
    shape: LoraShape = field(default_factory=LoraShape)

    def steps_per_epoch(self, instances: int, class_pictures: int) -> int:
        """Return the number of batches in an epoch.

        It holds each instance ``repeats`` times; and, by our reading of In&Out's text, which defines no epoch, as many
        class images (``text``), or each class image ``repeats`` times too (``published``: the published files have all
        images in one folder). With 200 class images, 10 repeats and batches of 12, in all epochs of a regime:

        ======  =========  ======  ==========================================  ===================================
        regime  instances  epochs  ``text``                                    ``published``
        ======  =========  ======  ==========================================  ===================================
        zero           50       5  ceil(2 * 50 * 10 / 12) * 5 = 420            ceil((50 + 200) * 10 / 12) * 5 = 1,045
        few             5      49  ceil(2 * 5 * 10 / 12) * 49 = 441            ceil((5 + 200) * 10 / 12) * 49 = 8,379
        full          246      25  ceil(2 * 246 * 10 / 12) * 25 = 10,250       ceil((246 + 200) * 10 / 12) * 25 = 9,300
        ======  =========  ======  ==========================================  ===================================

        With the two mirror images that the published files have of each instance, ``published`` would be 1,460, 8,820
        and 19,550 steps (`augbench.diffusion.captioned`). The sum of the learning rates at few-shot is 2.2e-3 by
        ``text`` and 4.2e-2 by ``published``.
        """
        return math.ceil(sum(self.samples(instances, class_pictures)) / self.batch)

    def samples(self, instances: int, class_pictures: int) -> tuple[int, int]:
        """Return the numbers of instances and of class images in an epoch, repetitions counted."""
        balanced = instances if class_pictures else 0
        return instances * self.repeats, (balanced if self.epochs_from == "text" else class_pictures) * self.repeats


@dataclass(frozen=True)
class Examples:
    """Latents of the images of one prompt: the VAE's Gaussian of each, so that every step can draw a new sample."""

    mean: torch.Tensor  # N,C,h,w float32, scaled for the U-Net
    std: torch.Tensor  # N,C,h,w

    def __len__(self) -> int:
        return len(self.mean)


def encode(pipeline: DiffusionPipeline, shape: tuple[int, int], images: Sequence[np.ndarray]) -> Examples:
    """Encode images, H,W,3 uint8, with the VAE at the height and width ``shape``, once for the whole training."""
    import torch

    vae = pipeline.vae
    means, stds = [], []
    for start in range(0, len(images), ENCODE_BATCH):
        batch = as_pixels(pipeline, images[start : start + ENCODE_BATCH], shape)
        with torch.inference_mode():
            latents = vae.encode(batch).latent_dist
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        means.append((latents.mean.float() - shift) * vae.config.scaling_factor)
        stds.append(latents.std.float() * vae.config.scaling_factor)
    joint = (torch.cat(parts).clone(memory_format=torch.contiguous_format) for parts in (means, stds))
    return Examples(*joint)


def joined(first: Examples, second: Examples) -> Examples:
    """Concatenate two sets of examples."""
    import torch

    return Examples(torch.cat([first.mean, second.mean]), torch.cat([first.std, second.std]))


def check_optimiser(name: Optimiser) -> None:
    """Raise UserError if that optimiser needs a package that is not installed."""
    if name == "adamw8bit" and find_spec("bitsandbytes") is None:
        way_out = "pip install 'augbench[bitsandbytes]', or set optimiser to adamw or auto"
        raise UserError(f"optimiser adamw8bit needs the package bitsandbytes: {way_out}")


def make_optimiser(
    name: Optimiser, parameters: Sequence[torch.nn.Parameter], lr: float, device: str
) -> torch.optim.Optimizer:
    """Return the optimiser of that name, for parameters on ``device`` (cpu or cuda).

    Raises:
        UserError: bitsandbytes is not installed, and ``name`` asks for it.
    """
    import torch

    check_optimiser(name)
    in_8_bits = name == "adamw8bit" or (name == "auto" and device == "cuda" and find_spec("bitsandbytes") is not None)
    if in_8_bits:
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(parameters, lr=lr)
    fused = True if device == "cpu" else None  # PyTorch's default there is a loop over hundreds of small tensors
    return torch.optim.AdamW(parameters, lr=lr, fused=fused)


class Finetuning(ABC):
    """Training loop: some parameters of a pipeline learn to denoise latents, conditioned on prompts.

    A subclass chooses the parameters, and implements `rows` (the batch of a step) and `rate` (the learning rate).
    """

    file: ClassVar[str]  # name of its checkpoint file

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        recipe: BaseRecipe,
        prompts: Sequence[str],
        examples: Sequence[Examples],
        parameters: Sequence[torch.nn.Parameter],
        steps: int,
        seed: int,
    ) -> None:
        """
        Args:
            pipeline: on the device of the training.
            recipe: hyperparameters.
            prompts: one for each set of examples; the subclass has checked their length.
            examples: at least one set with at least one image.
            parameters: to train; the caller has frozen all others.
            steps: number of optimiser steps.
            seed: of order and noise.
        """
        import torch
        from diffusers import DDPMScheduler

        if sum(parameter.numel() for parameter in pipeline.unet.parameters()) >= LARGE_UNET:
            recipe = replace(recipe, gradient_checkpointing=True)  # the same numbers, so it is no setting of its own
        self.pipeline, self.recipe, self.seed = pipeline, recipe, seed
        self.examples, self.parameters, self.steps = examples, parameters, steps
        self.ids = tokens(pipeline, prompts).to(pipeline.device)
        if recipe.gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
        self.optimiser = make_optimiser(recipe.optimiser, self.parameters, recipe.lr, pipeline.device.type)
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.predicts_v = scheduler.config.prediction_type == "v_prediction"
        self.alphas_cumprod = scheduler.alphas_cumprod.to(pipeline.device, torch.float32)
        self.losses = torch.zeros(self.steps)  # of the finished steps
        self.scaler = torch.amp.GradScaler(enabled=recipe.precision == "fp16" and pipeline.device.type == "cuda")

    @abstractmethod
    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""

    @abstractmethod
    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the batch of a step: for each sample the index of its prompt and of its image, both B int64."""

    def mean_of(self, each: torch.Tensor, kinds: np.ndarray) -> torch.Tensor:
        """Reduce the losses of a batch, B float32, to a scalar."""
        return each.mean()

    def counts(self) -> dict[str, Any]:
        """Return the numbers of training images, for the adapter's record."""
        return {"instances": len(self.examples[0])}

    def loss(self, step: int) -> torch.Tensor:
        """Return the loss of a step's batch; its randomness follows from the seed and the step."""
        import torch

        recipe, device = self.recipe, self.pipeline.device
        kinds, which = self.rows(step)
        draw = torch.Generator().manual_seed(derive_seed("dreambooth-step", self.seed, step))
        mean, std = self.encoded(kinds, which)
        encoder_noise, noise = (torch.randn(mean.shape, generator=draw).to(device) for _ in range(2))
        timesteps = torch.randint(len(self.alphas_cumprod), (len(mean),), generator=draw).to(device)
        latents = mean + std * encoder_noise
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents if self.predicts_v else noise
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            predicted = self.pipeline.unet(noisy, timesteps, **self.conditions(kinds), return_dict=False)[0]
        each = ((predicted.float() - target) ** 2).mean((1, 2, 3)) * self.weights(timesteps)
        return self.mean_of(each, kinds)

    def encoded(self, kinds: np.ndarray, which: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of the latents of a batch, each B,C,h,w. They were encoded once."""
        import torch

        chosen = [(self.examples[kind], i) for kind, i in zip(kinds, which, strict=True)]
        mean, std = (torch.stack([getattr(examples, name)[i] for examples, i in chosen]) for name in ("mean", "std"))
        return mean, std

    def conditions(self, kinds: np.ndarray) -> dict[str, Any]:
        """Encode the prompts of a batch. The text encoder is trained too, so this runs in every step, once a prompt."""
        import torch

        states = encode_tokens(self.pipeline.text_encoder, self.ids, self.recipe.clip_skip)
        return {"encoder_hidden_states": states[torch.from_numpy(kinds).to(states.device)]}

    def weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the min-SNR loss weights of timesteps B: min(snr, gamma) / snr, or / (snr + 1) for v-prediction."""
        import torch

        if not self.recipe.min_snr:
            return torch.ones_like(self.alphas_cumprod[timesteps])
        snr = self.alphas_cumprod[timesteps] / (1 - self.alphas_cumprod[timesteps])
        return snr.clamp(max=self.recipe.min_snr) / (snr + 1 if self.predicts_v else snr)

    def step(self, step: int) -> float:
        """Make one optimiser step. Returns the loss."""
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

    def run(self, scratch: Path | None = None, report_progress: ReportProgress | None = None) -> dict[str, Any]:
        """Train to the end, from the checkpoint in the folder ``scratch`` if it holds one of this training.

        Returns:
            The training's part of the adapter's record, as JSON values.

        Raises:
            UserError: the loss is not finite.
        """
        for part in MODELS:
            getattr(self.pipeline, part).train()
        checkpoint = None if scratch is None else Checkpoint(scratch / self.file, self)
        first = checkpoint.load() if checkpoint else 0
        flushed = time.monotonic()
        with deterministic(self.pipeline.device.type, self.recipe.precision, strict=True):
            for step in range(first, self.steps):
                self.losses[step] = loss = self.step(step)
                if not math.isfinite(loss):
                    raise UserError(
                        f"training of the pipeline diverged (the loss of step {step + 1} of {self.steps} is {loss} at "
                        f"a learning rate of {self.rate(step):.3g}): lower the learning rate, or set precision to fp32"
                    )
                if report_progress:
                    report_progress(step + 1, self.steps, loss)
                if checkpoint and time.monotonic() - flushed > FLUSH:
                    checkpoint.save(step + 1)
                    flushed = time.monotonic()
        for part in MODELS:
            getattr(self.pipeline, part).eval()
        return {
            "steps": self.steps,
            "optimiser": type(self.optimiser).__name__,
            "trained_parameters": sum(parameter.numel() for parameter in self.parameters),
            "update_norm": float(f"{self.update_norm():.4g}"),
            **self.counts(),
            "recipe": asdict(self.recipe),
            "loss": self.curve(),
        }

    def update_norm(self) -> float:
        """Return how far the training moved the weights: the median of ``|dW| / |W|`` over the trained layers."""
        return update_norm(self.pipeline)

    def curve(self) -> list[float]:
        """Return the loss curve: means over at most `CURVE_POINTS` stretches of about equally many steps."""
        return [float(f"{part.mean().item():.4g}") for part in self.losses.tensor_split(min(CURVE_POINTS, self.steps))]


class EpochTraining(Finetuning):
    """Training in epochs, with a cosine schedule. A subclass implements `rows`."""

    file = "dreambooth.safetensors"

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        recipe: Recipe,
        prompts: Sequence[str],
        examples: Sequence[Examples],
        parameters: Sequence[torch.nn.Parameter],
        per_epoch: int,
        seed: int,
    ) -> None:
        """Take the steps of an epoch instead of all steps; other arguments are those of `Finetuning`."""
        self.per_epoch = per_epoch
        super().__init__(pipeline, recipe, prompts, examples, parameters, recipe.epochs * per_epoch, seed)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: a cosine to 0 with ``cycles`` hard restarts."""
        total = (self.recipe.schedule_epochs or self.recipe.epochs) * self.per_epoch
        return self.recipe.lr * 0.5 * (1 + math.cos(math.pi * (self.recipe.cycles * step / total % 1)))


class Training(EpochTraining):
    """DreamBooth training of a pipeline. Wraps the pipeline with `lora.wrap`, for good."""

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        recipe: Recipe,
        prompts: tuple[str, str],
        instances: Examples,
        class_examples: Examples | None,
        seed: int,
    ) -> None:
        """
        Args:
            pipeline: freshly loaded, on the device of the training.
            recipe: hyperparameters.
            prompts: of the instances and of the class images; their length has been checked.
            instances: at least one image.
            class_examples: None: no prior preservation.
            seed: of LoRA weights, order and noise.
        """
        examples = [instances] if class_examples is None else [instances, class_examples]
        parameters = wrap(pipeline, recipe.shape, derive_seed("dreambooth-weights", seed))
        per_epoch = recipe.steps_per_epoch(len(instances), len(class_examples) if class_examples else 0)
        super().__init__(pipeline, recipe, prompts[: len(examples)], examples, parameters, per_epoch, seed)

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return prompts (0: instance, 1: class) and image indices of a step's batch, both B int64."""
        recipe, epoch = self.recipe, step // self.per_epoch
        draw = rng("dreambooth-order", self.seed, epoch)
        sizes = [len(examples) for examples in self.examples]
        totals = recipe.samples(sizes[0], sum(sizes[1:]))[: len(sizes)]
        kinds = np.repeat(np.arange(len(sizes)), totals)
        which = [np.tile(np.arange(sizes[0]), recipe.repeats)]
        if len(sizes) > 1:
            rounds = [draw.permutation(sizes[1]) for _ in range(-(-totals[1] // sizes[1]))]
            which.append(np.concatenate(rounds)[: totals[1]])
        order = draw.permutation(len(kinds))
        own = order[step % self.per_epoch * recipe.batch :][: recipe.batch]
        return kinds[own], np.concatenate(which)[own]

    def mean_of(self, each: torch.Tensor, kinds: np.ndarray) -> torch.Tensor:
        """Average, with class images weighted by ``prior_weight``."""
        import torch

        prior = torch.from_numpy(kinds).to(each.device) == 1
        return (each * torch.where(prior, self.recipe.prior_weight, 1.0)).mean()

    def counts(self) -> dict[str, int]:
        """Return the numbers of instances and class images."""
        return super().counts() | {"class_pictures": len(self.examples[1]) if len(self.examples) > 1 else 0}


class Checkpoint:
    """State of a training in one safetensors file, which is replaced atomically.

    Tensors are tensors of the file; all else, such as the form of the optimiser's state, is JSON in its metadata.
    """

    def __init__(self, path: Path, training: Finetuning) -> None:
        self.path, self.training = path, training
        about = {"recipe": asdict(training.recipe), "seed": training.seed, "ids": training.ids.tolist(), "format": 4}
        about["optimiser"] = type(training.optimiser).__name__  # of `auto` it depends on the machine
        about["augbench"] = augbench.__version__  # results of another version may differ by rounding
        self.about = json.dumps(about, sort_keys=True)

    def save(self, step: int) -> None:
        """Save all that is needed to resume with that step."""
        from safetensors.torch import save_file

        training = self.training
        state = {
            "weights": dict(enumerate(training.parameters)),
            "losses": training.losses,
            "optimiser": training.optimiser.state_dict(),
            "scaler": training.scaler.state_dict(),
            "step": step,
        }
        tensors: dict[str, torch.Tensor] = {}
        metadata = {"about": self.about, "form": json.dumps(_without_tensors(state, tensors))}
        temporary = self.path.with_suffix(".part")
        save_file(tensors, temporary, metadata)
        temporary.replace(self.path)

    def load(self) -> int:
        """Restore the state. Returns the next step; 0 where there is no file or it belongs to another training."""
        import torch
        from safetensors import SafetensorError, safe_open

        training = self.training
        try:
            with safe_open(self.path, "pt", device=str(training.pipeline.device)) as file:
                metadata = file.metadata()
                if metadata["about"] != self.about:
                    return 0
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError):
            return 0
        state = _with_tensors(json.loads(metadata["form"]), tensors)
        training.losses = state["losses"].cpu()
        with torch.no_grad():
            for i, parameter in enumerate(training.parameters):
                parameter.copy_(state["weights"][i])
        training.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:
            training.scaler.load_state_dict(state["scaler"])
        return state["step"]


def _without_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return nested dicts, lists and values as JSON, and move their tensors to ``tensors``.

    JSON has text keys alone, so a dict becomes pairs. Copies of tensors are saved: safetensors refuses shared memory.
    """
    import torch

    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"pairs": [[key, _without_tensors(one, tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return [_without_tensors(one, tensors) for one in value]
    return value


def _with_tensors(form: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Invert `_without_tensors`; tuples come back as lists."""
    if isinstance(form, list):
        return [_with_tensors(one, tensors) for one in form]
    if not isinstance(form, dict):
        return form
    if "tensor" in form:
        return tensors[form["tensor"]]
    return {key: _with_tensors(one, tensors) for key, one in form["pairs"]}
