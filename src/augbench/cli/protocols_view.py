"""Output of `augbench protocols`: the presets, and the settings of a preset with their sources."""

from __future__ import annotations

import textwrap
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from augbench.core.protocol import READ_BY, SWITCHES, Protocol, load_preset, preset_names
from augbench.report.sheet import WIDTH, Sheet

GROUPS = {
    "image": ("width", "height", "crop", "resize_first", "harmonise", "roundtrip", "mean", "std", "flip"),
    "classifier": ("kind", "backbone", "weights", "precision", "synthetic_weight", "shuffle_labels"),
    "fine-tuning": (
        "optimiser",
        "lr",
        "momentum",
        "weight_decay",
        "schedule",
        "batch",
        "epochs",
        "sampler",
        "epoch_pictures",
        "budget",
        "class_weights",
        "batchnorm",
        "gradients",
        "labels",
        "threads_per_cell",
    ),
    "probe": ("head", "C", "normality"),
    "evaluation": ("test_share", "eval_batch", "eval_every", "ap", "ap_beside", "holdout", "false_alarm_rate"),
}
"""The fields of a protocol by group."""


def protocols_sheet() -> Sheet:
    """Return a table of the presets."""
    rows = []
    for name in preset_names():
        p = load_preset(name)
        holdout = f"{100 * p.holdout:g} %" if p.holdout else "none"
        rows.append((name, f"{p.width} x {p.height}", f"{p.backbone} ({p.weights})", _training(p), p.ap, holdout))
    return Sheet.of(["protocol", "size", "backbone", "training", "AP", "hold-out"], [], rows)


def _training(protocol: Protocol) -> str:
    """Return the most important settings of the classifier, on one line."""
    if protocol.kind == "finetune":
        optimiser = f"{protocol.optimiser} {protocol.lr:g}"
        return f"{optimiser}, batch {protocol.batch}, {protocol.epochs} epochs, {protocol.sampler}"
    if protocol.normals_only:
        return f"{protocol.kind}: normal images only"
    weight, normality = protocol.synthetic_weight, ", normality" * protocol.normality
    weight = f"{weight:g}" if isinstance(weight, float) else weight
    return f"probe: {protocol.head}, C {protocol.C}, synthetic weight {weight}{normality}"


def show_protocol(name: str, console: Console) -> None:
    """Print a preset: every field with its value and source; then the values of each switch.

    Raises:
        UserError: there is no such preset.
    """
    protocol = load_preset(name)
    console.print(f"[bold]{name}[/]", highlight=False)
    for line in textwrap.wrap(protocol.about, min(console.width, WIDTH)):
        console.print(escape(line), highlight=False)
    if protocol.superseded_by:
        console.print(f"Superseded by {protocol.superseded_by}; kept for what was made with it.", highlight=False)
    console.print(_fields(protocol, min(console.width, WIDTH)))
    console.print(_switches(protocol, min(console.width, WIDTH)))


def _fields(protocol: Protocol, width: int) -> Table:
    table = Table(*("", "value", "source"), box=box.SIMPLE_HEAD, width=width)
    read = {group: [field for field in fields if field in READ_BY[protocol.kind]] for group, fields in GROUPS.items()}
    for group, fields in read.items():
        if fields:
            table.add_row(f"[bold]{group}[/]")
        before = ""
        for field in fields:
            source = "see below" if field == "kind" else protocol.source_of(field) or "no source"
            text = "same" if source == before else escape(source)
            table.add_row(f"  {field}", escape(_text(protocol, field)), text, end_section=field == fields[-1])
            before = source
    return table


def _text(protocol: Protocol, field: str) -> str:
    value: Any = getattr(protocol, field)
    if value is None and field == "epoch_pictures":
        return "all" if protocol.sampler == "shuffle" else "2 x positives"
    if field == "resize_first":
        return f"{value[0]} x {value[1]}" if value else "no"
    if value in (None, "") and field in ("ap_beside", "harmonise", "roundtrip"):
        return "none"
    if value is None:
        return "official split, or folds"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"{number:g}" for number in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _switches(protocol: Protocol, width: int) -> Table:
    """Return a table of all values of each switch; an arrow marks the value of this protocol."""
    table = Table(*("switch", "value", "what it does"), box=box.SIMPLE_HEAD, width=width)
    for field in (field for field in SWITCHES if field in READ_BY[protocol.kind]):
        meanings, chosen = SWITCHES[field], getattr(protocol, field)
        for number, (value, meaning) in enumerate(meanings.items(), 1):
            arrow = "> " if value == chosen or (value == "NUMBER" and isinstance(chosen, float)) else "  "
            table.add_row("" if number > 1 else field, arrow + value, meaning, end_section=number == len(meanings))
    return table
