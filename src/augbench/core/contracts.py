"""Base classes of plug-ins: `Dataset` and `Augmenter`, and the `TrainView` that an augmenter reads.

Nothing here imports torch or ray. Listing plug-ins imports their modules, so heavy imports belong inside methods.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from augbench.core.errors import UserError
from augbench.core.hashing import canonical_json
from augbench.core.images import decode_grey, decode_rgb, read_bytes
from augbench.core.models import StrictModel
from augbench.core.types import AdaptContext, Candidate, Part, Request, Scoring, Synthetic
from augbench.core.walk import walk

Workroom = AdaptContext  # deprecated: the name of version 0.1.0, see `augbench.core.plugins`

Task = Literal["detection", "recognition"]
Shots = int | Literal["all"]
Reads = Literal["negatives", "shots", "masks", "regions"]

GOOD = "good"
"""The label of a sample without a defect, in every dataset."""

DEFECTIVE = "defective"
"""In `Dataset.official_counts`: every label except `GOOD`."""

SAMPLE_COLUMNS = ("id", "image", "mask", "label", "split", "group")


def _is_table(table: pd.DataFrame) -> pd.DataFrame:
    if missing := [column for column in SAMPLE_COLUMNS if column not in table.columns]:
        raise ValueError(f"the table lacks the columns {', '.join(missing)}")
    for column in SAMPLE_COLUMNS:
        if not all(isinstance(value, str) for value in table[column]):
            raise ValueError(f"the column {column} holds values that are not str")
    return table


def _is_rgb(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"it must return H,W,3 uint8, not {image.shape} {image.dtype}")
    return image


def _is_mask(mask: np.ndarray) -> np.ndarray:
    if mask.dtype != bool or mask.ndim != 2:
        raise ValueError(f"it must return H,W bool, not {mask.shape} {mask.dtype}")
    return mask


def _is_json(values: dict[str, Any]) -> dict[str, Any]:
    if problem := json_problem(values):
        raise ValueError(problem)
    return values


def json_problem(values: object) -> str:
    """Return why ``values`` is not a dict of JSON values, for a message; "" if it is."""
    if not isinstance(values, dict):
        return f"it must be a dict of JSON values, not {type(values).__name__}"
    try:
        canonical_json(values)
    except (TypeError, ValueError, RecursionError) as error:
        return f"it must hold JSON values and finite numbers ({error})"
    return ""


SampleTable = Annotated[pd.DataFrame, AfterValidator(_is_table)]
"""A table with `SAMPLE_COLUMNS`, all str."""

RgbImage = Annotated[np.ndarray, AfterValidator(_is_rgb)]
"""H,W,3 uint8."""

Mask = Annotated[np.ndarray, AfterValidator(_is_mask)]
"""H,W bool."""

JsonDict = Annotated[dict[str, Any], AfterValidator(_is_json)]
"""JSON values by name."""


class Settings(StrictModel):
    """Base of every plug-in's nested ``Config``: frozen; an unknown key is an error."""


