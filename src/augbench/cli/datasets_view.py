"""Output of `augbench datasets`: the list, the description of a dataset, and the check of its files."""

from __future__ import annotations

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import cleandoc
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from pydantic import ValidationError
from rich.console import Console

from augbench.cli.options import print_line
from augbench.cli.plugin_lists import plugins_sheet
from augbench.core import registry
from augbench.core.contracts import DEFECTIVE, GOOD, Dataset
from augbench.core.documents import parse_value
from augbench.core.errors import StoreError, UserError
from augbench.core.models import first_problem
from augbench.core.temporary import log_levels
from augbench.planning.audits import audit_of, percent
from augbench.planning.grid import DatasetEntry
from augbench.planning.library import DATA_VARIABLE, Library
from augbench.planning.splits import checked_samples
from augbench.report.contact_sheet import Section, Tile, evenly_spaced, write_sheet
from augbench.report.dataset_findings import Findings, count, examine
from augbench.report.render.terminal import sheet_parts
from augbench.report.sheet import Sheet
from augbench.stages.leak_audit import NearCopies, audit, is_problem, leak_of, proposed_groups
from augbench.storage.files import write_atomic
from augbench.storage.store import Store

MOST_ITEMS = 8  # items that near-copies join, which are printed
PAIRS = 24  # near-copies on a sheet


def open_library(name: str, root: Path | None, changes: Iterable[str]) -> Library:
    """Open a library of one dataset, from command-line options.

    Raises:
        UserError: no such dataset, or settings it does not have.
    """
    settings: dict[str, Any] = {}
    written: dict[str | int, str] = {}
    for change in changes:
        key, equals, written[key] = change.partition("=")
        if not equals or not key:
            raise UserError(f"--set '{change}': write key=value")
        settings[key] = parse_value(written[key], f"--set '{change}'")
    if root is not None:
        settings["root"] = str(root)
    plugin = registry.get("datasets", name)
    try:
        registry.configure(plugin, settings)
    except ValidationError as error:
        (key, *_) = error.errors()[0]["loc"] or ("",)
        problem = first_problem(error, plugin.Config, written.get(key, "").strip() or None)
        raise UserError(f"--set {problem}") from None
    library = Library.of((DatasetEntry(name=name, settings=settings),))
    library.dataset(name).from_options = True
    return library


# -- list


def datasets_sheet() -> Sheet:
    """Return a table of all datasets with task, split, size and licence."""
    columns = ["dataset", "title", "task", "split", "images", "licence"]
    return plugins_sheet("datasets", columns, _row)


def _row(plugin: type[Dataset]) -> tuple[str, ...]:
    task = plugin.task if isinstance(plugin.task, str) else "by setting"
    return plugin.title, task, split_of(plugin), size_of(plugin), plugin.licence


def split_of(plugin: type[Dataset] | Dataset) -> str:
    """Say how training and test images are told apart: an official split, grouped folds, or yours."""
    if not isinstance(plugin.folds, int):
        return "yours"
    return f"{plugin.folds} grouped folds" if plugin.folds else "official"


def size_of(plugin: type[Dataset]) -> str:
    """Say how many images it has, and how many of them are defective."""
    if plugin.embedded:
        labels = Counter(registry.make("datasets", plugin.name, {}).samples()["label"])
        total, normal = sum(labels.values()), labels[GOOD]
    else:
        counts = plugin.official_counts if isinstance(plugin.official_counts, Mapping) else {}
        total = sum(counts.values())
        normal = sum(number for what, number in counts.items() if what.rpartition(" ")[2] == GOOD)
    if not total:
        return "yours" if split_of(plugin) == "yours" else "by setting"
    if plugin.task == "recognition":
        return f"{total:,} of {len(plugin.official_counts)} classes"
    return f"{total:,}, {total - normal:,} defective"


# -- show


