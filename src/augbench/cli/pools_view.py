"""The contact sheet of `augbench pool show`: real defects and images of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from augbench.cli.options import print_line
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.core.specs import PoolSpec
from augbench.planning.library import library_of
from augbench.report.contact_sheet import Section, Tile, evenly_spaced, write_sheet
from augbench.report.leaderboard.sources import Pool
from augbench.report.table_notes import filter_note
from augbench.stages.filters import counts_of
from augbench.storage.store import Store


def write_pool_sheet(
    store: Store, asked: str, roots: Sequence[str], out: Path | None, number: int, console: Console
) -> None:
    """Write a contact sheet of up to ``number`` real training defects, and of a pool's first ``number`` images.

    It also says how many images its filters dropped. The pool is ``asked`` for by its key, or a unique prefix of it;
    ``roots`` are as ``--root`` has them; ``out`` is KEY.png by default.

    Raises:
        UserError: no such pool, none of its images made yet, no such dataset or root, or ``out`` cannot be written.
    """
    spec = store.pool_spec(asked)
    pool = Pool.of(spec, store)
    if not pool.lines:
        raise UserError(f"pool '{spec.key}' has no image yet: run its grid")
    made = [_tile(pool, index) for index in range(min(number, len(pool.lines)))]
    real, of_all = _real(spec, roots, store, number)
    sections = [
        Section("real", f"{len(real)} of {of_all:,} training defects", real),
        Section(pool.augmenter, f"{len(made)} of {len(pool.lines):,} images, seed {spec.seed}", made),
    ]
    path = out or Path(f"{spec.key}.png")
    write_sheet(path, spec.key, sections)
    print_line(console, f"{len(made)} of {len(pool.lines):,} images of {spec.key}: {path}")
    if counts := counts_of(pool.lines):
        print_line(console, filter_note(spec.augmenter.alias, [counts]))


def _tile(pool: Pool, index: int) -> Tile:
    """Create the tile of a synthetic image; its caption is the prompt or source, if recorded, else the index."""
    line = pool.lines[index]
    image, mask = pool.load(index)
    return Tile(image, str(line["meta"].get("prompt") or line["meta"].get("source") or line["index"]), mask)


def _real(pool: PoolSpec, roots: Sequence[str], store: Store, number: int) -> tuple[list[Tile], int]:
    """Return up to ``number`` real training defects of the pool's split, and the number of all."""
    library = library_of(pool.data, roots, store)
    dataset = library.dataset(pool.data.alias)
    rows = library.split(pool.data).positives
    rows = rows[rows["label"] != GOOD]
    chosen = evenly_spaced(rows, number).to_dict("records")
    return [Tile(dataset.read_image(row), row["id"], dataset.read_mask(row)) for row in chosen], len(rows)
