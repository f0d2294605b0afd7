"""A training job that only sleeps and writes, to measure the overhead of driver, Ray and store."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

TESTED, DEFECTIVE, EPOCHS = 1004, 110, 50  # test images, defect images, and epochs of a record, as in KSDD2


class SleepingJob:
    """Replaces `stages.train.train_cell`: same arguments, same writes, no training, no torch.

    Each process appends a line per cell to ``notes/times-PID.txt``: the Unix seconds of start, end of sleep, end of
    evaluation and commit, and the CPU seconds of the process at the start.
    """

    def __init__(self, seconds: float, notes: Path) -> None:
        self.seconds = seconds
        self.notes = notes

    def __call__(self, context, images, cell, slices):
        """Sleep, evaluate, commit. Evaluates before the sleep too, as a training does during its epochs."""
        from augbench.metrics.evaluate import evaluate
        from augbench.stages.cell_data import Trained
        from augbench.stages.train import commit

        used, times = time.process_time(), [time.time()]
        scores = scores_of(cell.seed)
        evaluate(scores, cell.protocol)
        time.sleep(max(0.0, times[0] + self.seconds - time.time()))
        times.append(time.time())
        counts = {"train_negatives": 2085, "shots": 246, "synthetic": cell.n_aug, "heldout_negatives": 0}
        curve = [{"epoch": epoch, "ap": 0.5} for epoch in range(1, EPOCHS + 1)]
        curves = {"loss": [0.5] * EPOCHS, "test": curve}
        result = {**evaluate(scores, cell.protocol), "counts": counts, "curves": curves}
        times.append(time.time())
        seconds = {"total": self.seconds, "fit": self.seconds, "gather": 0.0, "judge": times[-1] - times[-2]}
        record = commit(context, cell, slices, Trained(scores, result, seconds, 0, dict))
        times.append(time.time())
        with (self.notes / f"times-{os.getpid()}.txt").open("a") as file:
            file.write(f"{' '.join(map(str, times))} {used}\n")
        return record


def scores_of(seed: int) -> pd.DataFrame:
    """Draw a random table of scores of the usual size."""
    ids = [f"{20000 + i}" for i in range(TESTED)]
    logits = np.random.default_rng(seed).normal(size=TESTED).astype(np.float32)
    labels = np.where(np.arange(TESTED) < DEFECTIVE, "defect", "good")
    return pd.DataFrame({"id": ids, "part": "test", "label": labels, "group": ids, "logit": logits})


def noted(notes: Path) -> dict[int, np.ndarray]:
    """Read the times of each process: cells x (began, slept, evaluated, committed, CPU seconds at the start)."""
    found = {}
    for path in sorted(notes.glob("times-*.txt")):
        found[int(path.stem.partition("-")[2])] = np.loadtxt(path, ndmin=2)
    return found