def show_dataset(name: str, changes: Iterable[str], console: Console) -> None:
    """Print what is known about a dataset without its files.

    Raises:
        UserError: no such dataset, or settings it does not have.
    """
    dataset = open_library(name, None, changes).dataset(name)
    for line in _description(name, dataset, type(dataset)):
        print_line(console, line)


def _description(name: str, dataset: Dataset, plugin: type[Dataset]) -> Iterator[str]:
    yield f"{plugin.title} ({name})\n{_prose(sys.modules[plugin.__module__].__doc__)}\n"
    split = split_of(plugin if split_of(plugin) == "yours" else dataset)
    facts = {"task": plugin.task, "split": split, "licence": plugin.licence}
    for what, text in {**facts, "citation": plugin.citation, "homepage": plugin.homepage}.items():
        if text:
            yield f"{what + ':':<10} {text}"
    yield f"\n{_prose(plugin.__doc__)}\n\nSettings (--set key=value, or under `settings` in a grid):"
    for key, field in plugin.Config.model_fields.items():
        default = "needed" if field.is_required() else f"default {_plain(field.get_default(call_default_factory=True))}"
        yield f"  {key} ({default})" + (f": {field.description}" if field.description else "")
    if dataset.official_counts:
        counts = ", ".join(f"{what} {number:,}" for what, number in dataset.official_counts.items())
        yield f"\nOfficial counts: {counts}"
    elif not dataset.embedded:
        yield "\nOfficial counts: none for these settings"
    for oddity, ids in oddities_of(dataset).items():
        yield f"known: {', '.join(ids)}: {oddity}"
    if not plugin.embedded:
        yield f"Its files: --root DIR, `root` in a grid, or {DATA_VARIABLE}=DIR where they lie in DIR/{name}/."


def _prose(docstring: str | None) -> str:
    """Format a docstring for the terminal, without markup."""
    return cleandoc(docstring or "").replace("``", "'")


def _plain(value: Any) -> str:
    return "none" if value is None else yaml.safe_dump(value).splitlines()[0]


