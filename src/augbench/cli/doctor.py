"""`augbench doctor`: what of this machine a run can use, and what would stop a grid."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from augbench.cli.options import RootOption, SetOption, StoreOption, store_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from augbench.core.contracts import Dataset
    from augbench.planning.grid import Grid
    from augbench.planning.plan import Plan
    from augbench.runner.resources import Node
    from augbench.stages.preflight import Check
    from augbench.storage.store import Store

FORMAT = 1
"""Version of the JSON object; raised when a field changes its meaning."""
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # variables that keep Hugging Face's libraries off the network
HUB_SECONDS = 3
FREE_GB = 5  # below it a disk is noted as nearly full
NAMES = 24  # columns of a terminal for what a line is about; longer names are folded
STYLE = {"ok": "green", "note": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line: ``problem`` stops a run, ``note`` may matter; the text of both ends with the way out."""

    level: Literal["ok", "note", "problem"]
    what: str
    text: str


def doctor(
    grid: Annotated[Path | None, typer.Argument(metavar="[GRID]", help="Check what this grid file needs.")] = None,
    changes: SetOption = None,
    roots: RootOption = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check packages, GPUs, Ray, weights, datasets, the hub and the store; with GRID, all that it needs.

    Downloads nothing. Exit status 2: a problem would stop the run.

    Example: augbench doctor
    """
    import json

    from augbench.core.errors import UserError
    from augbench.planning.grid import load_grid
    from augbench.planning.library import with_roots

    if (changes or roots) and grid is None:
        raise UserError("--set and --root are for the datasets of a grid file: give a grid file too")
    loaded = load_grid(grid, with_roots(grid, changes, roots)) if grid is not None else None
    offline = [name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports Hugging Face's libraries: checks must not download
    findings = list(examine(loaded, store, offline))
    if as_json:
        found = {"format": FORMAT, "grid": loaded and loaded.name, "findings": [asdict(one) for one in findings]}
        typer.echo(json.dumps(found, sort_keys=True))
    else:
        from augbench.report.render.terminal import standard_output

        standard_output().print(_table(findings))
    if any(one.level == "problem" for one in findings):
        raise typer.Exit(2)


def examine(grid: Grid | None, store: str | None, offline: Iterable[str]) -> Iterator[Finding]:
    """Yield what is found on this machine, and on the cluster of RAY_ADDRESS.

    Args:
        grid: what is meant to run; None: look at everything that augbench knows.
        store: as ``--store``.
        offline: variables that forbid Hugging Face's libraries to use the network.
    """
    from augbench.core.errors import UserError
    from augbench.planning.plan import make_plan

    packages = list(_packages())
    yield from packages
    if any(one.level == "problem" for one in packages):
        return  # whatever follows may need them
    yield _gpus()
    yield from _folders()
    hub = _hub(offline)
    yield hub
    try:
        if grid is None and store is None:
            yield _disk(Path("runs"))  # the folder of all stores
            plan = None
        else:
            target = store_of(store, grid.base if grid else "")
            yield _store(target)
            plan = make_plan(grid, target if target.exists() else None) if grid else None
    except UserError as error:
        yield Finding("problem", f"grid {grid.name}" if grid else "store", str(error))
        return
    nodes, ray = _ray(start=plan is not None)
    yield ray
    if plan is None:
        yield from _known_datasets()
        yield from _known_weights(hub)
    else:
        yield from _planned(plan, nodes, hub)


def _table(findings: Iterable[Finding]) -> RenderableType:
    """Render the findings, a row each; long texts are folded beside their name."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold", max_width=NAMES)
    table.add_column(overflow="fold")
    for one in findings:
        table.add_row(Text(one.level, STYLE[one.level]), Text(one.what), Text(one.text))
    return table


# -- the machine


