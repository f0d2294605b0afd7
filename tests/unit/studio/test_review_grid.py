"""Grids that use a review: certified images, as many at random, and the pool of any augmenter."""

import numpy as np
import pytest
import yaml
from helpers import TINY_PROBE, assert_one_line, cli, grid_file, path_of, tiny_grid, tiny_plan
from layouts import draw_folder_csv
from reviews import FACTS, draw_review

from augbench.core import registry
from augbench.core.errors import UserError
from augbench.core.filters import make_filters
from augbench.core.images import read_rgb
from augbench.planning.grid import load_grid
from augbench.planning.plan import make_plan, notes_of
from augbench.planning.used import used_by
from augbench.report.frame import load_records
from augbench.runner.driver import run
from augbench.storage.store import Store
from augbench.studio.opening import Asked, open_studio
from augbench.studio.review import Review
from augbench.testing import SURFACES


def entry(folder, **settings):
    return {"name": "reviewed", "settings": {"root": str(folder), **settings}}


def planned(*augmenters, **changes):
    return tiny_plan(augmenters=list(augmenters), **{"shots": [0], **changes})


def test_certified_images_and_as_many_at_random_are_two_rows_of_one_grid(tmp_path):
    draw_review(tmp_path / "r", 6, 3)
    pair = [{**entry(tmp_path / "r"), "as": "certified"}, {**entry(tmp_path / "r", random_subset=0), "as": "subset"}]
    store = Store(tmp_path / "store")
    plan = planned(*pair)
    assert len(plan.pools) == 2
    grid = grid_file(tmp_path, augmenters=pair, shots=[0])
    ran = cli("run", grid, "--store", tmp_path / "store", "--executor", "inline")
    assert ran.returncode == 0, ran.stderr
    rows = {row.augmenter: " ".join(row.used) for row in load_records(store).itertuples()}
    assert "certified by a person: 6 of 9 accepted" in rows["certified"]
    assert "not certified: a random subset" in rows["subset"]
    certified = next(pool for pool in plan.pools.values() if pool.augmenter.alias == "certified")
    first = read_rgb(path_of(store, "pools", certified.key) / "images/00000.png")
    assert np.array_equal(first, read_rgb(tmp_path / "r/accepted/images/000000.png"))


def test_more_images_than_were_accepted_are_refused(tmp_path):
    draw_review(tmp_path / "r", 5, 4)
    for settings in ({}, {"random_subset": 1}):
        with pytest.raises(UserError, match="can make 5 images"):
            planned(entry(tmp_path / "r", **settings))
    with pytest.raises(UserError, match="take its filters out"):
        planned({**entry(tmp_path / "r"), "filters": {"memorised": True}})
    with pytest.raises(UserError, match="is no review"):
        planned(entry(tmp_path / "none"))
    draw_review(tmp_path / "empty", 0, 1)
    with pytest.raises(UserError, match="no accepted image"):
        registry.make("augmenters", "reviewed", {"root": str(tmp_path / "empty")}).ready()


def test_a_review_that_saw_a_test_image_is_refused_and_defects_are_noted(tmp_path):
    plan = planned("memseg")
    split = plan.library.split(plan.cells[0].data)
    for place, rows in (("t", split.test), ("h", split.heldout)):
        draw_review(tmp_path / place, 6, seen=rows["id"].head(1))
        with pytest.raises(UserError, match="not in the training part"):
            planned(entry(tmp_path / place))
    draw_review(tmp_path / "d", 6, seen=[*split.positives["id"].head(2), split.negatives["id"].iloc[0]])
    plan = planned(entry(tmp_path / "d"))
    (cell,) = plan.cells
    (_, note) = notes_of(plan.library, cell, plan.needs[cell.key])
    assert "a person looked at 3 training images, 2 of them defects, of which 2 are not among the shots" in note


def test_another_decision_is_another_key(tmp_path):
    draw_review(tmp_path / "r", 7)
    before = set(planned(entry(tmp_path / "r")).pools)
    assert set(planned(entry(tmp_path / "r" / "accepted")).pools) == before
    with Review(tmp_path / "r", FACTS) as review:
        review.decide("000003", "reject")
    assert set(planned(entry(tmp_path / "r")).pools) != before


