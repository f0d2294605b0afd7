"""Is the advice of `augbench try` right? Many folders drawn from a dataset whose other half tells the truth.

The items of a dataset are halved. From one half folders of images are drawn at random; `augbench try` gives its advice
on each. The truth is what the same options give when they are trained on all images of the folder and tested on the
other half. From both follow: regret (AP lost against the best option, with or without synthetic images) of the advice,
of the highest mean, of always adding none and of always adding MemSeg; how often something is recommended that does
not help; how often the 95 % interval of a gain holds the truth; and how often a gain of the stated smallest difference
would be found (each estimate is shifted so that its truth is that difference).

    python bench/advice.py magnetic_tile --root DIR --folders 12 --images 240 --budget 5m --work DIR

The truth has an error of its own, as half a dataset is finite: coverage is a little too low for that reason. What is
done is in the work folder: the same command goes on, also with more folders.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from rich.console import Console

from augbench.advice.decide import NONE, decide
from augbench.advice.design import ALIKE
from augbench.advice.tryout import FREE, FULL, seconds_of, try_folder
from augbench.core.seeds import rng
from augbench.planning.grid import load_grid
from augbench.planning.library import open_dataset
from augbench.runner.driver import run
from augbench.storage.store import Store

COMPARED = {"augmenter": "of synthetic images", "free": "of what needs none"}  # kind of option -> in words
GROUP = r"(item\d+)_.*"  # the items are known, as a careful user would say them


def main() -> None:
    """Draw folders, ask for advice, find out the truth, and print how good the advice was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--root")
    parser.add_argument("--folders", type=int, default=12)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--executor", default="inline", choices=("inline", "ray"))
    options = parser.parse_args()
    table = write_images(options.dataset, options.root, options.work / "images")
    results = []
    for number in range(options.folders):
        place = options.work / f"result{number}.json"
        if not place.exists():
            result = one_folder(table, number, options)
            place.write_text(json.dumps(result, indent=1))
        results.append(json.loads(place.read_text()))
        print(f"after {number + 1} folders of {options.images} images of {options.dataset}, {options.budget} each:")
        for line in summary(results):
            print(f"  {line}")


def write_images(name: str, root: str | None, folder: Path) -> pd.DataFrame:
    """Write all images of a dataset into class folders; return its table with their places and halves."""
    dataset = open_dataset(name, {"root": root} if root else {})
    table = dataset.samples()
    items = {group: f"item{number:04d}" for number, group in enumerate(sorted(set(table["group"])))}
    table = table.assign(item=table["group"].map(items))
    table["place"] = [f"{row.label}/{row.item}_{index:05d}.png" for index, row in enumerate(table.itertuples())]
    for row in table.to_dict("records"):
        target = folder / row["place"]
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(dataset.read_image(row)).save(target)
    names = sorted(items.values())
    first = rng("advice-halves", name).permutation(len(names)) < len(names) // 2
    return table.assign(drawn_from=table["item"].map(dict(zip(names, first.tolist(), strict=True))))


