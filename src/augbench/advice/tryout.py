"""`augbench try`: from a folder of images to an answer, within a budget of time."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.console import Console

from augbench.advice.decide import Advice, as_dict, decide, difference, sentences
from augbench.advice.design import (
    ALIKE,
    DIFFUSION,
    N_AUG,
    Design,
    Speed,
    choose,
    confirm_grid,
    diffusion,
    diffusion_grid,
    free_grid,
    full_grid,
    pilot_grid,
    preview_grid,
)
from augbench.advice.operating import Operation, Production, operate
from augbench.advice.page import Found, write_page
from augbench.advice.table import table_of
from augbench.advice.understand import Understood, understand
from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.diffusion.pipelines import at_hand
from augbench.metrics.resampling import Interval
from augbench.planning.grid import Grid, load_grid
from augbench.planning.plan import Plan, make_plan
from augbench.report.evidence.build import build_evidence
from augbench.report.evidence.part_costs import read_costs
from augbench.report.frame import load_expected, load_records
from augbench.report.render.shown import Shown
from augbench.report.sheet import Section
from augbench.report.table_notes import plural
from augbench.runner.driver import Executor, Stopped, Summary
from augbench.runner.driver import run as run_grid
from augbench.storage.files import write_atomic
from augbench.storage.store import Store

IMAGES, PLAN, ADVICE, PAGE = "images.csv", "plan.json", "advice.json", "index.html"
PILOT, TIMING, FREE, FULL, PREVIEW, CONFIRM = "pilot", "timing", "free", "try", "preview", "confirm"
"""The grids, of which each is also a file."""

STABLE_DIFFUSION = "sd15"  # the pipeline that is compared where a GPU is
DIFFUSION_FROM = 3600.0  # seconds of the budget: only to time a model that is fine-tuned first takes a part of an hour
PER_SECOND = 5.0  # images of a folder per second of the budget, at most; the rest of the budget is for synthetic ones


@dataclass(frozen=True, repr=False)
class Answer(Shown):
    """What `try_folder` found out."""

    understood: Understood
    design: Design
    advice: Advice
    operation: Operation | None
    out: Path
    confirmed: str  # what fine-tuning says of the recommendation, or how to find out; "" without one

    @property
    def sentences(self) -> list[str]:
        """What to do, why, and what else helps."""
        more = self.operation.sentences() if self.operation else ()
        return [*sentences(self.advice), *([self.confirmed] if self.confirmed else []), *more]

    @property
    def sections(self) -> list[Section]:
        """The sentences, and the table of all that was compared."""
        name = self.understood.name
        return [Section(name, sentences=self.sentences, sheets=[table_of(self.advice, name)])]

    @property
    def page(self) -> Path:
        """The page with the answer, its numbers and images."""
        return self.out / PAGE


def try_folder(
    folder: Path,
    out: Path,
    budget: float = 900.0,
    good: str | None = None,
    group: str | None = None,
    bundle: str | None = None,
    executor: Executor = "ray",
    console: Console | None = None,
    production: Production | None = None,
) -> Answer:
    """Find out which way of making synthetic defects helps on the images of a folder.

    A pilot measures speed and spread; then as much is run as the budget allows, see `advice.design`. What is done is in
    ``out/store``: the same call goes on where an earlier one was stopped.

    Args:
        folder: the images, see `advice.understand`.
        out: where everything is written.
        budget: seconds that this may take.
        good: the class of normal images, where its name does not tell.
        group: a regular expression for file names, whose part in brackets names the item.
        bundle: also compare DDPM with this diffusion pipeline, whatever time it takes. None: where a GPU and the
            weights of Stable Diffusion are on this machine, in budgets from an hour, if there is time for it.
        executor: "ray", or "inline" for this process only.
        console: where progress is printed.
        production: what is stated about the parts that will be inspected.

    Raises:
        UserError: the folder cannot be used, or there is too little in it.
        Stopped: by the user, or by failures.
    """
    started = time.monotonic()
    console = console or Console()
    if out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    if out.resolve().is_relative_to(folder.expanduser().resolve()):
        raise UserError(f"--out '{out}' lies in the folder of the images, which stays as it is: give another")

    def say(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with console.status(f"reading {folder}"):
        understood = understand(folder, out / IMAGES, good, group, int(PER_SECOND * budget))
    for what, text in understood.lines():
        say(f"{what:<9} {text}")
    say()
    store = Store(out / "store")
    dataset = {"name": "folder", "as": understood.name, "settings": understood.settings(out / IMAGES)}

    def run(content: Mapping[str, Any], how: Executor) -> Summary:
        summary = run_grid(_written(out, content), store, executor=how, console=console)
        if summary.interrupted or summary.failures:
            raise Stopped(summary, store)
        return summary

    pipeline = bundle or _for_this_machine(budget, say)
    terms = [one.name for one in fields(Design)]  # those of an earlier version are planned again
    asked = digest([(out / IMAGES).read_text(encoding="utf-8"), budget, good, group, pipeline, terms])
    design = _planned(out, asked)
    if design is None:
        say("A pilot first, to see how long things take and what differences can be told from chance.")
        run(pilot_grid(PILOT, dataset, understood.folds), executor)
        speed = _speed(store, make_plan(load_grid(out / f"{PILOT}.yaml"), store), executor)
        if pipeline:
            run(diffusion_grid(TIMING, dataset, pipeline), executor)
            speed = _with_diffusion(speed, store, make_plan(load_grid(out / f"{TIMING}.yaml"), store))
        left = budget - (time.monotonic() - started)
        design = choose(understood, speed, _spread(store), left, wanted=bundle is not None)
        content = {"asked": asked, "design": design.as_dict()}
        write_atomic(out / PLAN, json.dumps(content, indent=1).encode())
        spent = time.monotonic() - started
        say(f"{spent:.0f} s of {budget:.0f} are spent; the rest takes about {design.seconds:.0f} s.")
    say(design.sentence(understood))
    more = [diffusion(pipeline)] if pipeline and DIFFUSION in design.augmenters else []
    for line in _plan_lines(design):
        say(line)
    run(full_grid(FULL, dataset, understood.folds, design, more), executor)
    run(free_grid(FREE, dataset, understood.folds), "inline")
    previewed = {}
    if drawn := [name for name in design.dropped if name != DIFFUSION]:
        run(preview_grid(PREVIEW, dataset, drawn), "inline")
        expected = load_expected(store, PREVIEW)
        previewed = dict(zip(expected["augmenter"], expected["key"], strict=True))
    with console.status("comparing"):
        advice = decide(store, FULL, FREE)
        operation = operate(store, advice, understood, production or Production())

    def answered(confirmed: str = "") -> Answer:
        answer = Answer(understood, design, advice, operation, out, confirmed)
        content = {"understood": dict(understood.lines()), "design": design.as_dict(), **as_dict(advice)}
        content |= {"sentences": answer.sentences, "operation": operation.as_dict() if operation else None}
        write_atomic(out / ADVICE, json.dumps(content, indent=1).encode())
        sources = store, out / f"{FULL}.yaml", previewed
        with console.status("making the page"):
            write_page(out / PAGE, Found(understood, design, advice, operation, answer.sentences, *sources))
        return answer

    if not advice.recommended:
        return answered()
    grid = confirm_grid(CONFIRM, dataset, understood.folds, advice.recommended.augmenter, more)
    if design.confirming > budget - (time.monotonic() - started):
        return answered(_unconfirmed(out, _written(out, grid), design))
    answered()  # fine-tuning takes minutes, and may be stopped
    run(grid, executor)
    return answered(_confirmed(store))


def seconds_of(budget: str) -> float:
    """Convert ``90s``, ``15m`` or ``2h`` to seconds. Raises UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", budget.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise UserError(f"--budget '{budget}': write 90s, 15m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2].lower()]