def _packages() -> Iterator[Finding]:
    """Compare the installed packages with those that augbench requires; in a checkout, also with its constraints."""
    import platform
    from importlib import metadata

    from packaging.requirements import Requirement

    import augbench
    from augbench.stages.provenance import PACKAGES

    yield Finding("ok", "augbench", f"{augbench.__version__}, Python {platform.python_version()}")
    installed: dict[str, str] = {}
    for required in map(Requirement, metadata.requires("augbench") or ()):
        if required.marker and not required.marker.evaluate({"extra": ""}):
            continue
        try:
            installed[required.name] = version = metadata.version(required.name)
        except metadata.PackageNotFoundError:
            yield Finding("problem", required.name, f"is not installed: pip install '{required}'")
            continue
        if not required.specifier.contains(version, prereleases=True):
            yield Finding("problem", required.name, f"{version} is not {required.specifier}: pip install '{required}'")
    constraints = Path(augbench.__file__).parents[2] / "constraints.txt"
    lines = constraints.read_text(encoding="utf-8").splitlines() if constraints.is_file() else []
    pins = dict(line.split("==") for line in lines if "==" in line)
    if other := [f"{name} {version}" for name, version in installed.items() if pins.get(name, version) != version]:
        way = f"pip install -c {constraints} -e {constraints.parent}"
        yield Finding("note", "constraints", f"augbench is tested with other versions of {', '.join(other)}: {way}")
    main = ", ".join(f"{name} {installed[name]}" for name in PACKAGES if name in installed)
    yield Finding("ok", "packages", f"{main}, and {len(installed.keys() - set(PACKAGES))} more")


def _gpus() -> Finding:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        way = "see that its driver works (nvidia-smi)" if built else "install a build of PyTorch for it"
        return Finding(
            "note", "GPUs", f"none: everything runs on {os.cpu_count()} CPUs; if this machine has one, {way}"
        )
    texts = []
    for number in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(number))
        texts.append(f"{torch.cuda.get_device_name(number)}, {free:.1f} of {total:.1f} GiB free")
    return Finding("ok", "GPUs", "; ".join(texts))


def _folders() -> Iterator[Finding]:
    """Yield whether there is a token, and where weights and datasets are searched. The token itself is not shown."""
    from huggingface_hub import constants, get_token
    from torch import hub

    from augbench.planning.library import DATA_VARIABLE

    none = "none; only gated repositories need one: set HF_TOKEN, or `hf auth login`"
    yield Finding("ok", "HF token", "present") if get_token() else Finding("note", "HF token", none)
    for what, variable, folder in (
        ("HF cache", "HF_HOME", constants.HF_HUB_CACHE),
        ("torch cache", "TORCH_HOME", hub.get_dir()),
    ):
        if os.access(_existing(Path(folder)), os.W_OK):
            yield Finding("ok", what, folder if Path(folder).is_dir() else f"{folder}, not made yet")
        else:
            yield Finding("note", what, f"'{folder}' cannot be written: set {variable} to a folder that can")
    base = os.environ.get(DATA_VARIABLE)
    if not base:
        yield Finding("note", DATA_VARIABLE, "not set: datasets need a root each (--root NAME=DIR)")
    elif not Path(base).is_dir():
        yield Finding("note", DATA_VARIABLE, f"'{base}' is not a folder: set it to the folder of the datasets")
    else:
        yield Finding("ok", DATA_VARIABLE, base)


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def _hub(offline: Iterable[str]) -> Finding:
    """Ask Hugging Face's hub for an answer, whatever it is, for at most `HUB_SECONDS`."""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    for name in offline:
        return Finding("note", "hub", f"not asked, since {name} is set: what is not in the cache cannot be downloaded")
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=HUB_SECONDS).close()  # noqa: S310 - https, or what HF_ENDPOINT says
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        return Finding("note", "hub", f"{constants.ENDPOINT} does not answer ({why}): see your network and HF_ENDPOINT")
    return Finding("ok", "hub", f"{constants.ENDPOINT} answers")


def _store(store: Store) -> Finding:
    """Say whether a store can be written to. Raises UserError where it is none."""
    store.require_writable()
    return Finding("ok", "store", f"{store.url} answers") if store.files.folder is None else _disk(store.files.folder)


