"""Ways to break a plug-in: each is one line that names it, and none disturbs a list of plug-ins."""

import re
import textwrap

import pytest
from helpers import assert_one_line, cli, grid_file

from augbench.core import registry
from augbench.core.errors import PluginError
from augbench.testing import SURFACES, AugmenterContract

AUGMENTER = """
import sys
import numpy as np
from pydantic import Field, model_validator
from augbench import Augmenter, Settings, Synthetic
from PIL import Image

class Fine(Augmenter):
    title = "fine"
    class Config(Settings):
        pass
    def generate(self, requests, view):
        return [self.one(request, view) for request in requests]
    def one(self, request, view, **others):
        image = view.image(view.negatives["id"][0]).copy()
        image[:4, :4] = request.seed % 200
        return Synthetic(image, request.label, **others)

class Bad(Fine):
"""
DATASET = """
import pandas as pd
from PIL import Image
from augbench.datasets.surfaces import Surfaces

class Bad(Surfaces):
"""
BOOM = 'raise ZeroDivisionError("boom")'


def method(name, body=BOOM, arguments="self, *rest"):
    return f"def {name}({arguments}): {body}"


# what the module is, what is wrong with it, how to use it ("list": that is enough to notice), and what the line names
BROKEN_AUGMENTERS = [
    ("raise RuntimeError('boom')", "plan", "import: RuntimeError: boom"),
    ("class Bad(", "plan", "import: SyntaxError"),
    ("import sys; sys.exit(3)", "plan", "import: SystemExit: 3"),
    ("import not_there", "plan", "import: ModuleNotFoundError"),
    ("Bad = 3", "plan", "no subclass of Augmenter"),
    ("from augbench.datasets.surfaces import Surfaces as Bad", "plan", "no subclass of Augmenter"),
]  # fmt: skip
BROKEN_CLASSES = [
    ("title = None", "plan", "title breaks the contract"),
    ("tasks = 'detection'", "plan", "tasks breaks the contract"),
    ("chunk_size = 0", "plan", "chunk_size breaks the contract"),
    ("reads = frozenset({'negatives'})", "plan", "reads breaks the contract: it must be a method"),
    ("embedded = True", "plan", "embedded breaks the contract: it must be a method"),
    ("Config = None", "plan", "Config breaks the contract: declare it as class Config(Settings)"),
    (
        "class Config(Settings):\n  @model_validator(mode='before')\n  def check(cls, raw): " + BOOM,
        "plan",
        "Config: ZeroDivisionError: boom",
    ),
    ("class Config(Settings):\n  size: int = Field(default_factory=lambda: 1 / 0)", "plan", "Config: ZeroDivision"),
    (method("__init__"), "plan", "__init__: ZeroDivisionError: boom"),
    (method("__init__", "pass"), "plan", "__init__ breaks the contract: it must call super().__init__(config)"),
    (method("__init__", "pass", "self"), "plan", "__init__: TypeError"),
    (method("__init__", "super().__init__(*rest); self.learns = 'maybe'"), "plan", "learns breaks the contract"),
    ("@property\n" + method("learns", arguments="self"), "plan", "learns: ZeroDivisionError: boom"),
    (method("reads"), "plan", "reads: ZeroDivisionError: boom"),
    (method("reads", "return None"), "plan", "reads breaks the contract"),
    (method("reads", "return {'negative'}"), "plan", "'negatives', 'shots', 'masks' or 'regions', not 'negative'"),
    (method("reads", "sys.exit(0)"), "plan", "reads: SystemExit: 0"),
    (method("refuses"), "plan", "refuses: ZeroDivisionError: boom"),
    (method("refuses", "return None"), "plan", "refuses breaks the contract"),
    (method("notes"), "plan", "notes: ZeroDivisionError: boom"),
    (method("key_settings", "return {'a': object()}"), "plan", "key_settings breaks the contract: it must hold JSON"),
    (method("parts", "return [('memseg', 1)]"), "plan", "parts breaks the contract"),
    (method("capacity", "return 'many'"), "plan", "capacity breaks the contract"),
    (method("candidates", "yield 1"), "plan", "candidates breaks the contract"),
    ("generate = Augmenter.generate", "run", "generate: NotImplementedError"),
    (method("ready"), "run", "ready: ZeroDivisionError: boom"),
    ("learns = True\n" + method("adapt"), "run", "adapt: ZeroDivisionError: boom"),
    ("learns = True\n" + method("adapt", "return {'a': np.ones(2)}"), "run", "adapt breaks the contract"),
    (method("load"), "run", "load: ZeroDivisionError: boom"),
    (method("generate"), "run", "generate: ZeroDivisionError: boom"),
    (method("generate", "return None"), "run", "generate breaks the contract: Input should be a valid list, not None"),
    (
        method("generate", "return [self.one(r, rest[1]).image for r in rest[0]]"),
        "run",
        "instance of Synthetic, not nd",
    ),
    (method("generate", "return super().generate(*rest)[1:]"), "run", "images for 20 requests"),
    (method("one", "return Synthetic(Image.new('RGB', (64, 176)), 'defect')"), "run", "Synthetic.image at image 0"),
    (method("one", "return super().one(*rest, meta={'a': object()})"), "run", "Synthetic.meta at image 0"),
    (method("one", "return super().one(*rest, meta=None)"), "run", "Synthetic.meta at image 0"),
]
BROKEN_DATASETS = [
    ("folds = 'five'", "plan", "folds breaks the contract"),
    ("class Config(Surfaces.__base__.__mro__[1]): pass\nConfig = int", "plan", "Config breaks the contract"),
    (method("samples"), "plan", "samples: ZeroDivisionError: boom"),
    (method("samples", "return [1]"), "plan", "samples breaks the contract: Input should be an instance of DataFrame"),
    (method("samples", "return super().samples().drop(columns='mask')"), "plan", "the table lacks the columns mask"),
    (method("samples", "return super().samples().assign(id=1)"), "plan", "column id holds values that are not str"),
    (method("fingerprint"), "plan", "fingerprint: ZeroDivisionError: boom"),
    (method("read_image"), "check", "read_image: ZeroDivisionError: boom"),
    (method("read_image", "return Image.new('RGB', (64, 176))"), "check", "read_image breaks the contract"),
    (method("read_mask", "return super().read_mask(*rest) * 1"), "check", "read_mask breaks the contract"),
    (method("check"), "check", "check: ZeroDivisionError: boom"),
    (method("notes", "return None"), "check", "notes breaks the contract"),
]  # fmt: skip
CASES = [
    *(("augmenters", module, use, line) for module, use, line in BROKEN_AUGMENTERS),
    *(("augmenters", AUGMENTER + textwrap.indent(body, "    "), use, line) for body, use, line in BROKEN_CLASSES),
    *(("datasets", DATASET + textwrap.indent(body, "    "), use, line) for body, use, line in BROKEN_DATASETS),
]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a module as the package ``broken`` with one entry point, and let augbench find its plug-ins anew."""

    def install(kind, module, name="bad"):
        site = tmp_path / "site"
        (site / "broken-1.0.dist-info").mkdir(parents=True)
        (site / "broken-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
        entry = f"[augbench.{kind}]\n{name} = {tmp_path.name}_module:Bad\n"
        (site / "broken-1.0.dist-info" / "entry_points.txt").write_text(entry)
        (site / f"{tmp_path.name}_module.py").write_text(module)
        monkeypatch.syspath_prepend(site)
        for table in ("_found", "_broken", "_versions"):
            monkeypatch.setattr(registry, table, {})

    return install


@pytest.mark.parametrize(("kind", "module", "use", "line"), CASES, ids=[re.sub(r"\W+", "-", c[3][:40]) for c in CASES])
def test_a_broken_plugin_is_one_line_and_disturbs_no_list(installed, tmp_path, kind, module, use, line):
    installed(kind, module)
    for what, own in (("augmenters", "memseg"), ("datasets", "surfaces")):
        listed = cli("list", what)
        assert listed.returncode == 0 and own in listed.stdout and not listed.stderr, listed.stdout + listed.stderr
    name = {kind: ["bad"]}
    if kind == "datasets":
        name = {kind: [{"name": "bad", "settings": {"train_good": 24, "train_defective": 8, "test_good": 12}}]}
    grid = grid_file(tmp_path, shots=[5], **{"augmenters": ["memseg"], **name})
    if use == "check":
        found = cli("datasets", "check", "bad", "--set", "train_good=8", "--set", "test_good=8")
        assert found.returncode == 2 and line in found.stdout + found.stderr, found.stdout + found.stderr
        assert "bad" in found.stdout + found.stderr and "Traceback" not in found.stderr
        return
    if use == "plan":
        assert_one_line(cli("plan", grid), "'bad'", "broken==1.0", line)
        return
    found = cli("run", grid, "--store", tmp_path / "store", "--executor", "inline")
    text = " ".join((found.stdout + found.stderr).split())
    assert found.returncode == 2 and "'bad' (broken==1.0" in text and line in text, found.stdout + found.stderr
    assert "Traceback" not in found.stderr


def test_the_contract_tests_of_third_parties_find_it(installed):
    installed("augmenters", AUGMENTER + textwrap.indent(method("capacity", "return 'many'"), "    "))
    contract = AugmenterContract()
    with pytest.raises(PluginError, match="capacity breaks the contract"):
        contract.test_every_method_returns_what_the_contract_declares(
            registry.make("augmenters", "bad", {}), registry.make("datasets", "surfaces", SURFACES)
        )


def test_a_name_that_is_taken_is_refused_at_the_plugin_that_takes_it(installed, tmp_path):
    installed("augmenters", AUGMENTER + "    pass", "memseg")
    listed = cli("list", "augmenters")
    assert listed.returncode == 0 and "memseg is broken: broken==1.0: 'memseg' is already" in listed.stdout
    assert cli("plan", grid_file(tmp_path)).returncode == 0


def test_what_a_plugin_raises_on_purpose_passes_unchanged(installed, tmp_path):
    body = method("reads", 'from augbench import UserError; raise UserError("bad: buy a microscope")')
    installed("augmenters", AUGMENTER + textwrap.indent(body, "    "))
    found = cli("plan", grid_file(tmp_path, augmenters=["bad"]))
    assert_one_line(found, "bad: buy a microscope")
    assert "augmenter" not in found.stderr
