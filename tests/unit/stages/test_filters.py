"""Filters: each drops its planted dud and nothing else, images are made again, and what cannot be is refused."""

import json

import numpy as np
import pytest
from helpers import HERE, TOY, assert_one_line, cli, grid_file, on_disk, tiny_grid, tiny_plan
from layouts import draw_neu

from augbench.core import registry
from augbench.core.contracts import Synthetic
from augbench.core.errors import PluginError, UserError
from augbench.core.filters import make_filters
from augbench.core.seeds import derive_seed
from augbench.core.specs import Cell, PoolSpec
from augbench.planning.grid import load_grid
from augbench.planning.plan import NOTHING_MEMORISED, make_plan, notes_of
from augbench.planning.used import used_by
from augbench.stages.context import Context
from augbench.stages.filters import counts_of, filters_of, verdicts
from augbench.stages.generate import generate_chunk
from augbench.storage.store import Store
from augbench.testing import requests

JUDGE = {"backbone": "micro_resnet", "width": 64, "height": 176}
ALL = {"unchanged": True, "memorised": True, "unseen": JUDGE}


@pytest.fixture(autouse=True, scope="module")
def plugins():
    registry.load_file(HERE / "plugins" / "dud.py")
    registry.load_file(TOY)


def entry(filters=None, **settings):
    return {"name": "dud", "settings": settings} | ({} if filters is None else {"filters": filters})


def pool_of(*entries, shots=5):
    plan = tiny_plan(augmenters=list(entries), shots=[shots], n_aug=[8], seeds=[2])
    (pool,) = plan.pools.values()
    return plan, pool


def made(filters, shots=5, chunks=(0, 1), **settings):
    """Make chunks in a new store; return the store, the pool and the metadata lines in order."""
    plan, pool = pool_of(entry(filters, **settings), shots=shots)
    store = Store(f"memory://{derive_seed('store', filters, settings, chunks, shots)}")
    context = Context(store, plan.library)
    for chunk in chunks:
        generate_chunk(context, pool, chunk)
    return store, pool, [line for chunk in sorted(chunks) for line in store.chunk_lines(pool, chunk)]


def kind_of(pool, index, attempt, kinds):
    again = [attempt] if attempt else []
    seed = derive_seed("generate", "dud", pool.seed, "", index, *again)
    return str(np.random.default_rng(seed).choice(kinds))


DUDS = [
    ({"unchanged": True}, "unchanged"),
    ({"unchanged": {"tolerance": 0}}, "unchanged"),
    ({"memorised": True}, "copied"),
]


@pytest.mark.parametrize(("filters", "dud"), DUDS)
def test_duds_are_made_again_with_seeds_of_their_own_until_an_image_passes(filters, dud):
    kinds = ("sound", dud)
    store, pool, lines = made(filters, kinds=kinds)
    (name,) = filters
    for line in lines:
        attempts = [kind_of(pool, line["index"], attempt, kinds) for attempt in range(len(line["dropped"]) + 1)]
        assert attempts == [dud] * len(line["dropped"]) + ["sound"]
        assert line["dropped"] == [name] * len(line["dropped"])
        assert line["meta"]["kind"] == "sound"
    counts = counts_of(lines)
    assert counts["made"] == 8 + counts["dropped"][name] and counts["dropped"][name] > 1
    of_chunks = [store.parsed(store.chunk_provenance_name(pool, chunk))["filtered"] for chunk in (0, 1)]
    assert sum(one["made"] for one in of_chunks) == counts["made"]


def test_a_filtered_pool_differs_from_the_unfiltered_one_in_dropped_images_only():
    kept, plain = (made(filters, kinds=["sound", "copied"])[2] for filters in ({"memorised": True}, None))
    assert any(line["dropped"] for line in kept) and not any("dropped" in line for line in plain)
    for one, other in zip(kept, plain, strict=True):
        assert (one["sha256"] == other["sha256"]) == (not one["dropped"])


