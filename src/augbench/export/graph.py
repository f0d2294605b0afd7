"""ONNX graphs: make one of a torch module, and run it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from augbench.core.errors import UserError
from augbench.core.temporary import log_levels

if TYPE_CHECKING:
    import onnxruntime
    import torch

INPUT = "images"
OUTPUTS = ("logits", "probability")
OPSET = 18
"""The default version of the operators: the first that torch writes."""
BATCH = 32


def require_packages() -> None:
    """Raise UserError if a package that makes or runs graphs is not installed."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise UserError(f"{missing[0]} is not installed, which exporting needs: pip install 'augbench[onnx]'")


def to_onnx(module: torch.nn.Module, height: int, width: int, opset: int = OPSET) -> bytes:
    """Return the graph of a module: ``images`` N,height,width,3 uint8, of any N, to its one or two `OUTPUTS`.

    Raises:
        UserError: an operator of the module has no ONNX form, or there is no such opset.
    """
    import torch

    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with torch.inference_mode():
        outputs = OUTPUTS[: len(module(example))]
    loggers = ("torch.onnx", "torch.onnx._internal.exporter._core", "onnxscript")
    with warnings.catch_warnings(), log_levels(50, *loggers):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                opset_version=opset,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise UserError(f"this classifier has no ONNX graph ({_reason(error)}): export another backbone") from error
    assert program is not None
    found = program.model_proto
    written = next(one.version for one in found.opset_import if one.domain in ("", "ai.onnx"))
    if written != opset:
        raise UserError(f"--opset {opset}: the graph cannot be written in it, only in {written}: leave --opset out")
    return found.SerializeToString()


def _reason(error: BaseException) -> str:
    """Name the operator that has no ONNX form, or give the first line of the innermost error."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for one in chain:
        if found := re.search(r"No ONNX function found for .*?op='([\w.]+)'", str(one)):
            return f"operator {found[1]} is not supported"
    return str(chain[-1]).strip().splitlines()[0][:200]


def session_of(graph: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """Load a graph for the CPU.

    Raises:
        UserError: this ONNX Runtime does not run it.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, NotImplemented

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidGraph, NotImplemented) as error:
        line = str(error).splitlines()[0][:200]
        raise UserError(f"ONNX Runtime {onnxruntime.__version__} does not run the graph: {line}") from None


def logits_of(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    """Return logits N,K float32 of images N,H,W,3 uint8."""
    parts: Sequence[np.ndarray] = [
        session.run(OUTPUTS[:1], {INPUT: images[start : start + BATCH]})[0] for start in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts)