def oddities_of(dataset: Dataset) -> dict[str, list[str]]:
    """Return the known oddities: description -> sample ids."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, oddity in dataset.known.items():
        found[oddity].append(name)
    return found


# -- check


def check_dataset(
    name: str,
    root: Path | None,
    changes: Iterable[str],
    store: str | None,
    console: Console,
    groups: Path | None = None,
    pairs: Path | None = None,
) -> list[str]:
    """Read every file, print the findings, and return the problems, one sentence each.

    Fingerprint and near-copies are written into ``store``, a path or URL, so that a later run need not read the files
    again; proposed groups to ``groups``, a CSV file; a sheet of near-copies to ``pairs``, a PNG file.

    Raises:
        UserError: the dataset's files do not exist, or ``store`` cannot be a store, or not be written.
    """
    library = open_library(name, root, changes)
    target = Store(store) if store is not None else None
    if target:
        target.require_writable()
    dataset = library.dataset(name)
    with console.status(f"reading {name}"), log_levels(logging.ERROR, "augbench.files"):  # the findings name them
        findings = examine(dataset)
    fingerprint = _fingerprint(library, name, target)  # stored before anything is printed
    with console.status(f"searching {name} for near-copies"):
        copies = _near_copies(library, name, target, findings, groups, pairs)
    location = "" if dataset.config.root is None else f", {dataset.home()}"
    print_line(console, f"{dataset.title} ({name}, {dataset.task}{location})")
    console.print(sheet_parts(_counts(dataset, findings)))
    number = len(findings.problems)
    result = f"{number} problem{'s' if number > 1 else ''}" if number else "all is well"
    for line in (
        *(f"{what:<9} {text}" for what, text in _summary(dataset, findings)),
        *(f"{what:<9} {text}" for what, text in copies),
        *(f"known     {line}" for line in _known_lines(dataset, findings)),
        *(f"note      {note}" for note in findings.notes),
        *(f"problem: {problem}" for problem in findings.problems),
        fingerprint,
        f"{len(findings.table):,} images: {result}",
        *((findings.account.line(),) if findings.account else ()),
    ):
        print_line(console, line)
    return findings.problems


def _counts(dataset: Dataset, findings: Findings) -> Sheet:
    """Return a table of images by split and label, beside the official numbers."""
    texts = []

    def add(split: str, label: str, rows: pd.DataFrame, official: int | None) -> None:
        number = "" if official is None else f"{official:,}"
        texts.append((split or "by fold", label, f"{len(rows):,}", number, f"{rows['group'].nunique():,}"))

    left = dict(dataset.official_counts)
    for (split, label), rows in findings.table.groupby(["split", "label"]):
        add(split, label or "unknown", rows, left.pop(f"{split} {label}".strip(), None))
    for what, official in left.items():
        split, _, label = what.rpartition(" ")
        rows = findings.table[(findings.table["split"] == split) | (split == "")]
        rows = rows[(rows["label"] != GOOD) if label == DEFECTIVE else (rows["label"] == label)]
        add(split, "all defective" if label == DEFECTIVE else label, rows, official)
    return Sheet.of(["split", "class"], ["images", "official", "groups"], texts)


def _summary(dataset: Dataset, findings: Findings) -> Iterable[tuple[str, str]]:
    table, seen = findings.table, findings.seen
    sizes = table.groupby("group").size()
    labels = table.groupby("group")["label"].agg(set)
    defective = sum(bool(found - {GOOD}) for found in labels)
    mixed = int((labels.map(len) > 1).sum())
    median = f" (median {sizes.median():g})" if max(sizes) > 1 else ""
    text = f"{len(sizes):,} of {_range(list(sizes))} images{median}"
    if dataset.task == "detection":
        text += f"; {defective:,} with a defect"
    text += f"; {f'{mixed:,} mix' if mixed else 'none mixes'} classes"
    yield "groups", text if max(sizes) > 1 else "no groups given: each image is its own group"
    if len(findings.folds) > 1:
        rows = [len(side) for side in findings.folds]
        defects = [int((side["label"] != GOOD).sum()) for side in findings.folds]
        text = f"{len(rows)}, each evaluated on {_range(rows)} images"
        yield "folds", text + (f", {_range(defects)} of them defective" if dataset.task == "detection" else "")
    yield "sizes", _sizes([one.size for one in seen if one.size])
    if images := count(one.stored for one in seen):
        yield "images", images
    if rotated := sum(one.turned for one in seen):
        yield "turned", f"{rotated:,} marked as rotated or mirrored (EXIF), read upright"
    if masks := count(one.mask_stored for one in seen):
        yield "masks", masks
    elif not (table["mask"] != "").any():
        yield "masks", "none"
    for line in _stray_lines(findings.strays):
        yield "left out", line


def _near_copies(
    library: Library, name: str, store: Store | None, findings: Findings, groups: Path | None, pairs: Path | None
) -> list[tuple[str, str]]:
    """Search for near-copies, add what they mean to the findings, write the files, and return lines to print."""
    try:
        spec = audit_of(library, name, library.fingerprint(name, store))
        record, found = audit(library, name, spec, _thumbnails(findings))
    except StoreError:
        raise
    except UserError as error:
        if not findings.problems:
            raise
        for option, path in (("--groups", groups), ("--pairs", pairs)):
            if path is not None:
                raise UserError(f"{option}: near-copies cannot be searched for ({error})") from None
        return [("copies", "not searched for, until every problem is solved")]
    result, table = record["result"], library.samples(name)
    if store:
        store.write_json("audits", spec.key, record)
    proposal = proposed_groups(table, result["clusters"])
    if groups is not None:
        write_atomic(groups, proposal.to_csv(index=False).encode())
    if pairs is not None:
        _write_pairs(pairs, library.dataset(name), table, found)
    if leak := leak_of(result):
        if is_problem(result):
            findings.problems.append(f"{leak}: look at them (--pairs FILE.png), then {_way_out(name, table)}")
        else:
            findings.notes.append(leak)
    return [*_copies_lines(result, table), *_groups_lines(groups, library.dataset(name), name)]


def _way_out(name: str, table: pd.DataFrame) -> str:
    """Say what can be done about near-copies across the split."""
    if (table["split"] != "").any():
        return "take one side's copies out, or use folds: groups cannot change a split that is given"
    if name != "folder":
        return "read these images as dataset 'folder' with groups; --groups FILE.csv proposes some"
    return "give groups; --groups FILE.csv proposes some"


def _groups_lines(groups: Path | None, dataset: Dataset, name: str) -> Iterator[tuple[str, str]]:
    """Yield how the proposed groups are used: the setting ``groups`` of `folder` is relative to the root."""
    if groups is None:
        return
    used, root = f"written to '{groups}'", dataset.root()
    path = groups.resolve()
    if name == "folder" and path.is_relative_to(root.resolve()):
        yield "proposal", f"{used}: use it as setting, --set groups={path.relative_to(root.resolve()).as_posix()}"
    else:
        where = f"'{root}'" if name == "folder" else "the root of a dataset 'folder'"
        yield "proposal", f"{used}: copy it into {where}, then use it as setting, --set groups={path.name}"


def _thumbnails(findings: Findings) -> dict[str, np.ndarray]:
    """Return the thumbnails of the images that could be read, by id."""
    seen = zip(findings.table["id"], findings.seen, strict=True)
    return {name: one.thumbnail for name, one in seen if one.thumbnail is not None}


def _copies_lines(result: Mapping[str, Any], table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    number = result["pairs"]
    if not number:
        yield "copies", f"no near-copies among {result['images']:,} images"
    else:
        chance = f"about {result['expected_false']:.2g} of them by chance"
        chain = f"most images that pairs connect: {result['largest_component']:,}"
        yield "copies", f"{number:,} pairs of near-copies ({chance}; {chain}); {result['items']:,} independent items"
        yield from (("item", line) for line in _items(result["clusters"], table))
        if len(result["folds"]) > 1 and any(fold["copies"] for fold in result["folds"]):
            each = ", ".join(percent(fold["copies"] / fold["test"]) for fold in result["folds"])
            yield "copies", f"of the test images of each fold {each}"
    if result["mirrored"]:
        text = f"{result['mirrored']:,} pairs are alike when one is mirrored: mirrored copies hide near-copies"
        yield "copies", f"{text}, take them out"


def _items(clusters: Iterable[Sequence[str]], table: pd.DataFrame) -> Iterator[str]:
    """Yield what near-copies show to be one item, the largest first: ``item 1 = item 19, 8 images``."""
    group_of = table.set_index("id")["group"]
    found: Counter[tuple[str, ...]] = Counter()
    for cluster in clusters:
        found[tuple(sorted(set(group_of[list(cluster)])))] += len(cluster)
    joined = [(groups, images) for groups, images in found.most_common() if len(groups) > 1]
    for groups, images in joined[:MOST_ITEMS]:
        more = f" = {len(groups) - 3:,} more" if len(groups) > 4 else ""
        yield f"{' = '.join(groups[: 3 if more else 4])}{more}, {images:,} images"
    if len(joined) > MOST_ITEMS:
        yield f"and {len(joined) - MOST_ITEMS:,} more"


def _write_pairs(path: Path, dataset: Dataset, table: pd.DataFrame, found: NearCopies) -> None:
    """Write a sheet of near-copies side by side: evenly spaced from the best to the worst pair."""
    rows = table.to_dict("records")
    chosen = np.linspace(0, len(found.pairs) - 1, min(PAIRS, len(found.pairs))).round().astype(int)
    tiles = []
    for number in chosen:
        first, second = (rows[index] for index in found.pairs[number])
        left, right = dataset.read_image(first), dataset.read_image(second)
        height = min(len(left), len(right))
        sides = [np.asarray(Image.fromarray(one).resize((round(one.shape[1] * height / len(one)), height)))
                 for one in (left, right)]  # fmt: skip
        caption = f"{found.scores[number]:.2f} {PurePath(first['id']).stem} = {PurePath(second['id']).stem}"
        tiles.append(Tile(np.concatenate(sides, axis=1), caption))
    if not tiles:
        raise UserError(f"--pairs: there are no near-copies in '{dataset.name}': leave it out")
    note = f"{len(found.pairs):,} pairs, threshold {found.threshold:.2f}"
    write_sheet(path, f"{dataset.title}: near-copies", [Section("from the most to the least alike", note, tiles)])


def _range(numbers: list[int]) -> str:
    return f"{min(numbers):,}" if min(numbers) == max(numbers) else f"{min(numbers):,}-{max(numbers):,}"


def _sizes(sizes: list[tuple[int, int]]) -> str:
    if not sizes:
        return "no image could be read"
    widths, heights = ([size[side] for size in sizes] for side in (0, 1))
    text = f"{_range(widths)} x {_range(heights)} (W x H)"
    return text if len(set(sizes)) == 1 else f"{text}, {len(set(sizes)):,} different"


def _stray_lines(strays: list[str]) -> Iterable[str]:
    """Name the stray files of each folder, or count them if there are more than three."""
    folders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in strays:
        path = PurePosixPath(name)
        folders[str(path.parent), path.suffix].append(name)
    for (folder, suffix), names in sorted(folders.items()):
        few = ", ".join(f"'{name}'" for name in names)
        yield few if len(names) <= 3 else f"{len(names):,} {suffix} in '{folder}', such as '{names[0]}'"


def _known_lines(dataset: Dataset, findings: Findings) -> Iterable[str]:
    present = set(findings.table["id"])
    for oddity, ids in oddities_of(dataset).items():
        found = [name for name in ids if name in findings.known]
        gone = [name for name in ids if name not in findings.known and name in present]
        if found:
            yield f"{', '.join(found)}: {oddity} (found)"
        if gone:
            yield f"{', '.join(gone)}: {oddity} (not found in these files)"


def _fingerprint(library: Library, name: str, store: Store | None) -> str:
    try:
        fingerprint = library.fingerprint(name, store)
    except StoreError:
        raise
    except UserError:
        return "fingerprint: none, until every file can be read"
    return f"fingerprint: {fingerprint}" + (f" (stored in {store.url})" if store else "")


# -- sample


def write_sample(
    name: str, root: Path | None, changes: Iterable[str], out: Path | None, number: int, console: Console
) -> None:
    """Write a contact sheet of about ``number`` images: normal ones, and some of every class.

    Raises:
        UserError: the dataset cannot be read, or ``out`` cannot be written.
    """
    dataset = open_library(name, root, changes).dataset(name)
    table = checked_samples(dataset)
    labels = sorted(set(table["label"]), key=lambda label: (label != GOOD, label))
    each = max(1, round(number / len(labels)))
    sections = []
    for label in labels:
        rows = table[table["label"] == label]
        firsts = rows.drop_duplicates("group")  # images of different groups, if there are enough
        chosen = evenly_spaced(firsts if len(firsts) >= each else rows, each)
        tiles = [
            Tile(dataset.read_image(row), row["id"], dataset.read_mask(row) if label != GOOD else None)
            for row in chosen.to_dict("records")
        ]
        groups = rows["group"].nunique()
        note = f"{len(rows):,} images" + (f" in {groups:,} groups" if groups < len(rows) else "")
        sections.append(Section(label, note, tiles))
    path = out or Path(f"{name}.png")
    write_sheet(path, f"{dataset.title}: {len(table):,} images", sections)
    drawn = sum(len(section.tiles) for section in sections)
    print_line(console, f"{drawn} of {len(table):,} images: {path}")
