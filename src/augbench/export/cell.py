"""Export the classifier of a cell: graph, description and a script that runs it, in one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import augbench
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.export.classifier import StoredClassifier, module_of, read_classifier
from augbench.export.graph import logits_of, require_packages, session_of, to_onnx
from augbench.export.licences import of_plugin, of_weights
from augbench.export.quantise import CALIBRATED_ON, change_of, milliseconds, quantised
from augbench.export.thresholds import Threshold, thresholds_of
from augbench.export.whole_folder import whole_folder
from augbench.planning.library import Library, library_of
from augbench.stages.decoded_images import decode_rows, geometry
from augbench.storage.scores import scores_frame
from augbench.storage.store import FIX_HINT, Store, json_bytes

FLOAT, INT8 = "model.onnx", "model-int8.onnx"
COMPARED = 200  # evaluated images on which a graph is compared with the store
NOISE = 4  # images of noise on which it is compared with torch
TOLERANCE = 1e-3  # of the largest logit: a graph that differs more from torch is not written


def export_cell(store: Store, asked: str, out: Path | None, roots: Sequence[str], int8: bool, opset: int) -> list[str]:
    """Export the classifier of a cell into a new folder.

    Args:
        store: holds the cell and its weights.
        asked: the key of the cell, or a unique prefix.
        out: a folder that is new or empty; None: one called after the key.
        roots: where the cell's dataset is, as ``--root`` has it. It is needed for ``int8``, else used where it is here.
        int8: write a quantised graph too.
        opset: version of ONNX's operators.

    Returns:
        What was done and found, one sentence each.

    Raises:
        UserError: packages are missing; there is no such cell, or no weights of it; its backbone has no ONNX graph;
            the dataset is not here, but needed; or ``out`` is not empty.
    """
    require_packages()
    stored = read_classifier(store, asked)
    scores = _scores(store, stored.key)
    with whole_folder(out or Path(stored.key)) as folder:
        images = _images(stored, scores, roots, store, needed=int8)
        graph = checked_graph(stored, opset)
        (folder / FLOAT).write_bytes(graph)
        graphs, lines = {FLOAT: _described(stored, graph, scores)}, [_size(FLOAT, graph)]
        if images is None:
            lines.append("the dataset is not here (--root names it): compared with torch, on noise, not with the store")
        else:
            agreement = _agreement(stored, graph, scores, images)
            graphs[FLOAT] |= {"agreement": agreement}
            lines.append(
                "{images} evaluated images: scores differ from the store's by at most {largest_difference:.1e}; "
                "{different_decisions} decisions differ".format(**agreement)
            )
        lines += _threshold_lines(stored, graphs[FLOAT])
        if images is not None and int8:
            small = quantised(graph, images.training())
            (folder / INT8).write_bytes(small)
            graphs[INT8], found = _small(stored, graph, small, scores, images)
            lines += [_size(INT8, small), *found]
        description = _description(stored, graphs, opset)
        (folder / "model.json").write_bytes(json_bytes(description))
        (folder / "infer.py").write_text(_script(stored, description), encoding="utf-8")
    return [f"written to {out or stored.key}: {', '.join([*graphs, 'model.json', 'infer.py'])}", *lines]


def _scores(store: Store, key: str) -> pd.DataFrame:
    """Read the score table of a cell. Raises UserError if it is missing or damaged."""
    try:
        return scores_frame(store.files.read(store.name("scores", key)))
    except (FileNotFoundError, ValueError):
        raise UserError(f"scores '{store.where('scores', key)}' are missing or damaged: {FIX_HINT}") from None


def checked_graph(stored: StoredClassifier, opset: int) -> bytes:
    """Return the ONNX graph of a classifier. Raises UserError if it does not agree with torch on noise."""
    import torch

    protocol = stored.cell.protocol
    module = module_of(stored)
    graph = to_onnx(module, protocol.height, protocol.width, opset)
    noise = np.random.default_rng(0).integers(0, 256, (NOISE, protocol.height, protocol.width, 3), np.uint8)
    with torch.inference_mode():
        expected = module(torch.from_numpy(noise))[0].numpy()
    difference = float(np.abs(logits_of(session_of(graph), noise) - expected).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise UserError(f"the graph of '{stored.key}' differs from torch by {difference:g}: export another backbone")
    return graph


# -- images


@dataclass(frozen=True)
class CellImages:
    """The images of a cell's dataset, as its classifier saw them."""

    stored: StoredClassifier
    library: Library

    def evaluated(self, ids: pd.Series) -> np.ndarray:
        """Return evaluated images by id: N,H,W,3 uint8."""
        return self._decoded(self.library.evaluated(self.stored.cell.data).set_index("id", drop=False).loc[ids])

    def training(self) -> np.ndarray:
        """Return up to `CALIBRATED_ON` real training images, evenly spaced over the normal ones and the shots."""
        cell = self.stored.cell
        shots = self.library.shots(cell.data, cell.shots, cell.draw)
        return self._decoded(_evenly(pd.concat([self.library.split(cell.data).negatives, shots]), CALIBRATED_ON))

    def _decoded(self, rows: pd.DataFrame) -> np.ndarray:
        cell = self.stored.cell
        return decode_rows(self.library.dataset(cell.data.alias), rows, geometry(cell.protocol))


