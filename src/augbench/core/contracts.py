"""What a plug-in author implements: `Dataset` and `Augmenter`, and what passes between them and the benchmark.

Nothing here loads torch or ray. A plug-in module is imported to be listed, so its heavy imports belong inside methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from augbench.core.errors import UserError
from augbench.core.images import SUFFIXES, decode_grey, decode_rgb, read_bytes
from augbench.core.types import AdaptContext, Candidate, Part, Request, Scoring, Synthetic

Task = Literal["detection", "recognition"]
Shots = int | Literal["all"]
Reads = Literal["negatives", "shots", "masks", "regions"]

GOOD = "good"
"""The label of a sample without a defect, in every dataset."""

DEFECTIVE = "defective"
"""In `Dataset.official_counts`: every label but `GOOD`."""

SAMPLE_COLUMNS = ("id", "image", "mask", "label", "split", "group")


class Settings(BaseModel):
    """Base of every plug-in's nested ``Config``: an unknown key is an error, and a value cannot change later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset:
    """A table of samples and a way to read them.

    A subclass sets the class attributes and implements `samples`; one whose masks are no pictures overrides
    `decode_mask`, one that is not made of files `read_image`, `read_mask` and `fingerprint`. The docstring of the class
    says which layout is expected, for `augbench datasets show`.
    """

    name: ClassVar[str] = ""  # the file stem; set by `core.registry`
    title: ClassVar[str] = ""
    task: Task = "detection"
    licence: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    embedded: ClassVar[bool] = False  # True: results are labelled "mechanics, not evidence"
    known: ClassVar[Mapping[str, str]] = {}  # sample id -> what is odd about it in the official archive
    official_counts: Mapping[str, int] = {}  # "<split> <label>" or "<label>" -> pictures; `DEFECTIVE`: all but good
    folds: int = 0  # 0: the split column of `samples` is the official split; k: grouped k-fold, an axis of the grid

    class Config(Settings):
        """Settings every dataset has. Each says in its ``description`` what it means."""

        root: Path | None = Field(None, description="the folder that holds its files; no part of any key")

    location_settings: ClassVar[frozenset[str]] = frozenset({"root"})  # settings that are no part of a key

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def samples(self) -> pd.DataFrame:
        """One row a sample, sorted by ``id``, with the columns `SAMPLE_COLUMNS` (all str).

        ``image`` and ``mask`` are paths relative to the root ("" = no mask file), ``label`` is `GOOD` or a defect
        class, ``split`` is "train" or "test" ("" where `folds` > 0), ``group`` names the physical item: samples of
        one group never stand on both sides of a split.

        Raises:
            UserError: the files are not there or not in the expected layout. `DatasetError` where single rows fail.
        """
        raise NotImplementedError(f"{type(self).__name__}.samples")

    def read_image(self, sample: Mapping[str, str]) -> np.ndarray:
        """The picture of one row of `samples`: H,W,3 uint8, RGB."""
        path = self.root() / sample["image"]
        return decode_rgb(read_bytes(path), str(path))

    def read_mask(self, sample: Mapping[str, str]) -> np.ndarray | None:
        """The defect's pixels of one row of `samples`: H,W bool, or None where the dataset has no mask for it."""
        if not sample["mask"]:
            return None
        path = self.root() / sample["mask"]
        return self.decode_mask(read_bytes(path), str(path), sample["label"])

    def decode_mask(self, data: bytes, name: str, label: str) -> np.ndarray:
        """A mask file's bytes as H,W bool; ``name`` is what errors call it, ``label`` the class of its picture."""
        return decode_grey(data, name) > self.mask_threshold

    mask_threshold: int = 0  # mask values above it are defect

    def root(self) -> Path:
        """The folder that holds the files.

        Raises:
            UserError: no root was given, or it is not a folder.
        """
        root = self.config.root
        way = (
            f"set datasets.{self.name}.root, or AUGBENCH_DATA to the folder that holds '{self.name}/'"
            f"{'; get it at ' + self.homepage if self.homepage else ''}"
        )
        if root is None:
            raise UserError(f"dataset '{self.name}' has no root: {way}")
        if not Path(root).is_dir():
            raise UserError(f"dataset '{self.name}': '{root}' is not a folder: {way}")
        return Path(root)

    def files(self) -> list[Path]:
        """Every file the fingerprint covers, in the order of `samples`."""
        table = self.samples()
        names = [*table["image"], *(m for m in table["mask"] if m)]
        return [self.root() / name for name in names]

    def fingerprint(self) -> str:
        """SHA-256 over the samples table and the digests of its files (hex). Reads every file once."""
        total = hashlib.sha256(self.samples().to_json(orient="values").encode())
        for path in self.files():
            total.update(self._digests.get(_state(path)) or self.remember(path, read_bytes(path)))
        return total.hexdigest()

    def remember(self, path: Path, data: bytes) -> bytes:
        """SHA-256 of a file that was just read, kept so that `fingerprint` need not read the unchanged file again."""
        digest = self._digests[_state(path)] = hashlib.sha256(data).digest()
        return digest

    @cached_property
    def _digests(self) -> dict[tuple[str, int, int], bytes]:
        return {}

    def classes(self) -> tuple[str, ...]:
        """The defect classes, sorted: every label but `GOOD`."""
        return tuple(sorted(set(self.samples()["label"]) - {GOOD}))

    def has_masks(self) -> bool:
        """Whether defective samples come with masks."""
        table = self.samples()
        return bool((table.loc[table["label"] != GOOD, "mask"] != "").all())

    def key_settings(self) -> dict:
        """The settings that are part of keys: what differs from the defaults, but `location_settings`; JSON values."""
        settings = self.config.model_dump(mode="json", exclude_defaults=True)
        return {k: v for k, v in settings.items() if k not in self.location_settings}

    def check(self) -> list[str]:
        """What differs from the official counts, one plain sentence each; empty when all is well."""
        problems = []
        for what, expected in self.official_counts.items():
            found = self.count(what)
            if found != expected:
                problems.append(f"{what}: {found} pictures, the official number is {expected}")
        return problems

    def count(self, what: str) -> int:
        """Pictures of "<split> <label>" or "<label>", as `official_counts` names them."""
        table = self.samples()
        split, _, label = what.rpartition(" ")
        rows = table if not split else table[table["split"] == split]
        return int(((rows["label"] != GOOD) if label == DEFECTIVE else (rows["label"] == label)).sum())

    def home(self) -> Path:
        """The folder that holds its files: the root, unless a setting names a part of it."""
        return self.root()

    def strays(self) -> list[str]:
        """Picture files at `home` that the table leaves out: sorted paths relative to the root; no hidden ones."""
        table, root = self.samples(), self.root()
        found = (path.relative_to(root) for path in self.home().rglob("*") if path.suffix.lower() in SUFFIXES)
        names = {path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)}
        return sorted(names - set(table["image"]) - set(table["mask"]))


