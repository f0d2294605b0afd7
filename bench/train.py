"""Measure images per second of our training: against a plain loop, and against the bare step.

    python bench/train.py [--device cuda] [--precision fp32 bf16] [--batch 32] [--steps 1] [--minutes 5]
    python bench/train.py --width 64 --height 64 --batch 4     # a smoke test

- plain: a script as one writes it: images from files by a DataLoader with workers, Adam, PyTorch's defaults, fp32.
- bare: forward, backward and Adam on one tensor over and over, channels_last: what a loop can reach at most.
- ours: `augbench.classifiers.fit.fit`, with the same network, batch and optimiser.
- two cells: on a CPU, two trainings of one thread each beside each other, as a grid runs them.

Each is a process of its own that waits for its turn. Turns alternate and their order is reversed from round to round,
so that disturbances affect all; ratios are computed per round. A turn is ``--steps`` batches; the first round is a
warm-up. Rounds follow each other until ``--minutes`` are over. Before each round the peak of the machine is measured
by a matrix product; the floor is that of `bench/floor.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from floor import DTYPES, bandwidth, peak, timed, training_cost
from PIL import Image
from rich.console import Console
from rich.table import Table

from augbench.classifiers.backbone import build
from augbench.classifiers.fit import fit
from augbench.classifiers.loader import DeviceImages, on_device
from augbench.core.determinism import deterministic
from augbench.core.protocol import Protocol, make_protocol
from augbench.core.seeds import rng
from augbench.procedural.noise import spectral
from augbench.stages.provenance import device_name, versions

OURS = get_args(Protocol.model_fields["precision"].annotation)
PRECISIONS = dict.fromkeys([*OURS, "tf32", "fp16"])  # what `fit` does not know is measured bare
FILES = 64  # images on disk, used over and over
LR = 1e-4
SECONDS_TO_END = 10
IMPORTED = ["timm", "torchvision.transforms", "augbench.classifiers.fit", "augbench.stages.provenance"]
PLAIN = "plain fp32"

Turn = Callable[[], None]
"""Called between turns: reports the end of one and waits for the next."""


@dataclass(frozen=True)
class Way:
    """A way to train."""

    name: str
    run: Callable[[argparse.Namespace, Protocol, Turn], None]
    precision: str
    threads: int
    processes: int = 1


def ways(args: argparse.Namespace) -> list[Way]:
    """Return what is compared: the plain loop first."""
    found = [Way(PLAIN, plain, "fp32", args.threads)]
    for precision in args.precision:
        found.append(Way(f"bare {precision}", bare, precision, args.threads))
        if precision in OURS:
            found.append(Way(f"ours {precision}", ours, precision, args.threads))
            if args.device == "cpu" and args.threads > 1:
                found.append(Way(f"two cells {precision}", ours, precision, 1, 2))
    return found


def plain(args: argparse.Namespace, protocol: Protocol, turn: Turn) -> None:
    """Train from files, as a script without augbench does."""
    from torchvision import transforms

    steps = [transforms.Resize((args.height, args.width)), transforms.ToTensor()]
    dataset = Files(args, transforms.Compose([*steps, transforms.Normalize(protocol.mean, protocol.std)]))
    loader = torch.utils.data.DataLoader(dataset, args.batch, shuffle=True, num_workers=args.workers)
    model = build(protocol, 1, 0).to(args.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    while True:
        for images, labels in loader:
            images, labels = images.to(args.device), labels.to(args.device)
            optimiser.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images).squeeze(1), labels)
            loss.backward()
            optimiser.step()
            loss.item()  # as one prints it
        turn()


class Files(torch.utils.data.Dataset):
    """The images of a folder, an epoch of ``steps`` batches."""

    def __init__(self, args: argparse.Namespace, transform: Callable) -> None:
        self.paths, self.transform = sorted(Path(args.folder).iterdir()), transform
        self.length = args.steps * args.batch

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        """Return an image, normalised, and its label."""
        image = Image.open(self.paths[index % len(self.paths)]).convert("RGB")
        return self.transform(image), float(index % 2)


def bare(args: argparse.Namespace, protocol: Protocol, turn: Turn, precision: str) -> None:
    """Train on one tensor."""
    device = torch.device(args.device)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    model = build(protocol, 1, 0).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    images = torch.rand(args.batch, 3, args.height, args.width, device=device)
    images = images.to(memory_format=torch.channels_last)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    low = torch.autocast(device.type, DTYPES[precision]) if precision in DTYPES else contextlib.nullcontext()
    while True:
        for _ in range(args.steps):
            optimiser.zero_grad(set_to_none=True)
            with low:
                logits = model(images)
            scaler.scale(logits.float().mean()).backward()
            scaler.step(optimiser)
            scaler.update()
        turn()


def ours(args: argparse.Namespace, protocol: Protocol, turn: Turn) -> None:
    """Train as augbench does: an epoch is a turn."""
    count = args.steps * args.batch
    pixels = np.random.default_rng(0).integers(0, 256, (count, args.height, args.width, 3), np.uint8)
    device = torch.device(args.device)
    data = DeviceImages([on_device(pixels, device)], np.arange(count), protocol, device)
    with deterministic(device.type, protocol.precision):
        fit(data, np.arange(count) % 2, 1, protocol, 0, lambda *_: turn())


def protocol_of(args: argparse.Namespace, precision: str, threads: int) -> Protocol:
    """Return the protocol: ResNet-50, Adam, random weights, and more epochs than there are turns."""
    fields = {"name": "bench", "width": args.width, "height": args.height, "backbone": args.backbone}
    fields |= {"weights": "scratch", "optimiser": "adam", "lr": LR, "batch": args.batch, "epochs": 10_000}
    fields |= {"precision": precision, "sampler": "shuffle", "threads_per_cell": threads}
    return make_protocol(fields)


# -- processes that take turns


def work(way: Way, args: argparse.Namespace, ends: Connection) -> None:
    """Run in a process of its own until its pipe is closed."""
    torch.set_num_threads(way.threads)

    def turn() -> None:
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # for the next process
        ends.send(None)
        ends.recv()

    known = way.precision if way.precision in OURS else "fp32"
    protocol = protocol_of(args, known, way.threads)
    with contextlib.suppress(EOFError):
        ends.recv()
        way.run(args, protocol, turn, *([way.precision] if way.run is bare else []))


@contextlib.contextmanager
def waiting(found: list[Way], args: argparse.Namespace) -> Iterator[dict[str, Callable[[], None]]]:
    """Start the processes of all ways; yield by name what lets them do one turn."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)  # once, not by each process
    processes, ends = [], {}
    for way in found:
        pairs = [context.Pipe() for _ in range(way.processes)]
        ends[way.name] = [ours for ours, _ in pairs]
        processes += [(context.Process(target=work, args=(way, args, theirs)), theirs) for _, theirs in pairs]

    def one_turn(name: str) -> None:
        for end in ends[name]:
            end.send(None)
        for end in ends[name]:
            end.recv()

    try:
        for process, theirs in processes:
            process.start()
            theirs.close()  # a process that dies ends the wait for it
        yield {way.name: partial(one_turn, way.name) for way in found}
    finally:
        for end in chain.from_iterable(ends.values()):
            end.close()  # its process ends where it waits
        for process, _ in processes:
            process.join(SECONDS_TO_END)
            process.kill()