def _disk(folder: Path) -> Finding:
    """Say how much fits into a folder."""
    import shutil

    above = _existing(folder)
    free = shutil.disk_usage(above).free / 1e9
    if not os.access(above, os.W_OK):
        return Finding("problem", "store", f"'{above}' cannot be written: give --store another folder")
    text = f"{folder}, {free:,.1f} GB free"
    return Finding("ok", "store", text) if free >= FREE_GB else Finding("note", "store", f"{text}: make room")


def _ray(start: bool) -> tuple[list[Node], Finding]:
    """Join the cluster of RAY_ADDRESS; without it, ``start`` Ray here, as a run would."""
    from augbench.core.errors import UserError
    from augbench.runner.driver import nodes_at

    address = os.environ.get("RAY_ADDRESS")
    if not (address or start):
        return [], Finding("ok", "Ray", "RAY_ADDRESS is not set: a run starts Ray on this machine")
    try:
        nodes = nodes_at(None)
    except UserError as error:
        return [], Finding("problem", "Ray", str(error))
    where = f"cluster at '{address}', machines: {len(nodes)}" if address else "starts on this machine"
    cpus, gpus = (sum(getattr(node, kind) for node in nodes) for kind in ("cpus", "gpus"))
    return nodes, Finding("ok", "Ray", f"{where}; CPUs: {cpus:g}, GPUs: {gpus:g}")


# -- what a grid needs


def _planned(plan: Plan, nodes: list[Node], hub: Finding) -> Iterator[Finding]:
    """Yield what a plan needs: a place for its workers, its datasets, its weights."""
    from augbench.core.errors import UserError
    from augbench.runner.resources import allot
    from augbench.stages.preflight import needs

    what = f"grid {plan.grid.name}"
    yield Finding("ok", what, f"{len(plan.cells):,} trainings, {plan.images:,} images to generate")
    for name, reason in plan.not_runnable.items():
        yield Finding("problem", f"augmenter {name}", reason)
    try:
        if nodes:
            train = allot(plan, nodes).train
            yield Finding("ok", "workers", f"{train.workers} trainings at a time, each with {train}")
    except UserError as error:
        yield Finding("problem", "workers", str(error))
    for label in plan.library.settings:
        yield _dataset(f"dataset {label}", plan.library.dataset(label), "problem")
    for name, check in needs(plan):
        yield _weights(name, check, hub, "problem")


def _known_datasets() -> Iterator[Finding]:
    """Yield every dataset with default settings, and where it is."""
    from augbench.core import registry
    from augbench.core.errors import UserError
    from augbench.planning.library import open_dataset

    for name, problem in registry.broken("datasets").items():
        yield Finding("note", f"dataset {name}", str(problem))
    for name in sorted(registry.find("datasets")):
        try:
            yield _dataset(f"dataset {name}", open_dataset(name, {}), "note")
        except UserError as error:
            yield Finding("note", f"dataset {name}", str(error))


def _dataset(what: str, dataset: Dataset, missing: Literal["note", "problem"]) -> Finding:
    """Say where the files of a dataset are, or where to put them."""
    from augbench.core.errors import UserError

    if dataset.embedded:
        return Finding("ok", what, "comes with augbench")
    try:
        return Finding("ok", what, f"found at {dataset.root()}")
    except UserError as error:
        return Finding(missing, what, str(error))


def _known_weights(hub: Finding) -> Iterator[Finding]:
    """Yield the pipelines known by name, and the pretrained backbones of presets."""
    from functools import partial

    from augbench.diffusion.pipelines import BUNDLES, fetch
    from augbench.stages.preflight import pretrained_backbones

    for name, source in BUNDLES.items():
        yield _weights(f"pipeline {name}", partial(fetch, source), hub, "note")
    for name, check in pretrained_backbones():
        yield _weights(name, check, hub, "note")


def _weights(what: str, check: Check, hub: Finding, missing: Literal["note", "problem"]) -> Finding:
    """Run the check that a run would run, without its download."""
    from augbench.core.errors import UserError, WeightsError

    try:
        check()
    except WeightsError as error:
        if hub.level == "ok":
            return Finding("note", what, "not on this machine yet: a run downloads it")
        return Finding(missing, what, str(error))
    except UserError as error:
        return Finding(missing, what, str(error))
    return Finding("ok", what, "at hand")