def _evenly(rows: pd.DataFrame, number: int) -> pd.DataFrame:
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int))]


def _images(
    stored: StoredClassifier, scores: pd.DataFrame, roots: Sequence[str], store: Store, needed: bool
) -> CellImages | None:
    """Open the dataset; None if it is not here, and neither needed nor given.

    Raises:
        UserError: it has other images here than the cell was evaluated on.
    """
    data = stored.cell.data
    try:
        library = library_of(data, roots, store)
        evaluated = library.evaluated(data)
    except UserError:
        if roots or needed:
            raise
        return None
    ours, theirs = ({*zip(one["id"], one["part"], one["label"], strict=True)} for one in (evaluated, scores))
    if ours != theirs:
        what = f"dataset '{data.alias}' has other images here than cell '{stored.key}' was evaluated on"
        raise UserError(f"{what}: give the --root that its grid had")
    return CellImages(stored, library)


# -- what is found


def _agreement(
    stored: StoredClassifier, graph: bytes, scores: pd.DataFrame, images: CellImages
) -> dict[str, int | float]:
    """Compare a graph with the scores of the store, on up to `COMPARED` images."""
    rows = _evenly(scores, COMPARED)
    found, expected = logits_of(session_of(graph), images.evaluated(rows["id"])), _logits(rows)
    point = next(iter(_thresholds(stored, scores)), None)
    return {
        "images": len(rows),
        "largest_difference": float(np.abs(found - expected).max()),
        "different_decisions": int((_decisions(found, point) != _decisions(expected, point)).sum()),
    }


def _small(
    stored: StoredClassifier, graph: bytes, small: bytes, scores: pd.DataFrame, images: CellImages
) -> tuple[dict[str, Any], list[str]]:
    """Describe the quantised graph, with thresholds of its own, and what it costs; and say so."""
    pixels = images.evaluated(scores["id"])
    own = scores.copy()
    own[own.filter(like="logit").columns] = logits_of(session_of(small), pixels)
    is_test = (scores["part"] == "test").to_numpy()
    before, after = scores[is_test], own[is_test]
    change = change_of(before, _logits(before), _logits(after), stored.cell.protocol.ap)
    points = [next(iter(_thresholds(stored, one)), None) for one in (scores, own)]
    decisions = [_decisions(_logits(one), point) for one, point in zip((before, after), points, strict=True)]
    times = milliseconds({"float32": graph, "int8": small}, pixels[0])
    found: dict[str, Any] = {
        **_described(stored, small, own),
        "metric": {"name": "accuracy" if stored.classes else "ap", **change.as_dict()},
        "different_decisions": int((decisions[0] != decisions[1]).sum()),
        "test_images": int(is_test.sum()),
        "milliseconds": times,
    }
    name = "accuracy" if stored.classes else "AP"
    low, high = change.interval
    lines = [
        f"int8: {name} {change.before:.3f} -> {change.after:.3f} (difference {low:+.3f} to {high:+.3f}, 95 % over test "
        f"items); {found['different_decisions']} of {found['test_images']} decisions differ",
        f"int8: {times['float32']:.1f} ms -> {times['int8']:.1f} ms an image here, on one thread",
    ]
    if points[0] and points[1]:
        is_defect = (before["label"] != GOOD).to_numpy()
        recall = [float(one[is_defect].mean()) for one in decisions]
        found["recall"] = {"float32": recall[0], "int8": recall[1]}
        lines.insert(1, f"int8: recall {recall[0]:.3f} -> {recall[1]:.3f}, each at its own threshold")
    if change.falls:
        lines.append(f"warning: int8 costs more {name} than chance explains: use {FLOAT}, or keep {INT8} for its size")
    return found, lines