def _confirmed(store: Store) -> str:
    """Say what the fine-tuned classifiers gain."""
    expected = load_expected(store, CONFIRM)
    (found,) = build_evidence(store, expected, load_records(store, expected["key"]))
    one = found.against[0]
    return f"Fine-tuned, {one.augmenter} gives {difference(one)} AP: {one.verdict}."


def _unconfirmed(out: Path, grid: Grid, design: Design) -> str:
    return (
        f"That is for a classifier on frozen features; fine-tuned ones take about {design.confirming / 60:.0f} minutes "
        f"more: augbench run {out / grid.name}.yaml --store {out / 'store'} --verdicts"
    )


def _written(out: Path, content: Mapping[str, Any]) -> Grid:
    """Write a grid to a file, for the user to change, and read it as `augbench run` does."""
    path = out / f"{content['name']}.yaml"
    fields = {key: value for key, value in content.items() if key != "name"}
    write_atomic(path, yaml.safe_dump(fields, sort_keys=False, allow_unicode=True).encode())
    return load_grid(path)


def _planned(out: Path, asked: str) -> Design | None:
    """Return the design of an earlier call with the same images and options, so that it is the same."""
    try:
        content = json.loads((out / PLAN).read_text(encoding="utf-8"))
        if content["asked"] != asked:
            return None
        return Design(**{k: tuple(v) if isinstance(v, list) else v for k, v in content["design"].items()})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{out / PLAN}' is damaged ({error}): remove it, and it is made anew") from None


