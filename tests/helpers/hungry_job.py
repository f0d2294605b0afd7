"""A training job that runs out of GPU memory. Workers import it, so it is a module of its own."""

from collections.abc import Collection
from pathlib import Path

import torch
from sleeping import SleepingJob


class HungryJob(SleepingJob):
    """Sleeps and commits; each try is a line of ``notes/tried``, with the share of the GPU."""

    def __init__(self, notes: Path, shared: Collection[str], always: Collection[str], broken: Collection[str]) -> None:
        """Keys of cells that fail on a shared GPU, on every GPU, and otherwise."""
        super().__init__(0.01, notes)
        self.shared, self.always, self.broken = shared, always, broken

    def __call__(self, context, images, cell, slices):
        with (self.notes / "tried").open("a") as lines:
            lines.write(f"{cell.key} {context.gpu:g}\n")
        if cell.key in self.broken:
            raise RuntimeError("broken")
        if cell.key in self.always or (cell.key in self.shared and context.gpu < 1):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().__call__(context, images, cell, slices)
