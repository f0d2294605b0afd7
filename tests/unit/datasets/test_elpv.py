"""ELPV: which cells are defective, which are left out, and what a group is."""

from collections import Counter
from importlib.util import find_spec

import layouts
import pytest
from helpers import assert_one_line, cli

from augbench.core import registry
from augbench.core.errors import DatasetError, UserError
from augbench.datasets import elpv


def labels(**settings):
    return Counter(registry.make("datasets", "elpv", settings).samples()["label"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"good": 160, "mono": 40, "poly": 40}),
        ({"defective_from": 0.67}, {"good": 160, "mono": 60, "poly": 60}),
        ({"defective_from": 0.34}, {"good": 160, "mono": 80, "poly": 80}),
        ({"between": "good"}, {"good": 240, "mono": 40, "poly": 40}),
        ({"between": "good", "defective_from": 0.5}, {"good": 200, "mono": 60, "poly": 60}),
    ],
)
def test_settings_decide_what_is_defective(tmp_path, settings, expected):
    assert labels(**layouts.draw_elpv(tmp_path), **settings) == expected


def test_groups_are_blocks_of_files_unless_asked_otherwise(tmp_path):
    drawn = layouts.draw_elpv(tmp_path)
    table = registry.make("datasets", "elpv", drawn).samples()
    assert set(table.loc[table["id"] <= "cell0060", "group"]) == {"block00"} and table["group"].nunique() == 6
    alone = registry.make("datasets", "elpv", drawn | {"groups": "images"})
    assert alone.samples()["group"].is_unique
    assert alone.key_settings() == {"groups": "images"}
    assert registry.make("datasets", "elpv", drawn).key_settings() == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [("images/a.png 2 mono", "line 2"), ("images/a.png 0.5", "line 2"), ("../a.png 1 mono", "line 2"),
     ("images/a.png 1 thin", "line 2"), ("images/a.png nan mono", "line 2")],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, line, why):
    drawn = layouts.draw_elpv(tmp_path)
    path = tmp_path / "labels.csv"
    first, _, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, line, *rest]))
    with pytest.raises(DatasetError, match=why):
        labels(**drawn)


def test_without_the_package_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(elpv, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'augbench\[demo\]'"):
        labels()
    assert_one_line(cli("datasets", "check", "elpv", "--root", tmp_path), "labels.csv")


@pytest.mark.skipif(not find_spec("elpv_dataset"), reason="the package elpv-dataset is not installed")
def test_the_package_has_the_published_counts():
    dataset = registry.make("datasets", "elpv", {})
    assert dataset.check() == [] and dataset.official_counts == {"good": 1508, "mono": 313, "poly": 402}
    every = registry.make("datasets", "elpv", {"between": "good", "defective_from": 0.67})
    assert every.check() == [] and len(every.samples()) == 2624