def test_a_small_change_is_a_dud_up_to_the_tolerance():
    plan, pool = pool_of(entry({"unchanged": {"tolerance": 8}}))
    (unchanged,) = filters_of(Context(Store("memory://tolerance"), plan.library), pool)
    source = plan.library.split(pool.data).negatives["id"].iloc[0]
    image = unchanged.view.image(source)
    mask = np.zeros(image.shape[:2], bool)
    mask[10:20, 10:20] = True
    image = np.clip(image, 20, 200)
    unchanged.view = type("View", (), {"image": lambda self, name: image})()

    def judged(place, by):
        other = image.copy()
        other[place] += by
        return unchanged([Synthetic(other, "defect", mask, {"source": source})])

    assert [judged((12, 12), by) for by in (0, 8, 9)] == [[True], [True], [False]]
    assert judged((30, 30), 40) == [True], "what differs outside of the mask is no defect"


def test_normal_looking_images_are_dropped_at_the_quantile_of_held_out_normal_images():
    plan, pool = pool_of(entry({"unseen": {**JUDGE, "quantile": 0.75}}), shots=0)
    context = Context(Store("memory://unseen"), plan.library)
    (unseen,) = filters_of(context, pool)
    assert filters_of(context, pool)[0] is unseen, "fitted once for all chunks and seeds"
    rows = plan.library.split(pool.data).negatives
    dataset = plan.library.dataset("surfaces")
    normal = [
        Synthetic(dataset.read_image(row), "defect", None, {"source": row["id"]}) for row in rows.to_dict("records")
    ]
    assert np.mean(unseen(normal)) == pytest.approx(0.75, abs=0.5 / len(rows) + 1e-9)
    augmenter = plan.library.augmenter(pool.augmenter)
    assert not any(unseen(augmenter.generate(requests(8), context.view(augmenter, pool))))


def test_the_first_filter_that_drops_an_image_counts_and_later_ones_do_not_see_it():
    seen = []

    def by(name, bad):
        def judge(samples):
            seen.append((name, list(samples)))
            return [sample in bad for sample in samples]

        judge.name = name
        return judge

    assert verdicts([by("a", "xy"), by("b", "yz")], "wxyz") == ["", "a", "a", "b"]
    assert seen == [("a", list("wxyz")), ("b", list("wz"))]
    assert verdicts([by("a", "x"), by("b", "x")], "x") == ["a"] and seen[-1][0] == "a", "no images, no call"
    assert verdicts([], "xy") == ["", ""]


def test_the_same_bytes_whatever_the_order_of_chunks():
    kinds = ("sound", "unchanged", "copied", "hidden")
    stores = [made(ALL, chunks=chunks, kinds=kinds) for chunks in ((0, 1), (1, 0))]
    assert stores[0][2] == stores[1][2]
    assert {name for line in stores[0][2] for name in line["dropped"]} == {"unchanged", "memorised", "unseen"}
    digests = [
        [store.files.read(store.image_name(pool, line["index"])) for line in lines] for store, pool, lines in stores
    ]
    assert digests[0] == digests[1]


def test_an_image_that_never_passes_fails_its_chunk_by_name():
    with pytest.raises(UserError) as error:
        made({"unchanged": True, "attempts": 3}, kinds=["unchanged"])
    assert str(error.value) == (
        "augmenter 'dud': image 0 was dropped 3 times (filters.unchanged 3): loosen or take out this filter, or raise "
        "filters.attempts"
    )
    with pytest.raises(PluginError, match="unchanged inside it"):
        made({"memorised": True}, kinds=["unchanged"])


@pytest.mark.parametrize(("settings", "lacks"), [({"mask": False}, "a mask"), ({"source": False}, "'source'")])
def test_a_filter_says_what_images_lack(settings, lacks):
    with pytest.raises(UserError, match=f"augmenter 'dud': filters.unchanged .* do not have .*{lacks}"):
        made({"unchanged": True}, **settings)


# -- keys