def _state(path: Path) -> tuple[str, int, int]:
    """What tells that a file is still the one that was read."""
    try:
        stat = path.stat()
    except OSError:
        return str(path), -1, -1  # reading it says what is wrong
    return str(path), stat.st_size, stat.st_mtime_ns


class TrainView:
    """What an augmenter may see: training negatives, and of the positives only what it declared that it reads.

    Held-out and test samples are not in here, so an augmenter cannot reach them.
    """

    def __init__(
        self,
        dataset: Dataset,
        negatives: pd.DataFrame,
        shots: pd.DataFrame,
        reads: frozenset[str],
        regime: Shots | None = None,
        regions: pd.DataFrame | None = None,
    ) -> None:
        """``regime`` is how many shots were asked for; None where they are not read, or nobody said. ``regions`` are
        the rows of all training positives, whatever the shots."""
        self.task = dataset.task
        self.regime = regime
        self._dataset = dataset
        self._reads = reads
        self._negatives = negatives.reset_index(drop=True)
        self._shots = shots.reset_index(drop=True)
        visible = [t for name, t in (("negatives", self._negatives), ("shots", self._shots)) if name in reads]
        rows = pd.concat(visible).to_dict("records") if visible else []
        self._rows: dict[str, dict[str, str]] = {row["id"]: row for row in rows}
        marked = regions.to_dict("records") if regions is not None and "regions" in reads else []
        self._regions: dict[str, dict[str, str]] = {row["id"]: row for row in marked if row["mask"]}

    @property
    def negatives(self) -> pd.DataFrame:
        """Rows of the training negatives, in a fixed order."""
        self._demand("negatives")
        return self._negatives

    @property
    def shots(self) -> pd.DataFrame:
        """Rows of the real defective samples that may be used, in a fixed order (empty at zero-shot)."""
        self._demand("shots")
        return self._shots

    def image(self, sample_id: str) -> np.ndarray:
        """H,W,3 uint8 of a visible sample; KeyError for any other."""
        return self._dataset.read_image(self._rows[sample_id])

    def mask(self, sample_id: str) -> np.ndarray | None:
        """H,W bool of a visible sample, None where it has no mask file; KeyError for any other."""
        self._demand("masks")
        return self._dataset.read_mask(self._rows[sample_id])

    @property
    def regions(self) -> tuple[str, ...]:
        """Ids of all training positives that have a mask, whatever the shots, in a fixed order; no more of them."""
        self._demand("regions")
        return tuple(self._regions)

    def region(self, sample_id: str) -> np.ndarray | None:
        """H,W bool: the mask of one of `regions`; KeyError for any other. Its picture stays hidden."""
        self._demand("regions")
        return self._dataset.read_mask(self._regions[sample_id])

    def with_shots(self, ids: Sequence[str]) -> TrainView:
        """A view of some of the shots; all else stays."""
        rows = self._shots[self._shots["id"].isin(ids)]
        part = TrainView(self._dataset, self._negatives, rows, self._reads, self.regime)
        part._regions = self._regions
        return part

    def reads(self, what: str) -> bool:
        """Whether the augmenter declared that it reads this here: negatives, shots, masks or regions."""
        return what in self._reads

    def _demand(self, what: str) -> None:
        if what not in self._reads:
            raise PermissionError(f"this augmenter declares reads={sorted(self._reads)}; '{what}' is not among them")