def measure(args: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[float]], float]:
    """Return the seconds of each way's turns, the peaks by precision, and the bandwidth."""
    found, begun = ways(args), time.perf_counter()
    seconds: dict[str, list[float]] = {way.name: [] for way in found}
    peaks: dict[str, list[float]] = {precision: [] for precision in args.precision}
    torch.set_num_threads(args.threads)
    with waiting(found, args) as turns:
        for one_turn in turns.values():
            one_turn()  # starts, and warms up
        longest = 0.0
        while not all(seconds.values()) or time.perf_counter() - begun + longest < 60 * args.minutes:
            round_begun = time.perf_counter()
            for precision in args.precision:
                peaks[precision].append(peak(args.device, precision))
            backwards = len(peaks[args.precision[0]]) % 2
            for name in list(turns)[::-1] if backwards else turns:
                seconds[name].append(timed(turns[name]))
            longest = max(longest, time.perf_counter() - round_begun)
    return seconds, peaks, bandwidth(args.device)


def draw(folder: str) -> None:
    """Write cloudy images of about KSDD2's size."""
    for index in range(FILES):
        clouds = 128 + 25 * spectral(rng("bench-train", index), (640, 230), 1.2)
        pixels = np.clip(np.repeat(clouds[..., None], 3, 2), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(Path(folder) / f"{index}.png")


def report(
    args: argparse.Namespace, seconds: dict[str, list[float]], peaks: dict[str, list[float]], rate: float
) -> None:
    """Print a table and one line of JSON."""
    rounds = len(seconds[PLAIN])
    images = {way.name: way.processes * args.steps * args.batch for way in ways(args)}
    rates = {name: [images[name] / one for one in took] for name, took in seconds.items()}
    step = training_cost(args.backbone, args.batch, args.height, args.width)
    size = f"{args.backbone}, {args.width} x {args.height}, batches of {args.batch}"
    table = Table(
        "way", "images/s", "times plain", "times bare", "share of floor", title=f"{size}; medians of {rounds}"
    )
    rows: list[dict[str, Any]] = []
    for way in ways(args):
        own = rates[way.name]
        against = {"plain": rates[PLAIN], "bare": rates.get(f"bare {way.precision}")}
        row = {"way": way.name, "images_per_second": statistics.median(own), "rounds": own}
        row |= {f"times_{name}": _ratio(own, other) for name, other in against.items() if other}
        if way.precision in peaks:
            bytes_per_second = inf if way.precision in DTYPES else rate  # the bytes were counted in fp32
            floors = [args.batch / step.floor(one, bytes_per_second) for one in peaks[way.precision]]  # images/s
            row["share_of_floor"] = _ratio(own, floors)
        numbers = (row.get(key) for key in ("times_plain", "times_bare", "share_of_floor"))
        texts = ["" if number is None else f"{number:.2f}" for number in numbers]
        table.add_row(way.name, f"{row['images_per_second']:.3g}", *texts)
        rows.append(row)
    Console().print(table)
    about: dict[str, Any] = {
        key: getattr(args, key) for key in ("backbone", "width", "height", "batch", "steps", "threads")
    }
    about |= {"gflop_per_image": step.operations / args.batch / 1e9, "gigabytes_per_second": rate / 1e9}
    about |= {"gflops_at_peak": {name: statistics.median(values) / 1e9 for name, values in peaks.items()}}
    print(", ".join(f"peak in {name} {value:.0f} GFLOP/s" for name, value in about["gflops_at_peak"].items()))
    about |= {"device": device_name(args.device), "versions": versions()}
    print(json.dumps({"bench": "train", "ways": rows, **about}))


def _ratio(own: list[float], other: list[float]) -> float:
    return statistics.median(one / another for one, another in zip(own, other, strict=True))


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", choices=list(PRECISIONS), default=["fp32", "bf16"])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--width", type=int, default=224)
    parser.add_argument("--height", type=int, default=632)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, help="batches of a turn; default: 1 on a CPU, else 20")
    parser.add_argument("--threads", type=int, default=2, help="of each process, on a CPU")
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    parser.add_argument(
        "--minutes", type=float, default=5, help="no round begins that would end later; at least one is run"
    )
    args = parser.parse_args(words)
    args.steps = args.steps or (1 if args.device == "cpu" else 20)
    if args.device == "cpu" and (unfit := {"tf32", "fp16"} & {*args.precision}):
        parser.error(f"--precision {' '.join(sorted(unfit))} needs a GPU: give --device cuda")
    return args


def main() -> None:
    """Measure and print."""
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="augbench-train-") as args.folder:
        draw(args.folder)
        report(args, *measure(args))


if __name__ == "__main__":
    main()
