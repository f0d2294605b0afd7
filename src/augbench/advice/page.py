"""The page of `augbench try`: one self-contained file with the answer, the numbers behind it, and images."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augbench.advice.decide import Advice, Option, ap_text
from augbench.advice.design import Design
from augbench.advice.operating import DefectClass, Operation, Point, Share, number_text, percent
from augbench.advice.table import options_of, table_of
from augbench.advice.understand import Understood
from augbench.core.contracts import GOOD
from augbench.core.specs import DataSpec, PoolSpec
from augbench.report import plots
from augbench.report.evidence.sheets import worth_sentences
from augbench.report.leaderboard.gallery import COLUMNS, real_rows, synthetic
from augbench.report.leaderboard.misclassified import beyond, by_image
from augbench.report.leaderboard.sources import OpenDataset, Pool, Thumbs
from augbench.report.numbers import share
from augbench.report.render.self_contained import asset, render_page
from augbench.report.table_notes import plural
from augbench.storage.files import write_atomic
from augbench.storage.store import Store

SIDE = 288  # pixels of the longer side of an image
EACH = {"missed": 18, "found": 9, "false alarms": 9}  # images of each strip, at most
SPAN = 200  # units that an interval is drawn in
CURVE = 480, 280  # points


@dataclass(frozen=True)
class Found:
    """What the page prints."""

    understood: Understood
    design: Design
    advice: Advice
    operation: Operation | None
    sentences: list[str]
    store: Store
    grid: Path  # that the answer comes from
    previewed: dict[str, str]  # augmenter that was left out for lack of time -> a cell that has some of its images


def commands(grid: Path) -> list[tuple[str, str]]:
    """Return the commands to go on with: (what for, command)."""
    file, store, results = (shlex.quote(str(path)) for path in (grid, grid.parent / "store", grid.parent / "results"))
    return [
        ("Change the grid and run it; what is done is not repeated", f"augbench run {file} --store {store}"),
        ("Say which differences are more than chance", f"augbench compare {store} --grid {grid.stem}"),
        ("Take the results out of the store, without images", f"augbench results export {store} --out {results}"),
    ]


def write_page(path: Path, found: Found) -> None:
    """Write the page. Names of files and classes are escaped by the template.

    Raises:
        UserError: an image cannot be read any more.
    """
    thumbs = Thumbs(SIDE)
    source = _source(found)
    page = render_page(
        "advice/page.html",
        asset("advice/style.css"),
        title=f"augbench try: {found.understood.name}",
        answer=found.sentences[0],
        sentences=found.sentences[1:],
        facts=_facts(found),
        understood=list(found.understood.lines()),
        expected=found.design.sentence(found.understood),
        table=table_of(found.advice, found.understood.name),
        gains=_gains(found.advice),
        dropped=found.design.dropped,
        points=_points(found.operation),
        operation=found.operation,
        classes=[_class(one) for one in found.operation.classes] if found.operation else [],
        strips=list(_strips(found.operation, source, thumbs)) if found.operation else [],
        previews=[*real_rows(source, thumbs, outlined=True), *_synthetic_rows(found, thumbs)],
        curve=_curve(found),
        worths=worth_sentences(found.advice.worths.values()),
        commands=commands(found.grid),
        grid=found.grid.name,
        yaml=found.grid.read_text(encoding="utf-8"),
        urls={image["id"]: image["url"] for image in thumbs.library},
        span=SPAN,
    )
    write_atomic(path, page)


def _facts(found: Found) -> dict[str, str]:
    defects = len(found.understood.table) - found.understood.normal
    return {
        "images with a defect": f"{defects:,}",
        "normal images": f"{found.understood.normal:,}",
        f"AP, {found.advice.none.name[0]}": ap_text(found.advice.none),
        "smallest gain that would show": share(found.design.smallest),
    }


def _source(found: Found) -> OpenDataset:
    """Open the folder as the dataset of the run."""
    spec = DataSpec.from_dict(_spec(found.store, found.advice.none)["data"])
    csv = found.grid.parent / spec.settings["csv"]
    return OpenDataset(found.understood.name, spec, found.understood.settings(csv))


def _record(store: Store, option: Option) -> dict[str, Any]:
    """Return the record of an option's first cell: the first fold and seed."""
    return store.read_record(option.keys[0])


def _spec(store: Store, option: Option) -> dict[str, Any]:
    return _record(store, option)["spec"]


# -- numbers


def _gains(advice: Advice) -> list[dict[str, float] | None]:
    """Place the gain of each option, with its interval, between 0 and `SPAN`; None where there is no gain."""
    gains = [option.gain.together if option.gain else None for option in options_of(advice)]
    known = [gain for gain in gains if gain]
    low, high = min([0.0, *(gain.low for gain in known)]), max([0.0, *(gain.high for gain in known)])

    def place(value: float) -> float:
        return round(6 + (SPAN - 12) * (value - low) / ((high - low) or 1), 1)

    return [
        {"low": place(gain.low), "high": place(gain.high), "at": place(gain.estimate), "zero": place(0)}
        if gain
        else None
        for gain in gains
    ]


def _points(operation: Operation | None) -> list[dict[str, Any]]:
    return [_point(operation, point) for point in operation.points] if operation else []


