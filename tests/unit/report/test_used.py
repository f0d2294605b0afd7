"""The information line: what synthetic images were made from, and by looking at what their prompts were chosen."""

import json
from pathlib import Path

import pandas as pd
import pytest
from boards import cell, expect, write

from augbench.core import registry
from augbench.core.filters import Filters
from augbench.planning.used import used_by
from augbench.report.store_report import report

UNKNOWN = "prompts (chosen by looking at: unknown)"
IN_TESTS = "prompts (chosen by looking at: synthetic images, in a series of tests; the paper names no real ones)"
OF_DIAG = (
    "prompts (chosen by looking at: synthetic images, in tests until they resembled plausible defects; the paper names "
    "no real ones)"
)


def used(name, shots, **settings):
    return used_by(registry.make("augmenters", name, settings), shots, Filters())


@pytest.mark.parametrize(
    ("name", "shots", "settings", "words"),
    [
        ("memseg", 5, {}, ("normal images",)),
        ("memseg", 5, {"source": "shots"}, ("5 real defects",)),
        ("diag", 0, {}, ("normal images", "masks of all real defects", OF_DIAG)),
        ("diag", 1, {}, ("normal images", "1 real defect", "their masks", OF_DIAG)),
        ("diag", "all", {"masks": "procedural", "prompts": "neutral"}, ("normal images", UNKNOWN)),
        ("vae_roundtrip", 0, {}, ("normal images",)),
        ("ddpm", 0, {}, ("normal images", IN_TESTS)),
        ("inout", 5, {}, ("5 real defects", IN_TESTS, "normal images")),
        ("none", "all", {}, ()),
    ],
)
def test_what_images_are_made_from_follows_from_reads_settings_and_parts(name, shots, settings, words):
    assert used(name, shots, **settings) == words


def test_a_set_of_prompts_says_what_it_was_chosen_by_and_that_is_in_no_key(tmp_path):
    path = tmp_path / "mine.yaml"
    keys = []
    for text in ("", "chosen_by: training images of defects\n"):
        path.write_text(f"prompts: [a scratch]\n{text}")
        keys.append(registry.make("augmenters", "diag", {"prompts": str(path)}).key_settings())
    assert used("diag", 0, prompts=str(path))[-1] == "prompts (chosen by looking at: training images of defects)"
    assert keys[0] == keys[1]


def test_tables_and_files_say_it_for_each_row_of_synthetic_images(store):
    cells = [cell("none", 0), *(cell("memseg", n) for n in (40, 80)), cell("diag", 40), cell("gone", 40)]
    for one in cells:
        write(store, one)
    expect(store, "grid", cells)
    made = {file.rpartition(".")[2]: file for file in report(store, "grid")}
    line = f"Images were made from: memseg: normal images; diag: normal images, masks of all real defects, {OF_DIAG}."
    (table,) = json.loads(Path(made["json"]).read_text())["tables"]
    assert line in table["notes"]
    found = {(row["augmenter"], row["n_aug"]): row["used"] for row in table["rows"]}
    assert found["memseg", 40] == found["memseg", 80] == found["memseg", None] == ["normal images"]
    assert found["none", 0] == found["gone", 40] == [], "of a plug-in that is not installed nothing is known"
    lines = pd.read_csv(made["csv"]).query("row == 'cells'").set_index("augmenter")["used"]
    assert lines["diag"] == f"normal images; masks of all real defects; {OF_DIAG}"