def test_filters_enter_keys_of_pools_and_cells_only_where_they_are_set():
    plain, *others = (
        pool_of({"name": "toy"} | given)
        for given in (
            {},
            {"filters": {}},
            {"filters": {"unchanged": False, "attempts": 3}},
            {"filters": {"unchanged": True}},
            {"filters": {"unchanged": {"tolerance": 9}}},
            {"filters": {"unchanged": True, "attempts": 99}},
            {"filters": {"unseen": JUDGE}},
            {"filters": {"unseen": {**JUDGE, "quantile": 0.9}}},
        )
    )
    keys = [[pool.key, *(cell.key for cell in plan.cells)] for plan, pool in (plain, *others)]
    assert keys[0] == keys[1] == keys[2] and keys[3] == keys[5], "attempts change no image"
    assert len({key for each in keys for key in each}) == 5 * 2
    assert {pool.adapter.key for _, pool in (plain, *others)} == {plain[1].adapter.key}
    for plan, pool in (plain, *others):
        assert PoolSpec.from_dict(json.loads(json.dumps(pool.as_dict()))) == pool
        assert [Cell.from_dict(json.loads(json.dumps(cell.as_dict()))).key for cell in plan.cells] == [
            cell.key for cell in plan.cells
        ]
    assert "filters" not in plain[1].as_dict()["augmenter"] and "filters" not in others[3][1].adapter.as_dict()


def test_a_mixture_filters_its_parts():
    parts = [{"name": "memseg", "share": 0.5}, {"name": "cutpaste", "share": 0.5}]
    given = {"name": "mixture", "settings": {"parts": parts}, "filters": {"unchanged": True}}
    alone = [{"name": name, "as": f"{name}_kept", "filters": {"unchanged": True}} for name in ("memseg", "cutpaste")]
    mixed, single = (tiny_plan(augmenters=entries) for entries in ([given], alone))
    assert mixed.pools.keys() == single.pools.keys()
    assert not mixed.pools.keys() & tiny_plan(augmenters=["memseg", "cutpaste"]).pools.keys()


def test_a_grid_is_called_by_its_filters_only_if_they_are_changed(tmp_path):
    path = grid_file(tmp_path)
    assert load_grid(path, ["seeds=[1]"]).name == load_grid(path, ["seeds=[1]", "augmenters.memseg.filters={}"]).name
    assert load_grid(path).name == "tiny"
    changed = load_grid(path, ["augmenters.memseg.filters.unchanged=true"])
    assert changed.name != "tiny" and changed.augmenters[1].filters.names == ("unchanged",)


# -- what is refused, and what is said


REFUSED = [
    ({"unchangd": True}, "unknown key", "did you mean 'unchanged'"),
    ({"unchanged": {"tolerance": 256}}, "filters.unchanged.tolerance", "less than or equal to 255"),
    ({"unchanged": 8}, "filters.unchanged"),
    ({"unseen": True}, "filters.unseen"),
    ({"unseen": {}}, "'augmenters.1.filters.unseen.backbone' is missing"),
    ({"unseen": {**JUDGE, "quantile": 1}}, "filters.unseen.quantile"),
    ({"unseen": {**JUDGE, "weights": "scratch"}}, "filters.unseen.weights", "'timm' or 'package'"),
    ({"attempts": 0}, "filters.attempts"),
    ({"memorised": "often"}, "filters.memorised"),
    ({"unseen": {"backbone": "test_byobnet.r160_in1k"}}, "protocol 'tiny' evaluates with 'test_byobnet' too"),
]


@pytest.mark.parametrize(("filters", "problems"), [(given, problems) for given, *problems in REFUSED])
def test_a_wrong_filter_is_one_line(tmp_path, filters, problems):
    grid = grid_file(tmp_path, augmenters=["none", {"name": "memseg", "filters": filters}])
    assert_one_line(cli("plan", grid, "--store", tmp_path / "s"), "tiny.yaml", *problems)