class Dataset:
    """A table of samples and a way to read them.

    A subclass sets the class attributes and implements `samples`. It overrides `decode_mask` if its masks are not image
    files, and `read_image`, `read_mask` and `fingerprint` if it is not made of files. `augbench datasets show` prints
    the class docstring, which describes the expected layout.
    """

    name: ClassVar[str] = ""  # the file stem; set by `core.registry`
    origin: ClassVar[str] = "augbench"  # its file, or its package and version; set by `core.registry`
    title: ClassVar[str] = ""
    task: Task = "detection"
    licence: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    embedded: ClassVar[bool] = False  # True: toy data, so results are labelled "smoke-test parts: not evidence"
    known: ClassVar[Mapping[str, str]] = {}  # sample id -> known anomaly of the official archive
    official_counts: Mapping[str, int] = {}  # "<split> <label>" or "<label>" -> images; `DEFECTIVE`: all but good
    folds: NonNegativeInt = (
        0  # 0: the split column of `samples` is the official split; k: grouped k-fold, an axis of the grid
    )

    class Config(Settings):
        """Settings of every dataset; the ``description`` of a field is its help text."""

        root: Path | None = Field(None, description="the folder with the dataset's files; not part of any key")

    location_settings: ClassVar[frozenset[str]] = frozenset({"root"})  # settings that are not part of keys
    from_options: bool = False  # its settings are options of the command that was typed; for messages

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def samples(self) -> SampleTable:
        """Return one row per sample, sorted by ``id``, with the columns `SAMPLE_COLUMNS` (all str).

        ``image`` and ``mask`` are paths relative to the root ("" = no mask file), ``label`` is `GOOD` or a defect
        class, ``split`` is "train" or "test" ("" where `folds` > 0), ``group`` names the physical item: a group is
        never on both sides of a split.

        Raises:
            UserError: the files are missing or not in the expected layout. `DatasetError` if only some rows fail.
        """
        raise NotImplementedError(f"{type(self).__name__}.samples")

    def read_image(self, sample: Mapping[str, str]) -> RgbImage:
        """Read the image of one row of `samples`: H,W,3 uint8, RGB."""
        path = self.root() / sample["image"]
        return decode_rgb(read_bytes(path), str(path))

    def read_mask(self, sample: Mapping[str, str]) -> Mask | None:
        """Read the defect mask of one row of `samples`: H,W bool, or None if the dataset has no mask for it."""
        if not sample["mask"]:
            return None
        path = self.root() / sample["mask"]
        return self.decode_mask(read_bytes(path), str(path), sample["label"])

    def decode_mask(self, data: bytes, name: str, label: str) -> Mask:
        """Decode a mask file to H,W bool. Errors call it ``name``; ``label`` is the class of its image."""
        return decode_grey(data, name) > self.mask_threshold

    mask_threshold: int = 0  # mask values above it count as defect

    def root(self) -> Path:
        """Return the folder with the dataset's files. Raises UserError if no root is set, or it is not a folder."""
        root = self.config.root
        fix = self.where_to_put_it() + (f"; get it at {self.homepage}" if self.homepage else "")
        if root is None:
            raise UserError(f"dataset '{self.name}' has no root: {fix}")
        if not Path(root).is_dir():
            raise UserError(f"dataset '{self.name}': '{root}' is not a folder: {fix}")
        return Path(root)

    def option(self, key: str, value: str) -> str:
        """Spell a setting as the command that was typed takes it, for messages."""
        text = value if yaml.safe_load(value) == value else f'"{value}"'  # as YAML reads no and 0
        return f"--set {quote(f'{key}={text}' if self.from_options else f'datasets.{self.name}.{key}={text}')}"

    def where_to_put_it(self) -> str:
        """Say how to name the root, and what is wrong with ``AUGBENCH_DATA`` if it is set."""
        base = os.environ.get("AUGBENCH_DATA")
        here = f"AUGBENCH_DATA is '{base}', which "
        wrong = "" if not base else f"{here}is not a folder; " if not Path(base).is_dir() else ""
        if base and not wrong and not (Path(base) / self.name).is_dir():
            wrong = f"{here}has no folder '{self.name}'; "
        way = "--root DIR" if self.from_options else f"--root {self.name}=DIR"
        return f"{wrong}give {way}, or set AUGBENCH_DATA to the folder that holds '{self.name}/'"

    def files(self) -> list[Path]:
        """List the files that the fingerprint covers, in the order of `samples`."""
        table = self.samples()
        names = [*table["image"], *(m for m in table["mask"] if m)]
        return [self.root() / name for name in names]

    def fingerprint(self) -> str:
        """Compute the SHA-256 (hex) of the samples table and the digests of its files. Reads every file once."""
        total = hashlib.sha256(self.samples().to_json(orient="values").encode())
        for path in self.files():
            total.update(self._digests.get(_state(path)) or self.remember(path, read_bytes(path)))
        return total.hexdigest()

    def remember(self, path: Path, data: bytes) -> bytes:
        """Cache the SHA-256 of a file that was just read, so that `fingerprint` does not read it again if unchanged."""
        digest = self._digests[_state(path)] = hashlib.sha256(data).digest()
        return digest

    @cached_property
    def _digests(self) -> dict[tuple[str, int, int], bytes]:
        return {}

    def classes(self) -> tuple[str, ...]:
        """Return the defect classes, sorted: every label except `GOOD`."""
        return tuple(sorted(set(self.samples()["label"]) - {GOOD}))

    def has_masks(self) -> bool:
        """Whether every defect sample has a mask file."""
        table = self.samples()
        return bool((table.loc[table["label"] != GOOD, "mask"] != "").all())

    def key_settings(self) -> JsonDict:
        """Return the settings that enter keys: non-default values except `location_settings`, as JSON values."""
        settings = self.config.model_dump(mode="json", exclude_defaults=True)
        return {k: v for k, v in settings.items() if k not in self.location_settings}

    def check(self) -> list[str]:
        """List deviations from the official counts, one sentence each."""
        problems = []
        for what, expected in self.official_counts.items():
            found = self.count(what)
            if found != expected:
                problems.append(f"{what}: {found} images, the official number is {expected}")
        return problems

    def count(self, what: str) -> int:
        """Count the images of "<split> <label>" or "<label>", as named in `official_counts`."""
        table = self.samples()
        split, _, label = what.rpartition(" ")
        rows = table if not split else table[table["split"] == split]
        return int(((rows["label"] != GOOD) if label == DEFECTIVE else (rows["label"] == label)).sum())

    def home(self) -> Path:
        """Return the folder to search for files: the root, or the part of it that a setting selects."""
        return self.root()

    def strays(self) -> list[str]:
        """List image files below `home` that are not in the table: sorted paths relative to the root."""
        table, home = self.samples(), self.home()
        below = "" if home == self.root() else f"{home.relative_to(self.root()).as_posix()}/"
        names = {below + name for name in walk(home).images()}
        return sorted(names - set(table["image"]) - set(table["mask"]))

    def reason(self, name: str) -> str:
        """Explain why an image file below `home` is not in the table; ``name`` is relative to the root."""
        return "images where this layout has none"

    def tables(self) -> set[str]:
        """Name the files besides images and masks that `samples` reads, relative to the root."""
        return set()

    def notes(self) -> list[str]:
        """List what `augbench datasets check` should say about the files, one sentence each; no problems."""
        return []


