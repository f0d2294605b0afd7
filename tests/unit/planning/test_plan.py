"""Plans of grids: cells and pools, shared keys, dropped cells, refused grids."""

import json

import layouts
import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, TINY, cli, grid_file, on_disk, tiny, tiny_plan

from augbench.core.errors import UserError
from augbench.core.specs import Cell, PoolSpec, shots_in_all
from augbench.planning.grid import load_grid, make_grid
from augbench.planning.outline import expected_of
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.report.frame import RECORD_FIELDS, expected_frame
from augbench.report.tables import build_tables

CONFIGS = ROOT / "tune_configs"


def pools_by(plan, name):
    return [pool for pool in plan.pools.values() if pool.augmenter.name == name]


def test_inout_tables_need_1920_images():
    plan = make_plan(load_grid(CONFIGS / "inout_ksdd2.yaml"))
    assert len(pools_by(plan, "memseg")) == 4
    assert len(pools_by(plan, "ddpm")) == 12
    assert set(plan.pool_sizes.values()) == {120}
    assert plan.images == 1920
    assert plan.naive_images == 10800
    assert len(plan.cells) == 3 * 3 * 3 * 4 + 4
    assert len({plan.adapter(pool).key for pool in pools_by(plan, "ddpm")}) == 3  # one for each regime
    assert plan.absent == ["ksdd2"] and not plan.not_runnable
    # Changed keys orphan all existing stores: bump SCHEMA deliberately, then change these lines.
    assert plan.cells[0].key == "ksdd2-none-full-n0-s0-cb77f2d3"
    assert "ksdd2-inout-few5-n100-s2-feeff3bd" in plan.by_key


def test_plan_prints_that_arithmetic():
    out = " ".join(cli("plan", CONFIGS / "inout_ksdd2.yaml").stdout.split())
    assert "4 memseg pools x 120 + 12 ddpm pools x 120 = 1,920 images" in out
    assert "10,800" in out
    assert "steps per adapter: ddpm on ksdd2 (for ddpm, inout) 420 at zero, 441 at few5, 10,250 at full" in out
    assert "protocol inout is superseded by inout_v2" in out


def test_adapter_seeds_multiply_what_learns_and_nothing_else():
    """Two adapters at three regimes: 24 pools of DDPM, still 4 of MemSeg; the first adapter's keys are the old ones."""
    grid = load_grid(CONFIGS / "inout_ksdd2.yaml")
    one, two = make_plan(grid), make_plan(grid.model_copy(update={"adapter_seeds": (0, 1)}))
    assert (len(pools_by(two, "ddpm")), len(pools_by(two, "memseg"))) == (24, 4)
    assert len({two.adapter(pool).key for pool in pools_by(two, "ddpm")}) == 6
    assert one.by_key.keys() < two.by_key.keys() and len(two.cells) - len(one.cells) == 2 * 36
    (new,) = [cell for cell in two.cells if cell.key.startswith("ksdd2-inout-few5-a1-n100-s2-")]
    assert Cell.from_dict(new.as_dict()).key == new.key and new.adapter_seed == 1
    assert {s.pool.adapter_seed for s in two.needs[new.key] if s.pool.augmenter.name == "memseg"} == {0}
    (pool,) = [s.pool for s in two.needs[new.key] if s.pool.augmenter.name == "ddpm"]
    assert PoolSpec.from_dict(pool.as_dict()) == pool and "-a1-" in pool.adapter.key


def test_steps_are_counted_where_the_images_are(tmp_path):
    """A third of 36 drawn images are positives; full-shot learns from all 12."""
    settings = layouts.draw_ksdd2(tmp_path, train=36, test=6)
    ddpm = {"name": "ddpm", "settings": {"class_pictures": 0}}
    plan = tiny_plan(**on_disk("ksdd2", settings, augmenters=[ddpm], shots=["all"]))
    (pool,) = plan.pools.values()
    assert plan.training_steps(pool) == 25 * 10  # 12 shots, ten times, in batches of 12


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_grid_can_be_planned(path):
    assert make_plan(load_grid(path)).cells


