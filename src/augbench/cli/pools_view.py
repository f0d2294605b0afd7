"""The contact sheet of `augbench pool show`: real defects and images of a pool."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from augbench.cli.options import print_line
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError, did_you_mean
from augbench.core.specs import PoolSpec
from augbench.planning.grid import DatasetEntry
from augbench.planning.library import Library
from augbench.report.contact_sheet import Section, Tile, evenly_spaced, write_sheet
from augbench.storage.store import Store


def write_pool_sheet(
    store: Store, asked: str, root: Path | None, out: Path | None, number: int, console: Console
) -> None:
    """Write a contact sheet of up to ``number`` real training defects, and of a pool's first ``number`` images.

    The pool is ``asked`` for by its key, or a unique prefix of it; ``out`` is KEY.png by default.

    Raises:
        UserError: no such pool, none of its images made yet, no such dataset, or ``out`` cannot be written.
    """
    pool = _spec(store, asked)
    lines = [line for chunk in sorted(store.chunks(pool)) for line in store.chunk_lines(pool, chunk)]
    if not lines:
        raise UserError(f"pool '{pool.key}' has no image yet: run its grid")
    made = [_tile(store, pool, line) for line in lines[:number]]
    real, of_all = _real(pool, root, number)
    sections = [
        Section("real", f"{len(real)} of {of_all:,} training defects", real),
        Section(pool.augmenter.name, f"{len(made)} of {len(lines):,} images, seed {pool.seed}", made),
    ]
    path = out or Path(f"{pool.key}.png")
    write_sheet(path, pool.key, sections)
    print_line(console, f"{len(made)} of {len(lines):,} images of {pool.key}: {path}")


def _spec(store: Store, asked: str) -> PoolSpec:
    keys = sorted(store.keys("pools"))
    found = [asked] if asked in keys else [key for key in keys if key.startswith(asked)]
    if len(found) > 1:
        some = f"'{found[0]}' and '{found[1]}' among them"
        raise UserError(f"'{asked}' begins {len(found)} keys, {some}: give a longer prefix")
    if not found:
        hint = did_you_mean(asked, keys) if keys else ": no pool has been made there"
        raise UserError(f"pool '{asked}' is not in the store{hint}: see {store.files.where('pools')}")
    record = store.read_pool(found[0])
    if record is None:
        raise UserError(f"pool '{found[0]}' is not finished: run its grid again")
    return PoolSpec.from_dict(record["spec"])


def _tile(store: Store, pool: PoolSpec, line: dict[str, Any]) -> Tile:
    """Create the tile of a synthetic image; its caption is the prompt or source, if recorded, else the index."""
    meta = line["meta"]
    image = _pixels(store.files.read(store.image_name(pool, line["index"])))
    mask = None
    if "mask_file_name" in line:
        mask = _pixels(store.files.read(store.mask_name(pool, line["index"])))[..., 0] > 127
    return Tile(image, str(meta.get("prompt") or meta.get("source") or line["index"]), mask)


def _pixels(data: bytes) -> np.ndarray:
    """Decode a PNG: H,W,3 uint8."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _real(pool: PoolSpec, root: Path | None, number: int) -> tuple[list[Tile], int]:
    """Return up to ``number`` real training defects of the pool's split, and the number of all."""
    data = pool.data
    settings = {**data.settings, **({"root": str(root)} if root else {})}
    library = Library.of((DatasetEntry(name=data.name, **{"as": data.alias}, settings=settings),))
    dataset = library.dataset(data.alias)
    rows = library.split(data).positives
    rows = rows[rows["label"] != GOOD]
    chosen = evenly_spaced(rows, number).to_dict("records")
    return [Tile(dataset.read_image(row), row["id"], dataset.read_mask(row)) for row in chosen], len(rows)
