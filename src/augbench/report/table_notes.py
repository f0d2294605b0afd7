"""Titles, captions and footnotes of tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from augbench.core.errors import listed
from augbench.metrics.inference import FEWEST_RUNS
from augbench.planning.audits import NOT_AUDITED, Audit, percent
from augbench.report.numbers import COLLAPSED, INCOMPLETE, named_shots
from augbench.report.sheet import Detail, Legend

AP_SENTENCES = {
    "trapezoidal_ties": "AP is the area under the precision-recall curve by the trapezoidal rule, with images of equal "
    "score spread evenly over one another.",
    "trapezoidal": "AP is the area under the precision-recall curve by the trapezoidal rule.",
    "step": "AP is step-wise: the sum of precision times the gain in recall, without interpolation.",
}
FEATURE_SECONDS = "Seconds of a training do not include the extraction of features, which its classifiers share."
SHA_LENGTH = 12
FEW_ITEMS = 20  # below it a percentile bootstrap gives intervals that are too narrow
NAMED = 8  # collapsed runs that a note names
HEADS = {
    "logistic": "Logistic regression",
    "lda": "Linear discriminant analysis",
    "mlp": "A perceptron with one hidden layer",
}
"""Head of a probe -> its name."""
DISTANCES = {
    "gaussian": "Mahalanobis distance to the normal training images",
    "neighbours": "Distance to the nearest normal training image",
}
"""Kind of protocol without defect images -> its score."""
CONTROLS = {
    "shuffle_labels": "training labels are shuffled by item, so all rows should be at chance",
    "budget": "every N_aug has the optimiser steps of the row without synthetic images",
    "class_weights": "all labels count equally in the loss",
    "harmonise": "every image was stored as JPEG of quality {} first",
    "roundtrip": "all real images, test images too, passed the VAE of {} first; synthetic ones did not",
}
"""Field of a protocol -> what a table says where it is on."""


def title_of(cell: Any, folds: tuple[int, ...]) -> str:
    """Return the title of a table: ``ksdd2, few-shot (5 real defects), protocol inout``, with its folds."""
    each = " per class" if cell.task == "recognition" else ""
    regimes = {0: "zero-shot (no real defects)", "all": "full-shot (all real defects)"}
    few = plural(cell.shots, "real defect") + each if cell.shots not in regimes else ""
    if named := named_shots(cell.shots):
        few = f"{plural(named[0], 'named defect')}, {named[1]}"
    parts = [cell.dataset, regimes.get(cell.shots, f"few-shot ({few})"), f"protocol {cell.protocol}"]
    return ", ".join([*parts, folds_text(folds, cell.test_share)] if folds else parts)


def folds_text(folds: Sequence[int], test_share: float | None = None) -> str:
    """Format folds: ``fold 0``, ``folds 0-4``, ``folds 0, 2``; for random splits ``splits 0-4 (30 % test)``."""
    one, behind = ("fold", "") if test_share is None else ("split", f" ({100 * test_share:g} % test)")
    if len(folds) == 1:
        return f"{one} {folds[0]}{behind}"
    in_a_row = list(folds) == list(range(folds[0], folds[-1] + 1))
    numbers = f"{folds[0]}-{folds[-1]}" if in_a_row else ", ".join(map(str, folds))
    return f"{one}s {numbers}{behind}"


def captions(rows: list[list[Any]], records: list[Any]) -> list[str]:
    """Return what the numbers are and where they come from, one sentence each.

    Args:
        rows: the expected cells of each row.
        records: the records of these cells.
    """
    cell = rows[0][0]
    sentences: list[str] = [Detail(f"{_spread(rows)}.")]
    protocol = f"protocol {cell.protocol}"
    if about := frozen_text(records):
        sentences.append(Legend(about, about=protocol))
    if on := next((record.controls for record in records if record.controls), None):
        said = "; ".join(CONTROLS[name].format(value) for name, value in on.items())
        sentences.append(Legend(f"Controls: {said}.", about=protocol))
    if cell.task == "detection":
        sentences.append(Legend(AP_SENTENCES[cell.ap_definition]))
    return sentences + [Detail(sentence) for sentence in _origin(records)]


def frozen_text(records: Sequence[Any]) -> str:
    """Say what was trained on frozen features, and what that tells; "" where the classifier was fine-tuned."""
    frozen = next((record.frozen for record in records if record.frozen), None)
    if not frozen:
        return ""
    features = f"on frozen features of {frozen['backbone']}"
    if frozen["kind"] in DISTANCES:
        return f"{DISTANCES[frozen['kind']]} {features}: no defect image was used."
    distance = " and their distance to the normal training images" if frozen["normality"] else ""
    screens = "it screens augmenters; a fine-tuned classifier may rank them otherwise"
    return f"{HEADS[frozen['head']]} {features}{distance}: {screens}."


def near_copies_text(audit: Audit | None, folds: Sequence[int]) -> str:
    """Say how many test images have a near-copy in training; "" where that is never searched for."""
    if audit is None:
        return ""
    found = audit.text(folds)
    return f"Near-copies across the split: {found}{' of the test images' if found[-1] == '%' else ''}."


def table_caveats(audit: Audit | None, folds: Sequence[int], embedded: Sequence[str]) -> tuple[str, ...]:
    """Return what a reader of any number of a table must know, in a few words each: near-copies, smoke-test parts."""
    share = audit.share(folds) if audit else 0.0
    leak = [NOT_AUDITED] if share is None else [f"near-copies across the split: {percent(share)}"] if share else []
    return (*leak, *([f"smoke-test parts: {', '.join(embedded)}"] if embedded else []))


def used_note(used: Mapping[str, Sequence[str]]) -> str:
    """Say what synthetic images were made from; ``used``: augmenter -> what, as `planning.used` has it."""
    each = [f"{name}: {', '.join(what)}" for name, what in used.items()]
    return f"Images were made from: {'; '.join(each)}."


def filter_note(augmenter: str, filtered: Iterable[Mapping[str, Any]]) -> str:
    """Say how many images filters dropped; ``filtered``: an entry per pool, as in `storage.records.Filtered`."""
    made, dropped = 0, Counter()
    for one in filtered:
        made += one["made"]
        dropped.update(one["dropped"])
    each = ", ".join(f"{name} {number}" for name, number in dropped.items())
    found = f"{dropped.total()} ({each}), which were made again" if each else "none"
    return f"{augmenter}: of {plural(made, 'image')} made, filters dropped {found}"


def weight_note(augmenter: str, weights: Mapping[int, Sequence[float]], is_chosen: bool) -> str:
    """Say how much a synthetic image counted in classifiers whose protocol leaves that open.

    Args:
        augmenter: its name.
        weights: N_aug -> the weight in each cell.
        is_chosen: whether there were real defects enough to choose the weights by.
    """
    how = "chosen on real training images" if is_chosen else "with too few real defects to choose it by"
    each = "; ".join(f"N_aug {n_aug}: {_weights(found)}" for n_aug, found in weights.items())
    return f"{augmenter}: weight of a synthetic image against a real one, {how}: {each}"


def _weights(found: Sequence[float]) -> str:
    """Format weights: ``0.03 to 0.1, 0 in 2 of 15 cells``."""
    positive = sorted(weight for weight in found if weight)
    if not positive:
        return f"0 in {_all(len(found), 'cell')}"
    low, high = f"{positive[0]:.3g}", f"{positive[-1]:.3g}"
    zeros = len(found) - len(positive)
    return (low if low == high else f"{low} to {high}") + (f", 0 in {zeros} of {len(found)} cells" if zeros else "")


def _all(number: int, what: str) -> str:
    return f"its only {what}" if number == 1 else f"all {number} {what}s"


def footnotes(cell: Any, found: int, expected: int, averages: bool) -> list[str]:
    """Return what the headings mean and what is missing, one sentence each.

    Args:
        cell: any expected cell of the table.
        found: number of cells with a record.
        expected: number of expected cells.
        averages: whether the table has average rows.
    """
    notes: list[str] = []
    if found < expected:
        notes.append(f"* incomplete: {found} of {expected} cells")
    if averages:
        average = "mean of the means and mean of the standard deviations over N_aug > 0, as the papers do."
        notes.append(Legend(f"Average: {average}"))
    if cell.task == "recognition":
        return [*notes, Legend("N_aug is per class.")]
    oracle = "Oracle: the threshold was chosen with the labels of the test images it is evaluated on."
    notes.append(Legend(oracle, "precision", "recall"))
    if cell.false_alarm_rate is not None:
        heldout = (
            "Held-out threshold: the lowest with a false positive rate (FPR) of at most "
            f"{100 * cell.false_alarm_rate:g} % on the held-out normal training images."
        )
        notes.append(Legend(heldout, "heldout_recall", "heldout_false_alarm_rate"))
    return notes


def plural(number: int, word: str) -> str:
    """Format a count: ``1 seed``, ``3 seeds``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def run_label(cell: Any, fold: bool = True) -> str:
    """Label a cell: ``N_aug 80, seed 0``, with draw and fold if it has them; ``fold 2, no seed``.

    Args:
        cell: an expected cell.
        fold: name the fold; without it, this labels its run.
    """
    known = cell.fold if fold or cell.test_share is not None else None
    parts = [("N_aug", cell.n_aug or None), ("fold", known), ("draw", cell.draw), ("seed", cell.seed)]
    parts += [("adapter", cell.adapter_seed or None)]
    labels = [f"{name} {int(value)}" for name, value in parts if value is not None]
    return ", ".join(labels if cell.seed is not None else [*labels, "no seed"])