def test_pools_hold_only_what_is_read():
    plan = tiny_plan(augmenters=["memseg", "toy"], shots=[0, 2, 5, "all"], draws=[0, 1])
    assert len(pools_by(plan, "memseg")) == 1  # it reads no shots: one pool for all regimes and draws
    assert len(pools_by(plan, "toy")) == 1 + 2 + 2 + 1  # zero, two draws of 2 and of 5, all


def named_shots_file(folder, ids):
    path = folder / "ids.txt"
    path.write_text("\n".join([*ids, ids[0], "", " "]))  # a repeated id and blank lines count nothing
    return {"ids": str(path)}


def test_named_shots_are_a_regime_whose_key_follows_the_ids_alone(tmp_path):
    drawn = tiny_plan(shots=[5], draws=[0, 1])
    split = drawn.library.split(drawn.cells[0].data)
    ids = sorted(split.positives["id"])[1:4]
    given = named_shots_file(tmp_path, ids[::-1])
    plan = tiny_plan(shots=[5, given], draws=[0, 1], augmenters=["none", "memseg"])
    named = [cell for cell in plan.cells if isinstance(cell.draw, tuple)]
    assert [(cell.shots, cell.draw) for cell in named] == [(3, tuple(ids))] * 2, "no draw of the grid multiplies them"
    assert {cell.key for cell in drawn.cells} < {cell.key for cell in plan.cells}
    assert list(plan.library.shots(named[0].data, 3, tuple(ids))["id"]) == ids
    assert {cell.key for cell in named} == {c.key for c in tiny_plan(shots={"ids": ids}).cells}
    assert not {cell.key for cell in named} & {c.key for c in tiny_plan(shots={"ids": ids[:2]}).cells}
    assert Cell.from_dict(json.loads(json.dumps(named[0].as_dict()))) == named[0]
    assert make_grid(json.loads(json.dumps(plan.grid.as_dict()))) == plan.grid, "a store's grid needs no file"
    tables = build_tables(expected_frame(expected_of(plan)), pd.DataFrame(columns=RECORD_FIELDS))
    (table,) = (one for one in tables if "named" in one.title)
    assert table.title.startswith("surfaces, few-shot (3 named defects, ")
    assert shots_in_all(3, tuple(ids), ("a", "b")) == 3 and shots_in_all(3, 0, ("a", "b")) == 6


@pytest.mark.parametrize(
    ("part", "what"), [("test", "a test image"), ("heldout", "a held-out image"), ("negatives", "a normal image")]
)
def test_named_shots_are_defect_images_of_the_training_part(part, what):
    drawn = tiny_plan(shots=["all"])
    split = drawn.library.split(drawn.cells[0].data)
    wrong, right = getattr(split, part)["id"].iloc[0], split.positives["id"].iloc[0]
    with pytest.raises(UserError, match=f"shots name '{wrong}', {what}: name ids of defect images"):
        tiny_plan(shots={"ids": [right, wrong]})


def test_named_shots_that_cannot_be_read_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"ids: '.*none.txt' cannot be read .*one id per line"):
        tiny_plan(shots={"ids": str(tmp_path / "none.txt")})
    with pytest.raises(UserError, match="shots name 'x', which it does not have"):
        tiny_plan(shots={"ids": ["x"]})
    for wrong in ({"ids": []}, {"idz": ["x"]}, {"ids": 3}):
        with pytest.raises(UserError, match=r"\{ids: FILE\}"):
            tiny_plan(shots=wrong)


def test_draws_matter_only_for_a_number_of_shots():
    plan = tiny_plan(augmenters=["none"], shots=[5, "all"], draws=[0, 1, 2])
    assert [cell.draw for cell in plan.cells] == [0, 1, 2, None]