# -- the pool of any augmenter


@pytest.fixture(scope="module")
def reviewed_pool(tmp_path_factory):
    """A store with a pool of 20 images of memseg, and a review that accepted every other of the first twelve."""
    folder = tmp_path_factory.mktemp("pool")
    ran = cli(
        "run", grid_file(folder, augmenters=["memseg"], shots=[0]), "--store", folder / "s", "--executor", "inline"
    )
    assert ran.returncode == 0, ran.stderr
    store = Store(folder / "s")
    (key,) = store.keys("pools")
    studio = open_studio(Asked(pool=key, store=str(folder / "s"), catch=0.2), folder / "r")
    assert studio.worker.wait() == ""
    waiting = [item for item in studio.review.items() if not item.catch]
    for item in waiting[:12]:
        studio.review.decide(item.id, "accept" if item.made["index"] % 2 == 0 else "reject")
    assert sum(bool(item.catch) for item in studio.review.items()) == 5 and len(waiting) == 20
    studio.summary()
    studio.close()
    return folder, store, key


def certified(folder, **review):
    return {
        "name": "memseg",
        "filters": {"review": {"root": str(folder / "r"), **review} if review else str(folder / "r")},
    }


def test_a_filter_takes_the_accepted_images_of_a_pool(reviewed_pool, tmp_path):
    folder, store, key = reviewed_pool
    plan = planned(certified(folder), {**certified(folder, random_subset=0), "as": "subset"})
    assert len(plan.pools) == 2 and key not in plan.pools
    grid = grid_file(tmp_path, augmenters=[certified(folder)], shots=[0])
    ran = cli("run", grid, "--store", tmp_path / "s", "--executor", "inline")
    assert ran.returncode == 0, ran.stderr
    made = Store(tmp_path / "s")
    (own,) = made.keys("pools")
    for number in range(6):
        image, original = (
            read_rgb(path_of(place, "pools", pool) / f"images/{index:05d}.png")
            for place, pool, index in ((made, own, number), (store, key, 2 * number))
        )
        assert np.array_equal(image, original)
    (row,) = load_records(made).itertuples()
    assert row.used[-1] == "certified by a person: 6 of 12 accepted" and row.filtered == ()
    assert cli("results", "export", tmp_path / "s", "--out", tmp_path / "out").returncode == 0
    assert cli("results", "check", tmp_path / "out").returncode == 0


def test_a_filter_refuses_what_was_not_reviewed(reviewed_pool, tmp_path):
    folder, _, key = reviewed_pool
    with pytest.raises(UserError, match=rf"accepted 6 images of pool '{key}', the grid asks for 7.*--pool {key}"):
        planned(certified(folder), n_aug=[7])
    with pytest.raises(UserError, match="accepted 0 images of pool 'surfaces-memseg-s1"):
        planned(certified(folder), seeds=[1])
    draw_review(tmp_path / "other", 3)
    with pytest.raises(UserError, match="holds no decision about a pool's image"):
        planned({"name": "memseg", "filters": {"review": str(tmp_path / "other")}})
    grid = grid_file(tmp_path, augmenters=[{"name": "memseg", "filters": {"review": str(tmp_path / "none")}}])
    assert_one_line(cli("plan", grid), "is no review")


def test_what_a_grid_read_of_a_review_stays_in_its_specs(reviewed_pool, tmp_path):
    folder, _, _ = reviewed_pool
    grid = tiny_grid(augmenters=[certified(folder)], shots=[0])
    again = tiny_grid(**{"augmenters": grid.as_dict()["augmenters"], "shots": [0]})
    assert again == grid and set(make_plan(again).pools) == set(make_plan(grid).pools)
    filters = grid.augmenters[0].filters
    words = used_by(registry.make("augmenters", "memseg", {}), 0, filters)
    assert words[-1] == "certified by a person: 6 of 12 accepted" and not any("filtered" in word for word in words)
    assert make_filters(filters.as_dict()).key_fields == filters.key_fields == {"review": filters.review.content}
    with pytest.raises(UserError, match="changed since the run began"):
        filters.review.model_copy(update={"content": "0" * 64}).chosen("any")


