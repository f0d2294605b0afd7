"""Measure images per second of `diag`, which inpaints in batches, against one call of diffusers per image.

    python bench/inpaint.py [--bundle micro-sdxl-inpaint] [--precision bf16] [--pictures 32] [--steps 30] [--repeats 5]
    python bench/inpaint.py --random sdxl --device cuda     # SDXL's architecture with random weights: the same speed
    python bench/inpaint.py --random sdxl --pictures 1 --batch 1 --steps 2 --repeats 1     # a smoke test, on a CPU too

Both inpaint the same defects into the same images from the same seeds: one by one like the published code of DIAG, with
``padding_mask_crop`` and the whole image resized, in one process with all threads; and as augbench runs the augmenter,
on a CPU in processes of one thread each. Both use the same precision. Repeats alternate, so that disturbances affect
both; the ratio is computed per repeat. The images of both are compared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from augbench.augmenters.diag import DIAG
from augbench.core.contracts import SAMPLE_COLUMNS, Dataset, Request, TrainView
from augbench.core.errors import UserError
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion.pipelines import PipelineSource, find, load
from augbench.procedural.noise import spectral
from augbench.stages.provenance import device_name, versions

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

WIDTH, HEIGHT = 224, 632  # about KSDD2's size
NEGATIVES = 8

SDXL: dict[str, dict[str, Any]] = {  # the configuration of SDXL inpainting, where it differs from the default
    "unet": {
        "sample_size": 128,
        "in_channels": 9,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
        "force_upcast": True,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "text_encoder_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    "scheduler": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
    },
}


class InMemory(Dataset):
    """Random cloudy surfaces, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.images = [self._draw(index) for index in range(NEGATIVES)]

    def samples(self) -> pd.DataFrame:
        """Return `NEGATIVES` normal rows; ``image`` is an index."""
        rows = [(f"n{i}", f"{i}", "", "good", "train", f"n{i}") for i in range(NEGATIVES)]
        return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))

    def read_image(self, sample: Mapping[str, str]) -> np.ndarray:
        """Return H,W,3 uint8."""
        return self.images[int(sample["image"])]

    @staticmethod
    def _draw(index: int) -> np.ndarray:
        clouds = 128 + 25 * spectral(rng("bench-inpaint", index), (HEIGHT, WIDTH), 1.2)
        return np.clip(np.repeat(clouds[..., None], 3, 2), 0, 255).astype(np.uint8)


def random_sdxl(device: str) -> tuple[PipelineSource, DiffusionPipeline]:
    """Make SDXL inpainting with random weights on the device, with the tokenizer of the micro pipeline.

    In fp16, as published; on a CPU, where a step takes a minute, in bf16.
    """
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLInpaintPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    small = load(find("micro-sdxl-inpaint"))
    tokenizer = small.tokenizer
    tokenizer.model_max_length = 77
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if device == "cpu" else torch.float16)
    try:
        with torch.device(device):
            unet, vae = UNet2DConditionModel(**SDXL["unet"]), AutoencoderKL(**SDXL["vae"])
            encoder = CLIPTextModel(CLIPTextConfig(**SDXL["text_encoder"], **ids))
            encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**SDXL["text_encoder_2"], **ids))
    finally:
        torch.set_default_dtype(torch.float32)
    pipeline = StableDiffusionXLInpaintPipeline(
        vae=vae.eval(),
        text_encoder=encoder.eval(),
        text_encoder_2=encoder_2.eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**SDXL["scheduler"]),
        add_watermarker=False,
    )
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    size = SDXL["unet"]["sample_size"] * 2 ** (len(SDXL["vae"]["block_out_channels"]) - 1)
    return PipelineSource("random sdxl", "sdxl-inpaint", size, ""), pipeline.to(device)


def prepared(args: argparse.Namespace) -> DIAG:
    """Make the augmenter and load its pipeline."""
    settings = {"masks": "procedural", "as_published": True, "steps": args.steps, "batch": args.batch}
    if not args.random:
        augmenter = DIAG(DIAG.Config(bundle=args.bundle, prompts=args.prompts, precision=args.precision, **settings))
        augmenter.load(None, args.device)
        return augmenter
    augmenter = DIAG(DIAG.Config(prompts=args.prompts, **settings))
    augmenter._pipeline_source, augmenter._pipeline = random_sdxl(args.device)
    augmenter._pipeline.vae.enable_slicing()
    return augmenter


def one_by_one(augmenter: DIAG, requests: Sequence[Request], view: TrainView) -> list[np.ndarray]:
    """Call the pipeline once per image, as in the published code."""
    config, prompts, size = augmenter.config, augmenter._prompts, augmenter._pipeline_source.size
    found = []
    for request in requests:
        scene = augmenter._scene(request.rng, view)
        output = augmenter._pipeline(
            prompt=prompts.prompts[request.index % len(prompts.prompts)],
            negative_prompt=prompts.negative_prompt,
            image=Image.fromarray(scene.square),
            mask_image=Image.fromarray(scene.mask),
            guidance_scale=config.guidance,
            num_inference_steps=config.steps,
            strength=config.strength,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            height=size,
            width=size,
            original_size=(size, size),
            target_size=(size, size),
            padding_mask_crop=config.padding,
        )
        found.append(np.asarray(output.images[0].resize((WIDTH, HEIGHT))))
    return found


