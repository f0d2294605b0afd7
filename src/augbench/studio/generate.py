"""Generate on a background thread: one augmenter, whose pipeline stays loaded, on one request at a time."""

from __future__ import annotations

import logging
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from augbench.augmenters._sd import PipelineAugmenter
from augbench.core.contracts import Request, Shots, Synthetic
from augbench.core.errors import UserError
from augbench.core.seeds import derive_seed
from augbench.core.specs import Draw
from augbench.stages.context import repeatable
from augbench.stages.generate import DEFECT
from augbench.stages.image_gate import check_images
from augbench.studio.training import TrainingImages

MOST = 200  # images at once
LAST = 5  # images that an estimate of time is made from
log = logging.getLogger(__name__)


class Cancelled(Exception):
    """The person pressed cancel."""


@dataclass
class Progress:
    """What the thread does, for the page."""

    state: str = "idle"  # idle, loading, working
    what: str = ""
    done: int = 0
    count: int = 0
    step: int = 0  # of the image in work
    steps: int = 0
    images: list[str] = field(default_factory=list)  # ids of what was made
    message: str = ""  # why the last job ended, if not as it should
    seconds: float = 0.0  # since it began
    job: int = 0  # number of the job


class Worker:
    """A thread that does one job at a time."""

    def __init__(self) -> None:
        self.progress = Progress()
        self._cancel = threading.Event()
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = 0.0
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="augbench-studio", daemon=True)
        self._thread.start()

    def start(self, what: str, count: int, job: Callable[[], None]) -> int:
        """Begin a job; return its number.

        Raises:
            UserError: another one is not yet done.
        """
        with self._lock:
            if self.progress.state != "idle":
                raise UserError(f"still {self.progress.what}: wait, or cancel it")
            self._cancel.clear()
            self._idle.clear()
            self._started = time.perf_counter()
            self.progress = Progress("working", what, count=count, job=self.progress.job + 1)
            self._jobs.put(job)
            return self.progress.job

    def cancel(self) -> None:
        """End the job at its next step."""
        self._cancel.set()

    def wait(self) -> str:
        """Wait until nothing is going on; return why the last job ended, "" if as it should."""
        self._idle.wait()
        return self.progress.message

    def check(self) -> None:
        """Raise `Cancelled` if the job is to end: called within jobs."""
        if self._cancel.is_set():
            raise Cancelled

    def seen(self) -> dict[str, Any]:
        """Return the progress as JSON values."""
        progress = self.progress
        if progress.state != "idle":
            progress.seconds = time.perf_counter() - self._started
        return dict(vars(progress), images=list(progress.images))

    def close(self) -> None:
        """Cancel what is going on, and end the thread."""
        self.cancel()
        self._jobs.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Cancelled:
                self.progress.message = f"cancelled after {self.progress.done} of {self.progress.count}"
            except UserError as error:
                self.progress.message = " ".join(str(error).split())
            except Exception as error:
                log.exception("a job of the page failed")
                self.progress.message = f"it failed ({type(error).__name__}: {error}): the terminal shows where"
            self.progress.seconds = time.perf_counter() - self._started
            self.progress.state = "idle"
            self._idle.set()


@dataclass(frozen=True)
class Wish:
    """What a person asks for."""

    source: str  # the image to start from
    prompt: str
    negative_prompt: str
    mask: np.ndarray | None  # H,W bool: where; None where the augmenter makes whole images
    seed: int
    count: int
    settings: Mapping[str, float]  # steps, guidance, strength

    def own_seed(self, number: int) -> int:
        """Return the seed of an image: the first has the one that was asked for."""
        derived = derive_seed("studio", self.seed, number) >> 10  # 53 bits, as JavaScript counts
        return derived if number else self.seed