def test_the_grid_that_the_summary_writes_can_be_planned(reviewed_pool):
    folder, _, _ = reviewed_pool
    written = yaml.safe_load((folder / "r/grid.yaml").read_text())
    assert [one["as"] for one in written["augmenters"]] == ["certified", "random_subset"] and written["n_aug"] == [6]
    shown = cli("plan", folder / "r/grid.yaml")
    assert shown.returncode == 0, shown.stderr


def written_grid(tmp_path, **grid):
    """Run a grid with one pool, by default of memseg, and accept two images; return the grid of the page, its plan."""
    store = Store(tmp_path / "s")
    axes = {"augmenters": ["memseg"], "shots": [0], "protocols": [TINY_PROBE], **grid}
    assert not run(tiny_grid(**axes), store, executor="inline").failures
    (key,) = store.keys("pools")
    studio = open_studio(Asked(pool=key, store=store.url), tmp_path / "r")
    assert studio.worker.wait() == ""
    for item in studio.review.items()[:3]:
        studio.review.decide(item.id, "accept" if item.id < "000002" else "reject")
    studio.summary()
    studio.close()
    grid = tmp_path / "r/grid.yaml"
    return yaml.safe_load(grid.read_text()), make_plan(load_grid(grid))


def test_pools_of_a_dataset_of_the_user_can_be_reviewed(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from augbench.datasets.surfaces import Surfaces\n\n\n"
        'class Mine(Surfaces):\n    """Of the user."""\n\n    name = "mine"\n'
    )
    registry.load_file(tmp_path / "mine.py")
    grid, plan = written_grid(tmp_path, datasets=[{"name": "mine", "settings": SURFACES}])
    assert len(plan.pools) == 2 and grid["datasets"] == [{"name": "mine", "settings": SURFACES}]


def test_pools_of_a_folder_with_a_table_outside_it_can_be_reviewed(tmp_path):
    settings = draw_folder_csv(tmp_path / "data")
    settings["csv"] = str((tmp_path / "data" / "table.csv").rename(tmp_path / "images.csv"))
    grid, plan = written_grid(tmp_path, datasets=[{"name": "folder", "as": "parts", "settings": settings}])
    assert len(plan.pools) == 2 and grid["datasets"] == [{"name": "folder", "as": "parts", "settings": settings}]


def test_the_grid_of_a_pool_has_its_draw_and_its_adapter(tmp_path):
    axes = {"shots": [2], "draws": [1], "adapter_seeds": [1], "seeds": [3]}
    grid, plan = written_grid(tmp_path, augmenters=["toy"], **axes)
    assert {name: grid[name] for name in axes} == axes and len(plan.pools) == 2
    # of a review from before these were noted
    facts = tmp_path / "r/review.yaml"
    kept = yaml.safe_load(facts.read_text())
    facts.write_text(yaml.safe_dump({name: kept[name] for name in kept if name not in ("draw", "adapter_seed")}))
    store = Store(tmp_path / "s")
    (key,) = store.keys("pools")
    studio = open_studio(Asked(pool=key, store=store.url), tmp_path / "r")
    studio.summary()
    studio.close()
    grid = yaml.safe_load((tmp_path / "r/grid.yaml").read_text())
    assert {name: grid[name] for name in axes} == {"shots": [2], "draws": [0], "adapter_seeds": [0], "seeds": [3]}


def test_the_grid_of_a_pool_has_its_named_shots(tmp_path):
    plan = tiny_plan()
    ids = plan.library.split(plan.cells[0].data).positives["id"].tolist()[1:4]
    grid, plan = written_grid(tmp_path, augmenters=["toy"], shots=[{"ids": ids}])
    assert grid["shots"] == [{"ids": ids}] and len(plan.pools) == 2