def _point(operation: Operation, point: Point) -> dict[str, Any]:
    found = point.recall
    return {
        "option": point.option,
        "where": point.where,
        "lowest": "" if point.rate else percent(point.lowest),
        "is_cheapest": point is operation.cheapest,
        "recall": share_text(found),
        "misses": operation.misses_text(point).partition(" ")[::2],
        "rate": share_text(point.false_positives),
        "alarms": operation.alarms_text(point).partition(" ")[::2],
        "cost": "" if operation.costs is None else number_text(operation.cost(point)),
    }


def share_text(one: Share) -> str:
    """Format a share with its interval and what it is of: ``70 % (52 to 84) of 40``."""
    low, high = (percent(value).removesuffix(" %") for value in (one.low, one.high))
    return f"{percent(one.value)} ({low} to {high}) of {one.images:,}"


def _class(one: DefectClass) -> dict[str, Any]:
    places = {name: round(SPAN * getattr(one.recall, name), 1) for name in ("low", "value", "high")}
    return {"name": one.name, "images": f"{one.images:,}", "recall": share_text(one.recall), **places}


def _curve(found: Found) -> dict[str, Any] | None:
    """Plot AP over the number of real defects to train on, and mark where the folder stands; None without steps."""
    advice = found.advice
    fewer = advice.of_kind("fewer")
    if not fewer:
        return None
    today = _record(found.store, advice.none)["result"]["counts"]["shots"]
    steps = [*((int(option.shots), option) for option in fewer), (today, advice.none)]
    with plots.theme():
        axes = plots.figure(*CURVE).subplots()
        axes.set(title="AP over real defects", xlabel="real defects to train on", ylabel="AP", ylim=(0, 1.02))
        x = [number for number, _ in steps]
        spans = [option.evidence.intervals["ap"] for _, option in steps]
        axes.plot(x, [span.estimate for span in spans], **plots.look(0))
        axes.fill_between(x, [span.low for span in spans], [span.high for span in spans], alpha=0.15, linewidth=0)
        axes.set_xlim(0, 1.15 * today)
        axes.set_xticks(x)
        axes.plot(today, spans[-1].estimate, **plots.look(1), markersize=11)
        labels = [(today, spans[-1].estimate, "you are here")]
        if advice.best is not advice.none:
            best = advice.best.evidence.intervals["ap"].estimate
            axes.plot(today, best, **plots.look(2), markersize=9)
            labels.append((today, best, advice.best.name[0]))
        plots.label_points(axes, labels)
        about = "mean over folds and draws, no synthetic images; the band is the 95 % interval of each point."
        return plots.embedded(axes, found.understood.name, about)


# -- images


def _strips(operation: Operation, source: OpenDataset, thumbs: Thumbs) -> Iterator[dict[str, Any]]:
    """Yield the defects that are missed, those that are found, and the false alarms, the clearest first."""
    predictions = operation.predictions
    normal = predictions["label"] == GOOD
    item_of = dict(zip(predictions["id"], predictions["group"], strict=True))
    strips = (
        ("missed", "Defects that are missed", ~normal, -1),
        ("found", "Defects that are found", ~normal, 1),
        ("false alarms", "False alarms: normal images called defective", normal, 1),
    )
    for kind, title, which, side in strips:
        images = by_image(predictions[which], side)
        chosen = images[beyond(images, side)]  # on average over runs
        one_each = chosen[~chosen.index.map(item_of).duplicated()]
        rows = [_image(row, kind, source, thumbs) for row in one_each.head(EACH[kind]).itertuples()]
        of = f"{len(chosen):,} of {plural(len(images), 'image')}"
        yield {
            "kind": kind,
            "title": title,
            "note": of if len(rows) == len(chosen) else f"{of}; {len(rows)} shown, the clearest first",
            "images": rows,
        }


def _image(row: Any, kind: str, source: OpenDataset, thumbs: Thumbs) -> dict[str, Any]:
    image, mask = source.load(row.Index)
    runs = f"{row.wrong} of {row.runs} runs" if row.runs > 1 else ""
    caption = ", ".join(filter(None, ("" if row.label == GOOD else row.label, runs)))
    return thumbs.add(image, f"{kind}: {row.Index}", caption, mask)


def _synthetic_rows(found: Found, thumbs: Thumbs) -> Iterator[dict[str, Any]]:
    """Yield the first images of one pool of each augmenter."""
    compared = {option.augmenter: option.keys[0] for option in reversed(options_of(found.advice)) if option.augmenter}
    for name, cell in [*reversed(compared.items()), *found.previewed.items()]:
        keys = [one["key"] for one in found.store.read_record(cell)["provenance"]["pools"]]
        for record in filter(None, found.store.read_pools(keys[:1])):
            pool = Pool.of(PoolSpec.from_dict(record["spec"]), found.store, name)
            images = [synthetic(pool, index, thumbs) for index in range(min(COLUMNS, len(pool.lines)))]
            left_out = "left out for lack of time; " if name in found.previewed else ""
            note = f"{left_out}of a pool of {plural(len(pool.lines), 'image')}"
            yield {"name": name, "note": note, "images": images}