def _state(path: Path) -> tuple[str, int, int]:
    """Identify the version of a file by path, size and modification time."""
    try:
        stat = path.stat()
    except OSError:
        return str(path), -1, -1  # reading the file raises the proper error
    return str(path), stat.st_size, stat.st_mtime_ns


class TrainView:
    """The training data that an augmenter declared to read.

    It holds no held-out and no test samples, so an augmenter cannot reach them.
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
        """Select the visible rows.

        Args:
            dataset: reads images and masks.
            negatives: rows of the training negatives.
            shots: rows of the real defect samples to use.
            reads: what the augmenter declared: a subset of negatives, shots, masks, regions.
            regime: the requested number of shots; None if shots are not read or the number is unknown.
            regions: rows of all training positives, independent of the shots.
        """
        self.task = dataset.task
        self.regime = regime
        self._dataset = dataset
        self._reads = reads
        self._negatives = negatives.reset_index(drop=True)
        self._shots = shots.reset_index(drop=True)
        visible = [t for name, t in (("negatives", self._negatives), ("shots", self._shots)) if name in reads]
        self._rows = _by_id(pd.concat(visible)) if visible else {}
        marked = _by_id(regions) if regions is not None and "regions" in reads else {}
        self._regions = {name: row for name, row in marked.items() if row["mask"]}

    @property
    def classes(self) -> tuple[str, ...]:
        """The defect classes in recognition, in the order in which requests ask for them; () in detection."""
        return self._dataset.classes() if self.task == "recognition" else ()

    @property
    def negatives(self) -> pd.DataFrame:
        """The rows of the training negatives, in a fixed order."""
        self._demand("negatives")
        return self._negatives

    @property
    def shots(self) -> pd.DataFrame:
        """The rows of the real defect samples to use, in a fixed order (empty at zero-shot)."""
        self._demand("shots")
        return self._shots

    def image(self, sample_id: str) -> np.ndarray:
        """Read the image of a visible sample: H,W,3 uint8; KeyError for any other."""
        return self._dataset.read_image(self._rows[sample_id])

    def mask(self, sample_id: str) -> np.ndarray | None:
        """Read the mask of a visible sample: H,W bool, None if it has no mask file; KeyError for any other."""
        self._demand("masks")
        return self._dataset.read_mask(self._rows[sample_id])

    @property
    def regions(self) -> tuple[str, ...]:
        """The ids of all training positives with a mask, independent of the shots, in a fixed order."""
        self._demand("regions")
        return tuple(self._regions)

    def region(self, sample_id: str) -> np.ndarray | None:
        """Read the mask of one of `regions`: H,W bool; KeyError for any other. Its image stays hidden."""
        self._demand("regions")
        return self._dataset.read_mask(self._regions[sample_id])

    def with_shots(self, ids: Sequence[str]) -> TrainView:
        """Return a view restricted to these shots; everything else is unchanged."""
        rows = self._shots[self._shots["id"].isin(ids)]
        part = TrainView(self._dataset, self._negatives, rows, self._reads, self.regime)
        part._regions = self._regions
        return part

    def reads(self, what: str) -> bool:
        """Whether the augmenter declared to read ``what``: negatives, shots, masks or regions."""
        return what in self._reads

    def _demand(self, what: str) -> None:
        if what not in self._reads:
            raise PermissionError(f"this augmenter declares reads={sorted(self._reads)}; '{what}' is not among them")


def _by_id(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Map the id of each row to the row."""
    return {row["id"]: {str(column): value for column, value in row.items()} for row in table.to_dict("records")}