def test_settings_change_keys_and_aliases_do_not_change_pools():
    augmenters = [
        "memseg",
        {"name": "memseg", "as": "same"},
        {"name": "memseg", "as": "texture_only", "settings": {"texture_share": 1.0}},
    ]
    plan = tiny_plan(augmenters=augmenters, shots=[0])
    assert len(plan.pools) == 2
    assert len({cell.key for cell in plan.cells}) == 3


def test_fresh_pools_make_new_images_for_each_n_aug():
    plan = tiny_plan(augmenters=["memseg"], shots=[0], n_aug=[4, 6], fresh_pools=True)
    assert sorted(plan.pool_sizes.values()) == [4, 6]
    assert plan.images == plan.naive_images == 10


def test_mixture_uses_slices_of_its_parts_pools():
    parts = [{"name": "memseg", "share": 0.5}, {"name": "cutpaste", "share": 0.5}]
    mixture = {"name": "mixture", "as": "half", "settings": {"parts": parts}}
    plan = tiny_plan(augmenters=["memseg", mixture], shots=[0], n_aug=[7])
    by_name = {cell.augmenter.alias: plan.needs[cell.key] for cell in plan.cells}
    assert [(part.pool.augmenter.name, part.n) for part in by_name["half"]] == [("memseg", 4), ("cutpaste", 3)]
    assert by_name["half"][0].pool.key == by_name["memseg"][0].pool.key
    assert not pools_by(plan, "mixture")


def test_mixture_key_follows_the_content_of_its_parts(tmp_path):
    parts = [
        {"name": "memseg", "share": 0.5, "settings": {"texture_folder": str(tmp_path)}},
        {"name": "cutpaste", "share": 0.5},
    ]
    keys = set()
    for number in range(2):
        layouts.save(layouts.noise_image(np.random.default_rng(number))[0], tmp_path / f"{number}.png")
        plan = tiny_plan(augmenters=[{"name": "mixture", "settings": {"parts": parts}}], shots=[0])
        keys.add(plan.cells[0].key)
    assert len(keys) == 2


def test_impossible_cells_are_dropped_with_a_reason():
    plan = tiny_plan(shots=[0, 5], n_aug=[0, 6])
    assert {cell.augmenter.alias for cell in plan.cells if cell.shots == 0} == {"memseg"}
    assert any("no defect image to learn from" in reason for reason in plan.dropped)
    assert any("that is the augmenter 'none'" in reason for reason in plan.dropped)


def test_specs_survive_json():
    plan = tiny_plan(augmenters=["toy"])
    for cell in plan.cells:
        assert Cell.from_dict(cell.as_dict()).key == cell.key
    for pool in plan.pools.values():
        assert PoolSpec.from_dict(pool.as_dict()).key == pool.key
        assert pool.adapter.key == PoolSpec.from_dict(pool.as_dict()).adapter.key


def test_protocol_enters_the_key_and_prose_does_not():
    one, prose, other = (
        tiny_plan(protocols=[{"name": "tiny", **TINY, **change}]).cells[0].key
        for change in ({}, {"about": "other words"}, {"epochs": 3})
    )
    assert one == prose != other


def test_location_is_no_part_of_a_key(tmp_path):
    keys = []
    for place in ("a", "b"):
        settings = layouts.draw_folder(tmp_path / place)
        keys.append([c.key for c in tiny_plan(**on_disk("folder", settings, augmenters=["none"])).cells])
    assert keys[0] == keys[1]