def one_folder(table: pd.DataFrame, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Draw a folder, ask for advice on it, and train its options for the truth."""
    folder, out = options.work / f"folder{number}", options.work / f"out{number}"
    pool = table[table["drawn_from"]]
    chosen = pool.iloc[np.sort(rng("advice-folder", options.dataset, number).permutation(len(pool))[: options.images])]
    shutil.rmtree(folder, ignore_errors=True)
    for place in chosen["place"]:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        os.link(options.work / "images" / place, folder / place)
    quiet = Console(file=(options.work / f"log{number}.txt").open("w", encoding="utf-8"))
    seconds = seconds_of(options.budget)
    answer = try_folder(folder, out, seconds, "good", GROUP, executor=options.executor, console=quiet)
    truth = find_truth(table[~table["drawn_from"]], chosen, answer.out, options, quiet)
    rows = []
    for option in answer.advice.options:
        if option.name[0] not in truth:
            continue
        row = {name: getattr(option, name) for name in ("kind", "protocol", "augmenter")}
        row |= {"name": option.name[0], "truth": truth[option.name[0]], "ap": option.evidence.intervals["ap"].estimate}
        if option.gain:
            alone = option.gain.alone
            row |= {"gain": alone.estimate, "low": alone.low, "high": alone.high}
            row |= {"low_together": option.gain.together.low, "true_gain": row["truth"] - truth[NONE]}
        rows.append(row)
    recommended = answer.advice.recommended.name[0] if answer.advice.recommended else None
    return {
        "recommended": recommended,
        "smallest": answer.design.smallest,
        "items": answer.understood.items,
        "rows": rows,
    }


def find_truth(
    test: pd.DataFrame, train: pd.DataFrame, out: Path, options: argparse.Namespace, console: Console
) -> dict[str, float]:
    """Train every option on all images of a folder, test on the other half; return AP by option."""
    csv = out / "truth.csv"
    sides = pd.concat([train.assign(split="train"), test.assign(split="test")])
    rows = {"image": sides["place"], "label": sides["label"], "split": sides["split"], "group": sides["item"]}
    pd.DataFrame(rows).to_csv(csv, index=False)
    settings = {"root": str((options.work / "images").resolve()), "csv": str(csv.resolve())}
    store = Store(out / "truth")
    for name in (FULL, FREE):
        grid = yaml.safe_load((out / f"{name}.yaml").read_text())
        grid["datasets"] = [{"name": "folder", "as": "truth", "settings": settings}]
        grid |= {"folds": [0], "shots": [shots for shots in grid["shots"] if shots in (0, "all")]}
        path = out / "truth_grids" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(grid, sort_keys=False))
        run(load_grid(path), store, executor=options.executor, console=console)
    return {option.name[0]: option.evidence.intervals["ap"].estimate for option in decide(store, FULL, FREE).options}


def coverage_line(what: str, held: int, missed: int) -> str:
    """Say how many intervals of one kind of option hold the truth."""
    share = f" ({held / (held + missed):.0%})" if held + missed else ""
    return f"95 % intervals that hold the truth, {what}: {held} of {held + missed}{share}"


def choices(result: dict[str, Any], rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the row that the advice chooses, and those of simpler rules."""
    shown = [row for row in rows.values() if row["kind"] == "free" and row.get("low_together", 0) > 0]
    without = max(shown, key=lambda row: row["gain"], default=rows[NONE])
    return {
        "advice": rows[result["recommended"]] if result["recommended"] else without,
        "the highest mean": max(rows.values(), key=lambda row: row["ap"]),
        "always none": rows[NONE],
        "always memseg": next(row for row in rows.values() if (row["augmenter"], row["protocol"]) == ("memseg", ALIKE)),
    }


def summary(results: list[dict[str, Any]]) -> list[str]:
    """Say how good the advice was over these folders."""
    regrets: dict[str, list[float]] = {}
    wrong = found = gains = 0
    covered = Counter[tuple[str, bool]]()
    for result in results:
        rows = {row["name"]: row for row in result["rows"]}
        best = max(row["truth"] for row in rows.values())
        for name, chosen in choices(result, rows).items():
            regrets.setdefault(name, []).append(best - chosen["truth"])
        free = max(row["truth"] for row in rows.values() if row["kind"] == "free")
        wrong += result["recommended"] is not None and rows[result["recommended"]]["truth"] <= free
        for row in rows.values():
            if "gain" in row:
                covered[row["kind"], row["low"] <= row["true_gain"] <= row["high"]] += 1
            if row["kind"] == "augmenter":
                gains += 1
                found += row["low_together"] - row["true_gain"] + result["smallest"] > 0
    return [
        *(f"regret of {name}: {fmean(values):.3f} AP (largest {max(values):.3f})" for name, values in regrets.items()),
        f"recommended: {sum(result['recommended'] is not None for result in results)}, wrongly {wrong}",
        *(coverage_line(what, covered[kind, True], covered[kind, False]) for kind, what in COMPARED.items()),
        f"gains of the stated smallest difference that would be found: {found} of {gains} ({found / gains:.0%})",
        f"stated smallest difference: {fmean(result['smallest'] for result in results):.3f} on average",
    ]


if __name__ == "__main__":
    main()