def in_batches(augmenter: DIAG, requests: Sequence[Request], view: TrainView) -> list[np.ndarray]:
    """Generate with the augmenter."""
    return [sample.image for sample in augmenter.generate(requests, view)]


class Generators:
    """Processes of one thread, each with the augmenter, like augbench on a CPU."""

    def __init__(self, args: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes = [ProcessPoolExecutor(1, context, _begin, (args,)) for _ in range(args.workers)]

    def __call__(self, _: DIAG, requests: Sequence[Request], __: TrainView) -> list[np.ndarray]:
        """Split the requests among the processes; return the images in order."""
        parts = [part.tolist() for part in np.array_split(np.arange(len(requests)), len(self.processes))]
        jobs = [
            process.submit(_generate, [requests[i] for i in part])
            for process, part in zip(self.processes, parts, strict=True)
        ]
        return [image for job in jobs for image in job.result()]


def _begin(args: argparse.Namespace) -> None:
    global _own  # of the process
    torch.set_num_threads(1)
    augmenter = prepared(args)
    _own = augmenter, train_view(augmenter)


def _generate(requests: Sequence[Request]) -> list[np.ndarray]:
    return in_batches(_own[0], requests, _own[1])


def train_view(augmenter: DIAG) -> TrainView:
    """Make the augmenter's view of the normal images."""
    dataset = InMemory()
    rows = dataset.samples()
    return TrainView(dataset, rows, rows.head(0), augmenter.reads(0))


def main() -> None:
    """Alternate both ways, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="micro-sdxl-inpaint", help="a name or a diffusers folder")
    parser.add_argument("--random", choices=["sdxl"], help="an architecture with random weights instead of a pipeline")
    parser.add_argument("--prompts", default="diag", help="a name or a file")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="default: the augmenter's own")
    parser.add_argument("--pictures", type=int, default=32, help="images per repeat")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8, help="images per batch of the augmenter")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads: one by one in a single process, in batches a process each"
    )
    args = parser.parse_args()
    if args.random and args.precision:
        parser.error("--random sdxl is fp16 on a GPU and bf16 on a CPU: give no --precision")
    args.precision = args.precision or "auto"
    args.workers = args.threads if args.device == "cpu" and not args.random else 0
    torch.set_num_threads(args.threads)
    try:
        augmenter = prepared(args)
    except UserError as error:
        parser.error(str(error))
    view = train_view(augmenter)
    ways: dict[str, Callable] = {
        "in batches": Generators(args) if args.workers else in_batches,
        "one by one": one_by_one,
    }
    for way in ways.values():
        way(augmenter, [Request(i, i, "defect") for i in range(args.batch)], view)  # warm-up
    took: dict[str, list[float]] = {name: [] for name in ways}
    differences = []
    for repeat in range(args.repeats):
        seeds = [derive_seed("bench-inpaint", repeat, index) for index in range(args.pictures)]
        requests = [Request(index, seed, "defect") for index, seed in enumerate(seeds)]
        made = {}
        for name in list(ways) if repeat % 2 else list(ways)[::-1]:
            begun = time.perf_counter()
            made[name] = ways[name](augmenter, requests, view)  # images are on the CPU: no need to synchronise
            took[name].append(time.perf_counter() - begun)
        differences.append(np.abs(np.stack(made["in batches"]).astype(int) - np.stack(made["one by one"])))
    report(args, augmenter, took, np.stack(differences))


def report(args: argparse.Namespace, augmenter: DIAG, took: dict[str, list[float]], differences: np.ndarray) -> None:
    """Print a table and one line of JSON."""
    name, precision = augmenter._pipeline_source.name, str(augmenter._pipeline.unet.dtype).removeprefix("torch.")
    title = f"{name}, {precision}, {args.steps} steps, batches of {args.batch}"
    table = Table("way", "images/s, median", "s/image", title=title)
    rates = {way: args.pictures / statistics.median(spent) for way, spent in took.items()}
    for way, rate in rates.items():
        table.add_row(way, f"{rate:.3f}", f"{1 / rate:.2f}")
    Console().print(table)
    ratios = [single / batched for single, batched in zip(took["one by one"], took["in batches"], strict=True)]
    middle = statistics.median(ratios)
    print(f"batches are {middle:.2f} times as fast (repeats: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"images differ by at most {differences.max()} of 255, {differences.mean():.4f} on average")
    setup = {key: getattr(args, key) for key in ("pictures", "steps", "batch", "repeats", "threads", "workers")}
    found = {"ratio": round(middle, 3), "ratios": ratios, "pictures_per_second": rates, "apart": int(differences.max())}
    about = {
        "bundle": name,
        "precision": precision,
        **setup,
        "device": device_name(args.device),
        "versions": versions(),
    }
    if args.device.startswith("cuda"):
        about["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    print(json.dumps({"bench": "inpaint", **found, **about}))


if __name__ == "__main__":
    main()
