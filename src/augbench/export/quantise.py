"""Static int8 quantisation of a graph: for size. Whether it is faster depends on the processor."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.core.seeds import rng
from augbench.core.temporary import log_levels
from augbench.export.graph import INPUT, logits_of, session_of
from augbench.metrics.evaluate import AP
from augbench.metrics.resampling import (
    CONFIDENCE,
    RESAMPLES,
    accuracy_under_weights,
    ap_under_weights,
    unit_weights,
)

if TYPE_CHECKING:
    import onnx

CALIBRATED_ON = 128  # training images
TIMED = 50  # runs of one image, of each graph in turn


def quantised(graph: bytes, images: np.ndarray) -> bytes:
    """Quantise the weights (per channel) and activations of a graph to int8, with QDQ nodes.

    What prepares the pixels, and what follows the network's last convolution or block, stays in float32: it is small,
    and its errors would be those of the score. To quantise convolutions alone costs a little less AP at the same size,
    but is no faster than float32: activations are converted before and after each of them.

    Args:
        graph: as `graph.to_onnx` makes it.
        images: N,H,W,3 uint8, by which the ranges of activations are chosen: of training.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        """One image after the other."""

        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {INPUT: image[None]}

    with tempfile.TemporaryDirectory(prefix="augbench-int8-") as folder, log_levels(logging.ERROR, ""):
        given, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "int8"))
        given.write_bytes(graph)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_outside(onnx.load(prepared)),
        )
        return made.read_bytes()


def _outside(model: onnx.ModelProto) -> list[str]:
    """Name the nodes before the first and after the last convolution, or matrix product of more than two axes."""
    nodes = list(model.graph.node)
    heavy = [number for number, node in enumerate(nodes) if node.op_type in ("Conv", "MatMul")]
    inside = range(heavy[0], heavy[-1] + 1) if heavy else range(0)
    return [node.name for number, node in enumerate(nodes) if number not in inside]


@dataclass(frozen=True)
class Change:
    """A metric of the test images before and after, and the 95 % interval of their difference over test items."""

    before: float
    after: float
    interval: tuple[float, float]

    @property
    def falls(self) -> bool:
        """Whether it falls by more than its interval."""
        return self.interval[1] < 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"float32": self.before, "int8": self.after, "interval_of_difference": list(self.interval)}


def change_of(scores: pd.DataFrame, before: np.ndarray, after: np.ndarray, definition: str) -> Change:
    """Compare AP, or accuracy in recognition.

    Args:
        scores: the rows of the score table of the test images.
        before: their logits N,K.
        after: the same of the quantised graph.
        definition: of AP, see `metrics.evaluate.AP`.
    """
    items = scores.groupby("group", sort=True)["label"].first()
    units = scores["group"].map({name: number for number, name in enumerate(items.index)}).to_numpy()
    weights = unit_weights((items != GOOD).to_numpy(int), RESAMPLES, rng("int8", *items.index))
    if before.shape[1] == 1:
        labels = (scores["label"] != GOOD).to_numpy()
        values = [AP[definition](labels, one[:, 0]) for one in (before, after)]
        resampled = [ap_under_weights(labels, one[:, 0], units, weights, definition) for one in (before, after)]
    else:
        names = scores.filter(like="logit_").columns.str.removeprefix("logit_")
        labels = scores["label"].map({name: number for number, name in enumerate(names)}).to_numpy()
        predicted = [one.argmax(1) for one in (before, after)]
        values = [float((labels == one).mean()) for one in predicted]
        resampled = [accuracy_under_weights(labels, one, units, weights) for one in predicted]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(resampled[1] - resampled[0], [tail, 1 - tail])
    return Change(values[0], values[1], (float(low), float(high)))


def milliseconds(graphs: dict[str, bytes], image: np.ndarray) -> dict[str, float]:
    """Return the median milliseconds of one image H,W,3 uint8 by each graph, in turn, on one thread."""
    sessions = {name: session_of(graph) for name, graph in graphs.items()}
    times: dict[str, list[float]] = {name: [] for name in graphs}
    image = image[None]
    for session in sessions.values():
        logits_of(session, image)  # the first run allocates memory
    for _ in range(TIMED):
        for name, session in sessions.items():
            started = time.perf_counter()
            logits_of(session, image)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: float(np.median(values)) for name, values in times.items()}