class Augmenter:
    """One way of making synthetic defect images. The base class is the mechanism; a subclass overrides little."""

    name: ClassVar[str] = ""  # the file stem; set by `core.registry`
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    tasks: ClassVar[frozenset[Task]] = frozenset({"detection"})
    learns: ClassVar[bool] = False  # True: `adapt` writes an adapter before anything is generated
    makes_images: ClassVar[bool] = True  # False: N_aug is always 0
    not_runnable: ClassVar[str] = ""  # why `run` refuses it for now; it can still be planned
    chunk_size: ClassVar[int] = 20  # pictures made and committed together; part of the pool's key
    uses_gpu: ClassVar[bool] = False
    without_masks: ClassVar[str] = "take another augmenter, or a dataset with masks"  # the way out where it needs them

    class Config(Settings):
        """No settings by default."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def reads(self, shots: Shots) -> frozenset[str]:
        """What of the training split it looks at in this shot regime: a subset of negatives, shots, masks, regions.

        "masks" are those of what it sees; "regions" are those of all training positives, whatever the shots. Keys hold
        only what is read: an augmenter that reads no shots has one pool for all regimes and draws, so where it reads
        no shots it reads the same in each of them.
        """
        return frozenset({"negatives"})

    def refuses(self, shots: Shots) -> str:
        """Why this shot regime makes no sense for it ("" = it does); the plan drops such cells and says why."""
        return ""

    def notes(self, shots: Shots) -> str:
        """What a reader of its results in this regime must know, in a line; plans and reports print it ("" = none)."""
        return ""

    def key_settings(self) -> dict:
        """The settings that are part of keys: what differs from the defaults, as JSON values.

        A setting that is added later leaves old keys as they are; a default that has been released is never changed.
        Where a setting is a path, override this and put a digest of the content in its place.
        """
        return self.config.model_dump(mode="json", exclude_defaults=True)

    def parts(self) -> tuple[Part, ...]:
        """The parts of a mixture; () for an augmenter that makes its own pictures. A mixture owns no images."""
        return ()

    def candidates(self) -> tuple[Candidate, ...]:
        """What a quality search tries before anything is learned from all shots; (): nothing is searched.

        The engine runs the search; the augmenter that is used is `chosen`.
        """
        return ()

    def scoring(self) -> Scoring:
        """How the candidates are judged. Only asked where there are any."""
        raise NotImplementedError(f"{type(self).__name__}.scoring")

    def chosen(self, settings: Mapping[str, Any]) -> Augmenter:
        """The same augmenter with some settings in place of its own, and no search any more."""
        return type(self)(self.config.model_copy(update=dict(settings)))

    def embedded(self) -> bool:
        """True when it uses weights shipped in this package: results are labelled "mechanics, not evidence"."""
        return False

    def capacity(self, view: TrainView) -> int | None:
        """How many pictures it can make from this view; None = as many as asked. The plan refuses a larger N_aug."""
        return None

    def ready(self) -> None:
        """Called once before a run starts: see that what it needs beside the datasets is there, or fetch it.

        Raises:
            UserError: it is not, for example weights that cannot be downloaded.
        """

    def adapt(self, view: TrainView, out: Path, seed: int, room: AdaptContext) -> dict[str, Any] | None:
        """Learn from the view and write files into the empty folder ``out`` (safetensors, JSON). Only if `learns`.

        The result follows from view, settings and seed, whether or not it was interrupted and begun again.

        Returns:
            JSON values for the adapter's record, e.g. losses; None: nothing to say.

        Raises:
            UserError: the view cannot serve it, or a setting does not fit.
        """

    def load(self, adapter: Path | None, device: str) -> None:
        """Get ready to generate on ``device`` ("cpu", "cuda"); ``adapter`` is what `adapt` wrote, or None."""

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """One picture per request, in order. A picture depends on its request and the view alone (and, for diffusion,
        on the fixed chunk it is made in), never on what was generated before.

        Raises:
            UserError: the view cannot serve it (for example a source folder without pictures).
        """
        raise NotImplementedError(f"{type(self).__name__}.generate")
