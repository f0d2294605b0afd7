"""Small grids that run in seconds, and assertions that many tests share."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import yaml

from augbench.cli.app import main
from augbench.core import registry
from augbench.planning.grid import make_grid
from augbench.planning.library import Library
from augbench.planning.plan import make_plan
from augbench.testing import SURFACES as SMALL_SURFACES
from augbench.testing import view_of as view_of

HERE = Path(__file__).parent
ROOT = HERE.parent.parent  # of the repository
TOY = HERE / "plugins" / "toy.py"
SEARCHER = HERE / "plugins" / "searcher.py"
TINY = {
    "width": 32,
    "height": 48,
    "backbone": "test_byobnet",
    "weights": "scratch",
    "optimiser": "adamw",
    "lr": 0.002,
    "batch": 8,
    "epochs": 2,
    "holdout": 0.2,
    "false_alarm_rate": 0.25,
    "eval_batch": 16,
}
TINY_PROBE = {
    "name": "probe",
    "kind": "probe",
    "width": 32,
    "height": 48,
    "backbone": "micro_resnet",
    "holdout": 0.2,
    "false_alarm_rate": 0.25,
}
TINY_DDPM = {
    "bundle": "micro-sd",
    "zero": {
        "epochs": 1,
        "alpha": 0.6,
        "instances": 2,
        "prompts": ["skt background cracked", "skt background scratched"],
    },
    "few": {"epochs": 1, "alpha": 0.95},
    "full": {"epochs": 1, "alpha": 1.0},
    "class_pictures": 3,
    "repeats": 1,
    "batch": 4,
    "rank": 4,
    "conv_rank": 2,
    "steps": 2,
    "lr": 1e-3,
}


def tiny(**changes):
    """A grid as JSON values: surfaces, none and memseg, one seed."""
    return {
        "name": "tiny",
        "datasets": [{"name": "surfaces", "settings": dict(SMALL_SURFACES)}],
        "augmenters": ["none", "memseg"],
        "protocols": [{"name": "tiny", **TINY}],
        "shots": [0, 5],
        "n_aug": [6],
        "seeds": [0],
        "fidelity": None,  # fidelity would import torch, which nothing else here needs; its tests turn it on
        **changes,
    }


def grid_file(folder, **changes):
    """Write the grid of `tiny` to a YAML file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(**changes)))
    return path


def tiny_grid(**changes):
    return make_grid(tiny(**changes))


def tiny_plan(store=None, **changes):
    return make_plan(tiny_grid(**changes), store)


def on_disk(name, settings, **changes):
    """Changes for `tiny` that make it read a dataset written by `layouts`."""
    return {"datasets": [{"name": name, "settings": settings}], **changes}


def library_of(name, settings):
    return Library.of(tiny_grid(**on_disk(name, settings)).datasets)


def path_of(store, kind, key):
    """The path of a unit's file or folder in a local store."""
    return store.files.folder / store.name(kind, key)


def results_of(store):
    """Key -> (bytes of the result, lineage, bytes of the scores): equal, however a grid was run."""
    from augbench.storage.store import json_bytes

    found = {}
    for record in store.read_records(sorted(store.keys("cells"))):
        lineage = {name: record["provenance"][name] for name in ("pools", "adapters", "searches")}
        scores = store.files.read(store.name("scores", record["key"]))
        found[record["key"]] = (json_bytes(record["result"]), lineage, scores)
    return found


def cli(*arguments, **options):
    """Run the command line in this process where that is the same: another one would import everything again."""
    words = [str(word) for word in arguments]
    on_ray = "run" in words and "inline" not in words
    if options or on_ray or "--plugin" in words:
        return cli_process(*words, **options)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["augbench", *words])
        patch.setenv("COLUMNS", "120")
        patch.setattr(registry, "_files", {})  # those of the tests came without --plugin
        try:
            status = main()
        except SystemExit as ended:
            status = ended.code
        except Exception:
            traceback.print_exc()
            status = 1
    return subprocess.CompletedProcess(words, status or 0, out.getvalue(), err.getvalue())


def cli_process(*arguments, **options):
    """Run the command line in a subprocess."""
    environment = {**os.environ, "COLUMNS": "120", **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "augbench", *map(str, arguments)],
        capture_output=True, text=True, timeout=240, env=environment, **options,
    )  # fmt: skip


def assert_one_line(result, *fragments):
    """Assert that the command failed with exit status 2 and one line on stderr that contains all ``fragments``."""
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("augbench: ")
    for fragment in fragments:
        assert str(fragment) in lines[0], lines[0]


def same_image(a, b):
    return a.shape == b.shape and np.array_equal(a, b)