def _thresholds(stored: StoredClassifier, scores: pd.DataFrame) -> list[Threshold]:
    return [] if stored.classes else thresholds_of(scores, stored.cell.protocol.false_alarm_rate)


def _logits(scores: pd.DataFrame) -> np.ndarray:
    return scores.filter(like="logit").to_numpy()


def _decisions(logits: np.ndarray, threshold: Threshold | None) -> np.ndarray:
    """Return the class of each image; in detection 1 at the threshold, and 0 everywhere without one."""
    if logits.shape[1] > 1:
        return logits.argmax(1)
    return (logits[:, 0].astype(np.float64) >= (threshold.logit if threshold else np.inf)).astype(int)


# -- what is written


def _columns(stored: StoredClassifier) -> list[str]:
    """Name the outputs of the graph, logits first."""
    if stored.classes:
        return [f"{what}_{name}" for what in ("logit", "probability") for name in stored.classes]
    return ["logit", "probability"] if stored.has_probability else ["distance"]


def _described(stored: StoredClassifier, graph: bytes, scores: pd.DataFrame) -> dict[str, Any]:
    """Describe a graph: its file, and the thresholds that follow from its scores."""
    thresholds = [one.as_dict(_columns(stored)[0]) for one in _thresholds(stored, scores)]
    return {
        "bytes": len(graph),
        "sha256": hashlib.sha256(graph).hexdigest(),
        "threshold": thresholds[0] if thresholds else None,
        "thresholds": thresholds,
    }


def _description(stored: StoredClassifier, graphs: dict[str, Any], opset: int) -> dict[str, Any]:
    """Return the content of model.json."""
    cell, protocol = stored.cell, stored.cell.protocol
    size, made_by = geometry(protocol), cell.augmenter.name
    return {
        "augbench": augbench.__version__,
        "key": stored.key,
        "protocol": protocol.name,
        "kind": protocol.kind,
        "backbone": protocol.backbone,
        "task": "recognition" if stored.classes else "detection",
        "classes": list(stored.classes) or ["normal", "defect"],
        "columns": _columns(stored),
        "input": {"name": "images", "type": "uint8", "shape": ["N", size.height, size.width, 3], "colours": "RGB"},
        "prepare": {
            "width": size.width,
            "height": size.height,
            "resample": "bilinear, as Pillow does it",
            "crop": size.crop,
            "resize_first": list(size.first) or None,
            "jpeg_quality": size.quality or None,
        },
        "opset": opset,
        "graphs": graphs,
        "licences": {
            "weights": of_weights(protocol),
            "dataset": f"{cell.data.name}: {of_plugin('datasets', cell.data.name)}",
            **({"augmenter": f"{made_by}: {of_plugin('augmenters', made_by)}"} if cell.n_aug else {}),
        },
    }


def _script(stored: StoredClassifier, description: dict[str, Any]) -> str:
    """Return the text of infer.py, with the steps that its images need and no others."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("augbench", "assets/templates")
    environment = Environment(  # noqa: S701  its text is Python, not HTML
        loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("infer.py.txt").render(
        graphs=list(description["graphs"]),
        rule=description["prepare"],
        columns=description["columns"],
        recognition=bool(stored.classes),
        thresholded=description["graphs"][FLOAT]["threshold"] is not None,
    )


def _size(name: str, graph: bytes) -> str:
    return f"{name}: {len(graph) / 1e6:.1f} MB"


def _threshold_lines(stored: StoredClassifier, described: dict[str, Any]) -> list[str]:
    if stored.classes:
        return []
    if not described["thresholds"]:
        return ["no threshold: its protocol holds no normal training images out"]
    first = described["threshold"]
    low, high = first["interval"]
    return [
        f"threshold {first[_columns(stored)[0]]:.4g}: {first['above']} of {first['heldout_images']} held-out normal "
        f"images above it, so {100 * low:.1f} to {100 * high:.1f} % false positives (95 %); "
        f"{len(described['thresholds'])} thresholds in model.json"
    ]