def _speed(store: Store, pilot: Plan, executor: Executor) -> Speed:
    """Return how long things take, as the pilot recorded it: medians, as the first of each loads libraries."""
    workers = 1 if executor == "inline" else os.cpu_count() or 1
    features = [
        store.parsed(store.chunk_provenance_name(spec, chunk))
        for key, spec in pilot.features.items()
        for chunk in range(pilot.feature_chunks[key])
    ]
    pools = [part for key, part in read_costs(store).items() if key in pilot.pools]
    read = median(one["seconds"] / one["pictures"] for one in features)
    made = median(part.seconds_per_image or 0.0 for part in pools)
    training = median(load_records(store, [cell.key for cell in pilot.cells])["seconds"])
    return Speed((read + made) / workers, read / workers, training / workers)


def _for_this_machine(budget: float, say: Callable[[str], None]) -> str | None:
    """Return the pipeline to compare where nobody asked for one: only a GPU makes enough images in the time."""
    import torch

    if budget < DIFFUSION_FROM or not torch.cuda.is_available():
        return None
    if at_hand(STABLE_DIFFUSION):
        return STABLE_DIFFUSION
    way = f"--diffusion {STABLE_DIFFUSION} downloads them and compares DDPM, too"
    say(f"There is a GPU, but not the weights of Stable Diffusion: {way}.")
    return None


def _with_diffusion(speed: Speed, store: Store, timing: Plan) -> Speed:
    """Add how long the diffusion model takes: its workers share a GPU, or the processor, as a whole."""
    costs = read_costs(store)
    (pool,), adapters = (
        [part for key, part in costs.items() if key in keys] for keys in (timing.pools, timing.adapters)
    )
    image = (pool.seconds_per_image or 0.0) + speed.features
    return replace(speed, diffusion=image, adapting=sum(part.seconds or 0.0 for part in adapters))


def _spread(store: Store) -> Interval:
    """Return the paired difference of the pilot: MemSeg, counted like real defects, minus none."""
    expected = load_expected(store, PILOT)
    found = build_evidence(store, expected[expected["protocol"] == ALIKE], load_records(store, expected["key"]))
    return found[0].against[0].alone


def _plan_lines(design: Design) -> list[str]:
    names = ("none", *design.augmenters)
    lines = [
        f"Compared: {', '.join(names)}; {N_AUG} images of each, {plural(design.pools, 'pool')}, "
        "counted like real defects and less."
    ]
    if design.dropped:
        lines.append(f"Left out for lack of time: {', '.join(design.dropped)}; a larger --budget includes them.")
    if design.over_budget:
        lines.append("That takes longer than the budget: less would say nothing.")
    return lines
