"""`augbench export`: the classifier of a cell as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augbench.cli.options import RootOption


def export(
    store: Annotated[str, typer.Argument(help="The store of the cell: a folder or a URL.")],
    cell: Annotated[str, typer.Argument(help="The key of a cell, or a prefix of it.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="A new or an empty folder. Default: its key.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write a graph quantised to int8 too, and compare both.")
    ] = False,
    opset: Annotated[
        int, typer.Option("--opset", min=18, max=99, metavar="N", help="Version of ONNX's operators.")
    ] = 18,
    roots: RootOption = None,
) -> None:
    """Export a trained classifier: an ONNX graph, model.json with its thresholds, and infer.py, which runs it.

    Its grid needs `save_weights: last`. The graph takes images N,H,W,3 uint8 and gives logits and probabilities.

    Example: augbench run tune_configs/first_look.yaml --set save_weights=last --store runs/kept --executor inline &&
    augbench export runs/kept surfaces-none-few5- --out runs/classifier
    """
    from augbench.export.cell import export_cell
    from augbench.storage.store import Store

    for line in export_cell(Store(store), cell, out, roots or (), int8, opset):
        typer.echo(line)