def run_notes(rows: Sequence[Any]) -> list[str]:
    """Say which runs behind these `runs.Basis` objects collapsed or lack folds, and whose adaptation does not vary."""
    notes = []
    if collapsed := [name for row in rows for name in row.collapsed]:
        of = sum(row.trainings for row in rows)
        what = "runs" if of == sum(row.runs for row in rows) else "trainings"
        notes.append(
            f"{COLLAPSED} {len(collapsed)} of {of} {what} {'have' if len(collapsed) > 1 else 'has'} collapsed: more "
            "than half of the test images have the same score, or all have up to rounding, so the number says nothing "
            f"about a classifier that learned: {listed(collapsed, NAMED)}."
        )
    if partial := [name for row in rows for name in row.partial]:
        notes.append(f"{INCOMPLETE} in no number, as folds are missing: {listed(partial, NAMED)}.")
    if fixed := dict.fromkeys(row.augmenter for row in rows if row.one_adaptation):
        notes.append(
            Legend(
                f"No adaptation variance: all seeds of {listed(fixed, NAMED)} share what was learned once, so "
                "deviations and intervals do not cover learning it again (several adapter_seeds in the grid would)."
            )
        )
    return notes


def few_items_note(items: int, task: str, kinds_apart: bool = True) -> str:
    """Say that there are few test items; ``kinds_apart``: normal and defect ones are counted apart."""
    of_a_kind = " of one kind (normal or defect)" if kinds_apart else ""
    kind = "" if task == "recognition" else f"{of_a_kind} in a fold"
    return f"Only {items} test item{'s' * (items != 1)}{kind}"


