"""Five hundred mutated grids: each is refused in one line or accepted, and none ends in a traceback.

``python tests/unit/planning/test_mutated_grids.py`` prints the accepted ones with their cells, to be reviewed.
"""

import random
import re
import sys
import tempfile
import traceback
from pathlib import Path

from augbench.core.errors import UserError
from augbench.planning.grid import load_grid, make_grid
from augbench.planning.plan import make_plan

MUTATIONS = 500
GRID = """\
about: a grid to break
datasets:
  - name: surfaces
    as: plates
augmenters:
  - none
  - {name: memseg, shots: [0, 2]}
  - name: cutpaste
    as: pasted
    n_aug: 4
    settings: &pasted {variant: patch}
  - name: mixture
    settings:
      parts:
        - {name: memseg, share: 0.5}
        - {name: cutpaste, share: 0.5, settings: *pasted}
shots: [2]
n_aug: [4]
seeds: [0]
draws: [0]
fresh_pools: false
protocols:
  - {name: demo, epochs: 1, lr: 0.001}
  - name: small
    preset: demo
    holdout: 0.2
    flip: true
resources:
  train: {cpu: 1, memory: 1GB}
fidelity: {pictures: 4}
"""
SCALARS = [
    "no", "yes", "on", "true", "~", "", "0123", "-0123", "08", "1:30", "1e-4", "1.0e-4", "0x10", "1_0", "-1", "1.5",
    "0", ".nan", ".inf", "-.inf", "1.0e+400", "9" * 40, "2024-01-01", "2024-01-01 10:00:00", "=", "<<", "nan", "inf",
    "{{ x }}", "{{x}}", "[]", "{}", "[1, [2, [3]]]", "{a: 1}", "{a: {b: {c: 1}}}", "{1: 2}", "{no: yes}", "{[1]: 2}",
    "[no]", "[yes, 2]", "[~]", "'no'", '"0"', "'1e-4'", "a b", "a/b", "../x", "~/x", "~nobody/x", "m" * 240,
    "x" * 5000, "ü", "🙂", '"\\0"', '"\\ud800"', '"a\\nb"', "[/b]", "*pasted", "*other", "&pasted 1", "!!binary aGk=",
    "!!python/name:os.system x", "!!int abc", "!!float 1", "!!str 1", "!!set {a}", "!x 1", "@x", "`x", "%x", "- 1",
    ": ", "? x", "|", ">", "#", '"', "'", "[" * 60, "[" * 60 + "]" * 60, "a: b: c", "\t", "1\t", "self", "name",
    "None", "null", "all", "surfaces", "memseg", "demo", "-", "1,2", "[1,, 2]", "0.5", "1e999", "5 GB", "8GB",
]  # fmt: skip
KEYS = [
    "on", "no", "1", "0123", "~", "1.5", "2024-01-01", "{{ x }}", "[1]", "<<", "=", "self", "name", "as", "alias",
    "settings", "root", "preset", "epochs", "epoch", "seed", "texture_share", "folds", "''", "? x", "m" * 300,
    "&k key", "*pasted", "!!int 3", "a b", "kind", "sources", "about", "_former", "model_config", "weights",
]  # fmt: skip
PATHS = [
    "seeds", "shots", "datasets", "datasets.plates.root", "datasets.surfaces.folds", "augmenters",
    "augmenters.memseg.as", "augmenters.memseg.texture_share", "augmenters.memseg.settings",
    "augmenters.mixture.parts", "protocols", "protocols.demo.lr", "protocols.demo.name", "protocols.small.flip",
    "protocols.small.weights", "resources.train.gpu", "resources", "fidelity", "fidelity.extractor", "about",
    "about.x", "name", "", "seeds.0", "augmenters.memseg.a.b.c", "protocols.demo.sources",
]  # fmt: skip
TOKEN = re.compile(r"(?<=: )[^{}\[\],\n]+|(?<=\[)[^{}\[\],\n]+|(?<=- )[^{}\[\],:\n]+(?=$)", re.MULTILINE)
KEY = re.compile(r"[a-z_]+(?=:)")


def replaced(text, pattern, new, rng):
    start, end = rng.choice([match.span() for match in pattern.finditer(text)])
    return text[:start] + new + text[end:]


def mutated(rng):
    """A grid's text, and the changes of --set."""
    lines = GRID.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    line = f"{rng.choice(KEYS)}: {rng.choice(SCALARS)}\n"
    kind = rng.randrange(12)
    if kind < 4:
        return replaced(GRID, TOKEN, rng.choice(SCALARS), rng), []
    if kind < 6:
        return replaced(GRID, KEY, rng.choice(KEYS), rng), []
    if kind == 6:
        return "".join([*lines[:at], indent + line, *lines[at:]]), []
    if kind == 7:
        return "".join([*lines[: at + 1], lines[at], *lines[at + 1 :]]), []
    if kind == 8:
        return "".join([*lines[:at], *lines[at + 1 :]]), []
    if kind == 9:
        other = rng.choice(["\t", " ", "- ", "---\n", "...\n", "<<: *pasted\n", "\ufeff", "\x01", "%TAG ! x\n", "? "])
        return "".join([*lines[:at], other, *lines[at:]]), []
    changes = [f"{rng.choice(PATHS)}={rng.choice(SCALARS)}" for _ in range(rng.choice([1, 1, 2]))]
    return GRID, changes


def outcomes(folder):
    """Yield (text, changes, the plan or the error) of each mutation."""
    rng = random.Random(0)
    path = folder / "broken.yaml"
    for _ in range(MUTATIONS):
        text, changes = mutated(rng)
        path.write_text(text, encoding="utf-8")
        try:
            grid = load_grid(path, changes)
            plan = make_plan(grid)
            assert make_grid(grid.as_dict()).as_dict() == grid.as_dict()  # as a store holds it
            yield text, changes, plan
        except Exception as error:
            yield text, changes, error


def test_no_mutated_grid_ends_in_a_traceback(tmp_path):
    found = list(outcomes(tmp_path))
    for text, changes, outcome in found:
        if isinstance(outcome, Exception):
            trace = "".join(traceback.format_exception(outcome))
            assert isinstance(outcome, UserError), f"{text}\n{changes}\n{trace}"
            assert "\n" not in str(outcome).strip() and 0 < len(str(outcome)) < 700, str(outcome)
    accepted = [outcome for *_, outcome in found if not isinstance(outcome, Exception)]
    assert len(accepted) == 41  # reviewed: run this file to see them


if __name__ == "__main__":
    import difflib

    with tempfile.TemporaryDirectory() as place:
        for text, changes, outcome in outcomes(Path(place)):
            difference = [line for line in difflib.ndiff(GRID.splitlines(), text.splitlines()) if line[0] in "+-"]
            is_error = isinstance(outcome, Exception)
            if "-v" in sys.argv or not is_error or not isinstance(outcome, UserError):
                said = f"{type(outcome).__name__}: {outcome}" if is_error else f"{len(outcome.cells)} cells"
                print(f"{'; '.join(line[:100] for line in difference + changes)} => {said[:300]}")
