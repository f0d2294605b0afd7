"""`augbench store clean`: what no grid of a store names."""

from helpers import assert_one_line, cli, tiny, tiny_grid

from augbench.planning.grid import make_grid
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.storage.store import json_bytes

GONE = {**tiny(augmenters=["none", "toy", "memseg"], shots=[5], n_aug=[3], seeds=[1]), "name": "gone"}


def test_it_removes_what_no_grid_names_and_only_that(store):
    stays = tiny_grid(augmenters=["none", "toy"], shots=[5], n_aug=[3])
    for grid in (stays, make_grid(GONE)):
        assert not run(grid, store, executor="inline").failures
    assert "name all that it holds" in cli("store", "clean", store.url).stdout
    store.files.remove(store.name("grids", "gone"))
    before = {path for path in store.files.folder.rglob("*") if path.is_file()}
    listed = cli("store", "clean", store.url)
    assert listed.returncode == 0 and "--yes" in listed.stdout and "cells: 3" in listed.stdout
    assert "pools: 2" in listed.stdout and "adapters" not in listed.stdout, "both grids use the adapter of toy"
    assert before == {path for path in store.files.folder.rglob("*") if path.is_file()}, "without --yes nothing changes"
    assert cli("store", "clean", store.url, "--yes").returncode == 0
    assert subtract(make_plan(stays), store).nothing and not store.check()
    assert len(store.keys("cells")) == len(store.keys("scores")) == 2 and len(store.keys("pools")) == 1
    assert len(subtract(make_plan(make_grid(GONE)), store).cells) == 3
    assert "name all that it holds" in cli("store", "clean", store.url).stdout


def test_without_a_whole_outline_nothing_can_be_said(store):
    store.write_json("cells", "any", {})
    assert_one_line(cli("store", "clean", store.url), "knows no grid")
    store.files.write(store.name("grids", "old"), json_bytes({"grid": {}, "cells": []}))
    assert_one_line(cli("store", "clean", store.url), "'old'", "earlier version")