class Generator:
    """An augmenter and its pipeline, which is loaded once."""

    def __init__(
        self,
        training: TrainingImages,
        augmenter: PipelineAugmenter,
        worker: Worker,
        device: str,
        adapter: Path | None = None,
        shots: Shots = 0,
        draw: Draw = None,
    ) -> None:
        """Load nothing yet.

        Args:
            training: the images to start from.
            augmenter: with the settings to begin with.
            worker: does the work.
            device: a torch device.
            adapter: what the augmenter has learned; None for one that does not learn.
            shots: the regime of the adapter.
            draw: of its shots.
        """
        self.training, self.augmenter, self.worker, self.device = training, augmenter, worker, device
        self.adapter, self.shots, self.draw = adapter, shots, draw
        self._is_loaded = False

    @property
    def needs_region(self) -> bool:
        """Whether it inpaints a region; others make whole images."""
        return "masks" in type(self.augmenter).Config.model_fields

    @property
    def is_loaded(self) -> bool:
        """Whether its pipeline is loaded."""
        return self._is_loaded

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return value, range and help of the settings that a person may change."""
        fields = type(self.augmenter).Config.model_fields
        found = {}
        for name in ("strength", "guidance", "steps"):
            if name in fields:
                found[name] = {"value": getattr(self.augmenter.config, name), "help": fields[name].description}
        return found

    def sources(self) -> list[str]:
        """Return the ids of the images to start from: shots where the augmenter does, else normal images."""
        shots = self.training.shots(self.augmenter, self.shots, self.draw)
        return shots if shots and "negatives" not in self.augmenter.reads(self.shots) else self.training.normals

    def tried(self, wish: Wish) -> PipelineAugmenter:
        """Return the augmenter with what was asked for. Raises UserError for settings that it does not take."""
        own = {name: value for name, value in wish.settings.items() if name in self.settings()}
        own = {name: int(value) if name == "steps" else float(value) for name, value in own.items()}
        return self.augmenter.trying(wish.prompt, wish.negative_prompt, **own)

    def run(self, wish: Wish, keep: Callable[[Synthetic, int, float], str]) -> None:
        """Make the images of a wish, on the worker's thread.

        Args:
            wish: what to make.
            keep: called with each image, its seed and its seconds; returns its id.

        Raises:
            Cancelled, UserError: it was cancelled, or the pipeline, the prompt or a setting cannot be used.
        """
        progress = self.worker.progress
        self.load()
        self.worker.check()
        with tempfile.TemporaryDirectory(prefix="augbench-studio-") as folder:
            augmenter = self.tried(wish)
            if self.needs_region:
                assert wish.mask is not None
                Image.fromarray(np.uint8(255) * wish.mask).save(Path(folder) / "region.png")
                augmenter = augmenter.trying(
                    wish.prompt, wish.negative_prompt, masks="drawn", mask_folder=Path(folder), batch=1
                )
            view = self.training.view(augmenter, self.shots, self.draw, wish.source)
            progress.steps = self.steps(wish.settings)
            hook = augmenter.pipeline.unet.register_forward_pre_hook(lambda *_: self._stepped())
            try:
                for number in range(wish.count):
                    progress.step, started = 0, time.perf_counter()
                    request = Request(0, wish.own_seed(number), DEFECT)
                    with repeatable(True, self.device, augmenter.precision_on(self.device)):
                        (sample,) = augmenter.generate([request], view)
                    check_images(augmenter, [request], [sample], view, may_be_unchanged=True)
                    progress.images.append(keep(sample, request.seed, time.perf_counter() - started))
                    progress.done += 1
                    self.worker.check()
            finally:
                hook.remove()

    def load(self) -> None:
        """Load the pipeline, and what the augmenter has learned, unless that was done."""
        if self._is_loaded:
            return
        self.worker.progress.state = "loading"
        self.augmenter.ready()
        with repeatable(True, self.device, self.augmenter.precision_on(self.device)):
            self.augmenter.load(self.adapter, self.device)
        self._is_loaded = True
        self.worker.progress.state = "working"

    def steps(self, settings: Mapping[str, float]) -> int:
        """Return the denoising steps of an image: the noise of a strength below 1 takes a share of them."""
        own = {name: one["value"] for name, one in self.settings().items()} | dict(settings)
        return max(1, int(own["steps"] * own.get("strength", 1.0) + 1e-6))

    def estimate(self, settings: Mapping[str, float], made: Sequence[Mapping[str, Any]]) -> float | None:
        """Return the seconds of an image with these settings, from the last ones that were made here; None without."""
        device = [one for one in made if one.get("seconds") and one.get("device") == self.device][-LAST:]
        if not device:
            return None
        return statistics.median(one["seconds"] / self.steps(one["settings"]) for one in device) * self.steps(settings)

    def _stepped(self) -> None:
        self.worker.check()
        self.worker.progress.step += 1