def test_subtract_knows_chunks(store):
    plan = tiny_plan(augmenters=["memseg"], shots=[0], n_aug=[6, 45])
    remaining = subtract(plan, store)
    assert len(remaining.cells) == 2 and len(remaining.chunks) == 3 and remaining.images == 60


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"datsets": ["surfaces"]}, "unknown key 'datsets' (did you mean 'datasets'?)"),
        ({"datasets": ["surfcaes"]}, "did you mean 'surfaces'?"),
        ({"augmenters": ["memsg"]}, "did you mean 'memseg'?"),
        ({"protocols": ["demmo"]}, "did you mean 'demo'?"),
        ({"shots": [-1]}, "shots"),
        ({"shots": ["some"]}, "shots"),
        ({"n_aug": []}, "n_aug"),
        ({"seeds": ["x"]}, "seeds"),
        ({"augmenters": ["memseg", "memseg"]}, "twice"),
        ({"augmenters": [{"name": "memseg", "settings": {"opacty": 1}}]}, "opacty"),
        ({"augmenters": [{"name": "mixture"}]}, "parts"),
        ({"protocols": [{"name": "demo", "epocs": 3}]}, "did you mean 'epochs'?"),
        ({"protocols": [{"name": "demo", "epochs": 0}]}, "epochs"),
        ({"shots": [500]}, "8 defective training images"),
        ({"augmenters": ["none"], "shots": [0]}, "no cell that can be trained"),
        ({"augmenters": [{"name": "toy", "settings": {"limit": 5}}]}, "can make 5 images"),
        ({"name": "../x"}, "name"),
    ],
)
def test_mistakes_end_in_one_line(change, text):
    with pytest.raises(UserError) as error:
        make_plan(make_grid(tiny(**change)))
    assert text in str(error.value) and "\n" not in str(error.value)


def test_missing_fold_and_masks_are_named(tmp_path):
    settings = layouts.draw_folder(tmp_path)
    with pytest.raises(UserError, match="fold 7 does not exist: 'folder' has folds 0 to 4"):
        tiny_plan(**on_disk("folder", settings, folds=[7]))
    with pytest.raises(UserError, match="'toy' needs masks, and dataset 'folder' has none"):
        tiny_plan(**on_disk("folder", settings, augmenters=["toy"]))


def test_set_changes_a_grid(tmp_path):
    path = CONFIGS / "demo_surfaces.yaml"
    grid = load_grid(
        path, ["seeds=[7]", "protocols.demo.epochs=3", "datasets.surfaces.seed=5", "augmenters.memseg.n_aug=4"]
    )
    assert grid.seeds == (7,)
    assert grid.protocols[0].epochs == 3 and grid.protocols[0].name == "demo+epochs=3"
    assert grid.datasets[0].settings == {"seed": 5}
    assert next(a for a in grid.augmenters if a.name == "memseg").n_aug == (4,)
    for wrong in ("seeds", "sedes=1", "datasets.ksdd2.root=/x", "augmenters.memseg=3", "n_aug=[1,"):
        with pytest.raises(UserError, match="--set"):
            load_grid(path, [wrong])


def test_the_name_of_a_changed_grid_follows_what_decides_its_cells(tmp_path):
    names = []
    for number, change in enumerate(("", ", about: other words", ", batchnorm: train", ", epochs: 3")):
        path = tmp_path / str(number) / "small.yaml"
        path.parent.mkdir()
        path.write_text(f"{{datasets: [surfaces], augmenters: [none], protocols: [{{preset: demo, name: p{change}}}]}}")
        names.append(load_grid(path, ["seeds=[7]"]).name)
    assert names[0] == names[1] == names[2] != names[3] and names[0].startswith("small+")


@pytest.mark.parametrize(("written", "read"), [(True, "last"), (False, "none"), ("last", "last"), ("none", "none")])
def test_whether_weights_are_saved_is_in_no_key(tmp_path, written, read):
    """Grids of earlier versions have true or false."""
    path = grid_file(tmp_path, save_weights=written)
    grid = load_grid(path, ["save_weights=last"])
    assert load_grid(path).save_weights == read and grid.save_weights == "last" and grid.name == "tiny"
    with pytest.raises(UserError, match="save_weights"):
        load_grid(path, ["save_weights=best"])


def test_data_variable_gives_roots(tmp_path, monkeypatch):
    layouts.draw_magnetic_tile(tmp_path / "magnetic_tile")
    monkeypatch.setenv("AUGBENCH_DATA", str(tmp_path))
    plan = tiny_plan(datasets=["magnetic_tile"], augmenters=["none"], shots=["all"])
    assert not plan.absent
    assert plan.library.settings["magnetic_tile"][1]["root"] == str((tmp_path / "magnetic_tile").resolve())