class Augmenter:
    """A method that makes synthetic defect images. Subclasses override only what differs."""

    name: ClassVar[str] = ""  # the file stem; set by `core.registry`
    origin: ClassVar[str] = "augbench"  # its file, or its package and version; set by `core.registry`
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    control: ClassVar[str] = ""  # what its results control for, one line; "": it is an augmenter, not a control
    tasks: ClassVar[frozenset[Task]] = frozenset({"detection"})
    learns: ClassVar[bool] = False  # True: `adapt` trains an adapter before generation
    makes_images: ClassVar[bool] = True  # False: N_aug is always 0
    not_runnable: ClassVar[str] = ""  # why `run` refuses it; it can still be planned
    chunk_size: ClassVar[PositiveInt] = 20  # images generated and committed together; part of the pool's key
    uses_gpu: ClassVar[bool] = False
    from_outside: ClassVar[bool] = False  # True: made elsewhere, so the stage refuses near-copies of test images
    learned_words: ClassVar[str] = "its generator was trained on"  # before the number of images in `trained_on`
    without_masks: ClassVar[str] = "take another augmenter, or a dataset with masks"  # advice if it needs masks

    class Config(Settings):
        """No settings by default."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def reads(self, shots: Shots) -> frozenset[Reads]:
        """Declare what it reads in this shot regime: a subset of negatives, shots, masks, regions.

        "masks" are the masks of visible samples; "regions" are the masks of all training positives, independent of the
        shots. Keys hold only what is read: an augmenter that reads no shots has one pool for all regimes and draws, so
        it must read the same in each regime without shots.
        """
        return frozenset({"negatives"})

    def refuses(self, shots: Shots) -> str:
        """Explain why it does not support this shot regime ("" = it does); the plan then drops the cells."""
        return ""

    def notes(self, shots: Shots) -> str:
        """Return one line of caveats about its results in this regime; plans and reports print it ("" = none)."""
        return f"a control: {self.control}" if self.control else ""

    def trained_on(self) -> tuple[str, ...] | None:
        """Return the ids of the samples that a generator outside of augbench learned from; None: not known, or none.

        The plan refuses ids of test images, and notes say which are defects that the shots do not hold.
        """
        return None

    def prompts_from(self) -> str:
        """Say what its prompts were chosen by looking at, e.g. "training images"; "unknown", or "" without prompts."""
        return ""

    def certified(self) -> str:
        """Say which person chose its images, and how many of how many; "" if nobody did."""
        return ""

    def key_settings(self) -> JsonDict:
        """Return the settings that enter keys: non-default values, as JSON values.

        So a setting that is added later leaves old keys unchanged; a released default must never change. If a setting
        is a path, override this method and replace the path by a digest of the content.
        """
        return self.config.model_dump(mode="json", exclude_defaults=True)

    def parts(self) -> tuple[Part, ...]:
        """Return the parts of a mixture; () for an augmenter that generates images itself. A mixture owns no images."""
        return ()

    def candidates(self) -> tuple[Candidate, ...]:
        """Return the candidates of the quality search that runs before training on all shots; (): no search.

        The engine runs the search and uses the augmenter that `chosen` returns.
        """
        return ()

    def scoring(self) -> Scoring:
        """Return how candidates are scored. Only called if there are any."""
        raise NotImplementedError(f"{type(self).__name__}.scoring")

    def chosen(self, settings: Mapping[str, Any]) -> Augmenter:
        """Return this augmenter with some settings replaced and without a search."""
        return type(self)(self.config.model_copy(update=dict(settings)))

    def precision_on(self, device: str) -> str:
        """Return the precision it computes in on a device: fp32, tf32, bf16 or fp16; "" if it does not say.

        Records name it, and no pool mixes two. In tf32 matrix products and convolutions use it, otherwise never.
        """
        return ""

    def embedded(self) -> bool:
        """Whether it uses smoke-test weights of this package: results are labelled "smoke-test parts: not evidence"."""
        return False

    def capacity(self, view: TrainView) -> int | None:
        """Return how many images it can make from this view; None = no limit. The plan refuses a larger N_aug."""
        return None

    def ready(self) -> None:
        """Check, once before a run, that everything it needs besides the datasets is available, or download it.

        Raises:
            UserError: something is missing, for example weights that cannot be downloaded.
        """

    def training_steps(self, shots: Shots, images: int, classes: int) -> int | None:
        """Return the optimiser steps of `adapt` in a shot regime, for plans; None: unknown, or it does not learn.

        Args:
            shots: the regime.
            images: number of images that it may learn from: shots, or normal images where it reads no shots.
            classes: number of classes of defects; 1 in detection.
        """
        return None

    def gpu_memory(self, stage: Literal["adapt", "generate"]) -> float | None:
        """Estimate the GPU memory that a stage needs in GiB, for plans and default shares of a GPU; None: unknown.

        Only called if `uses_gpu`.
        """
        return None

    def adapt(self, view: TrainView, out: Path, seed: int, context: AdaptContext) -> JsonDict | None:
        """Train on the view and write files into the empty folder ``out`` (safetensors, JSON). Only if `learns`.

        The result depends on view, settings and seed only, also after an interruption and a restart.

        Returns:
            JSON values for the adapter's record, e.g. losses; None: no values.

        Raises:
            UserError: the view lacks what it needs, or a setting does not fit.
        """

    def load(self, adapter: Path | None, device: str) -> None:
        """Prepare to generate on ``device`` ("cpu", "cuda"); ``adapter`` is the folder that `adapt` wrote, or None."""

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Generate one image per request, in order.

        An image depends on its request and the view only (for diffusion also on its chunk, whose composition is
        fixed), never on what was generated before.

        Raises:
            UserError: something it needs is missing (for example images in a source folder).
        """
        raise NotImplementedError(f"{type(self).__name__}.generate")


Plugin = type[Dataset] | type[Augmenter]
"""The class of a plug-in."""