def test_augmenters_that_cannot_make_an_image_again_are_refused(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    outside = {"name": "images", "settings": {"folder": str(folder)}, "filters": {"memorised": True}}
    for given, problem in (
        (outside, "'images' cannot make images again"),
        ({"name": "none", "filters": ALL}, "'none'"),
    ):
        with pytest.raises(UserError, match=problem):
            tiny_plan(augmenters=[given])


def test_unseen_needs_normal_images(tmp_path):
    draw_neu(tmp_path / "neu")
    given = {"name": "classic", "filters": {"unseen": JUDGE}}
    changes = on_disk("neu", {"root": str(tmp_path / "neu")}, augmenters=[given], shots=[2], n_aug=[2])
    protocol = {**changes, "protocols": [{"name": "recognition", "epochs": 1}]}
    with pytest.raises(
        UserError, match=r"filters\.unseen compares with normal images of at least 2 items, and 'neu' has 0"
    ):
        make_plan(tiny_grid(**protocol))


def test_information_and_notes_name_what_filters_look_at():
    filters = make_filters(ALL)
    dud = registry.make("augmenters", "dud", {})
    assert used_by(dud, 5, filters)[-1] == (
        "filtered: unchanged, memorised (5 real defects), unseen by micro_resnet (normal images)"
    )
    assert used_by(dud, 0, filters)[-1] == "filtered: unchanged, memorised, unseen by micro_resnet (normal images)"
    for shots, notes in ((0, [f"dud: {NOTHING_MEMORISED}"]), (5, [])):
        plan, _ = pool_of(entry({"memorised": True}), shots=shots)
        assert notes_of(plan.library, plan.cells[0], plan.needs[plan.cells[0].key]) == notes


# -- the whole way


def test_a_run_counts_what_was_dropped_in_records_tables_and_publications(tmp_path):
    kept = {**entry(ALL, kinds=["sound", "sound", "unchanged", "copied"]), "as": "kept"}
    grid = grid_file(tmp_path, augmenters=["none", kept], shots=[5], n_aug=[2, 6], seeds=[1, 2])
    store = Store(tmp_path / "s")
    ran = cli("run", grid, "--store", store.url, "--executor", "inline")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    records = {(one["spec"]["augmenter"]["alias"], one["spec"]["n_aug"], one["spec"]["seed"]): one["provenance"]
               for one in store.read_records(sorted(store.keys("cells")))}  # fmt: skip
    total = {"made": 0, "dropped": 0}
    for seed in (1, 2):
        small, large = (records["kept", n, seed]["filtered"][0] for n in (2, 6))
        pool = PoolSpec.from_dict(store.read_pool(large["key"])["spec"])
        lines = [line for chunk in (0, 1) for line in store.chunk_lines(pool, chunk)]
        assert {**counts_of(lines[:2]), "key": pool.key} == small and {**counts_of(lines[:6]), "key": pool.key} == large
        total["made"] += large["made"]
        total["dropped"] += sum(large["dropped"].values())
    assert "filtered" not in records["none", 0, 1] and records["kept", 2, 1]["embedded"][-1] == "filter micro_resnet"
    assert total["made"] == 12 + total["dropped"] and total["dropped"] > 2
    note = f"kept: of {total['made']} images made, filters dropped {total['dropped']} ("
    text = " ".join(ran.stdout.split())
    assert note in text
    verbose = " ".join(cli("report", store.url, "--verbose").stdout.split())
    assert "filtered: unchanged, memorised (5 real defects), unseen by micro_resnet" in verbose
    shown = cli("pool", "show", pool.key, "--store", store.url, "--out", tmp_path / "a.png")
    assert "kept: of " in shown.stdout and "filters dropped" in shown.stdout
    again = cli("run", grid, "--store", store.url, "--executor", "inline")
    assert again.returncode == 0 and note in " ".join(again.stdout.split())
    assert cli("results", "export", store.url, "--out", tmp_path / "out").returncode == 0
    checked = cli("results", "check", tmp_path / "out")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert note in (tmp_path / "out" / "reports" / "tiny" / "report.md").read_text()