def caveat_notes(rows: Sequence[Any], task: str) -> list[str]:
    """Return what a reader of these rows (`runs.Basis`) must know, one sentence each."""
    single = [row for row in rows if not row.is_average]
    notes = run_notes(single)
    few = [row for row in single if row.too_few]
    if few:
        which = "Each row has" if len(few) == len(single) else f"{len(few)} of {len(single)} rows have"
        notes.append(f"{which} fewer than {FEWEST_RUNS} runs: too few to say whether a difference is more than chance.")
    items = min((row.items for row in single if row.items is not None), default=None)
    if items is not None and items < FEW_ITEMS:
        notes.append(f"{few_items_note(items, task)}: from fewer than {FEW_ITEMS}, one more or less moves the numbers.")
    return notes


def _spread(rows: list[list[Any]]) -> str:
    """Name what mean and std are over: seeds, and draws and drawn splits pooled with them; and what a run averages."""
    numbers = {len({cell.fold for cell in cells}) for cells in rows}
    if rows[0][0].test_share is not None or max(numbers) == 1:
        return _over(rows)
    return f"{_over(rows)}; the number of a run is its average over {_count(numbers, 'fold')}"


def _over(rows: list[list[Any]]) -> str:
    axes = {"seed": "seed", "draw": "draw of the shots", "adapter_seed": "adapter"}
    if rows[0][0].test_share is not None:
        axes["fold"] = "drawn split"
    seeded = [cells for cells in rows if cells[0].seed is not None]
    fixed = dict.fromkeys(cells[0].augmenter for cells in rows if cells[0].seed is None)
    counts = {axis: {len({getattr(cell, axis) for cell in cells}) for cells in seeded or rows} for axis in axes}
    several = [axis for axis in axes if axis != "seed" and max(counts[axis]) > 1]
    axes_text = " x ".join(_count(counts[axis], axes[axis]) for axis in (*["seed"] * bool(seeded), *several))
    over = f"Mean (sample standard deviation) over {axes_text}"
    if not seeded:
        return f"{over}, as nothing else is random" if several else "One run, as nothing is random in it"
    text = f"{over}, pooled" if several else "One seed: no standard deviation" if counts["seed"] == {1} else over
    if not fixed:
        return text
    one_run = f"one run for each {' and '.join(axes[axis] for axis in several)}" if several else "one run"
    return f"{text}; {', '.join(fixed)}: {one_run}, as nothing {'else ' * bool(several)}is random in it"


def _count(numbers: set[int], what: str) -> str:
    """Format a count: ``4 seeds``, or ``2 to 4 seeds`` where rows differ."""
    low, high = min(numbers), max(numbers)
    head, of, tail = what.partition(" of ")
    plural = f"{head if high == 1 else f'{head}s'}{of}{tail}"
    return f"{high} {plural}" if low == high else f"{low} to {high} {plural}"


def _origin(records: list[Any]) -> list[str]:
    """Name the devices, where they differ, and the commits of the records."""
    if not records:
        return []
    devices = Counter(record.device for record in records)
    commits = sorted({short_sha(record.git_sha) for record in records if record.git_sha})
    unknown = sum(not record.git_sha for record in records)
    sentences = []
    if len(devices) > 1:
        each = ", ".join(f"{name} ({number} cell{'s' * (number > 1)})" for name, number in sorted(devices.items()))
        sentences.append(f"Records come from different devices: {each}.")
    if commits:
        sentences.append(f"Made at git {', '.join(commits)}{' and unknown commits' if unknown else ''}.")
    elif unknown:
        sentences.append("Made outside a git checkout: the commit is unknown.")
    return sentences


def short_sha(sha: str) -> str:
    """Shorten a commit, and keep the mark of changes that are not in it: ``b8b87378f931-dirty``."""
    head, dash, state = sha.partition("-")
    return head[:SHA_LENGTH] + dash + state
