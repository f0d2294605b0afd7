"""What `test_frozen.py` looks at, where it lives now: modules that move are followed here, not there."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

import layouts
import numpy as np
import pandas as pd

import augbench
from augbench.core import registry
from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset, Request, TrainView
from augbench.core.protocol import load_preset, preset_names
from augbench.core.seeds import derive_seed
from augbench.core.specs import AdapterSpec, AugmenterSpec, Cell, DataSpec, FidelitySpec, PoolSpec, SearchSpec
from augbench.diffusion.masks import procedural_region
from augbench.planning.splits import choose_shots, make_split

__all__ = [
    "AdapterSpec", "AugmenterSpec", "Cell", "DataSpec", "FidelitySpec", "PoolSpec", "SearchSpec", "choose_shots",
    "defaults", "derive_seed", "digest", "image_of", "load_preset", "make_split", "plugin_names", "preset_names",
    "procedural_region", "seeds_in_use", "small_dataset", "surface",
]  # fmt: skip


class Noise(Dataset):
    """Integers drawn by NumPy: the same on every processor. Defect images have a bright rectangle, and say where."""

    def samples(self):
        labels = [GOOD] * 6 + ["hole", "scratch"] * 2
        rows = [(f"{label}{i}", str(i), str(i), label, "train", str(i)) for i, label in enumerate(labels)]
        return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))

    def read_image(self, sample):
        image = np.random.default_rng(int(sample["image"])).integers(60, 180, (48, 32, 3), dtype=np.uint8)
        if sample["label"] != GOOD:
            image[self.read_mask(sample)] = 230
        return image

    def read_mask(self, sample):
        mask = np.zeros((48, 32), bool)
        mask[10:22, 8:20] = sample["label"] != GOOD
        return mask


def digest(value):
    """SHA-256 of an array's bytes, or of JSON."""
    data = value.tobytes() if isinstance(value, np.ndarray) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def image_of(augmenter, seed, **settings):
    """What an augmenter makes of `Noise`: H,W,3 uint8."""
    made, dataset = registry.make("augmenters", augmenter, settings), Noise()
    table = dataset.samples()
    good = table["label"] == GOOD
    view = TrainView(dataset, table[good], table[~good], made.reads("all"), "all", regions=table[~good])
    return made.generate([Request(0, seed, "defect")], view)[0].image


def surface(index):
    """Image and mask of a training sample of ``surfaces``, by its place in the table."""
    dataset = registry.make("datasets", "surfaces", {})
    sample = dataset.samples().query("split == 'train'").iloc[index].to_dict()
    return sample["id"], dataset.read_image(sample), dataset.read_mask(sample)


def small_dataset(name, folder):
    """A tiny dataset in its official layout."""
    return registry.make("datasets", name, getattr(layouts, f"draw_{name}")(folder))


def plugin_names(kind):
    """Names of augbench's own plug-ins, ``datasets`` or ``augmenters``."""
    return {name for name, plugin in registry.find(kind).items() if plugin.__module__.startswith("augbench.")}


def defaults(kind, name):
    """Setting -> default, as JSON values."""
    return registry.get(kind, name).Config().model_dump(mode="json")


def seeds_in_use():
    """The first argument of every call of `derive_seed` and `rng` in the source, where it is a text."""
    found = set()
    for path in Path(augbench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = getattr(node, "func", None)
            name = getattr(called, "id", getattr(called, "attr", ""))
            if name in ("derive_seed", "rng") and node.args and isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
    return found
