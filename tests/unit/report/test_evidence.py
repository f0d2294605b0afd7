"""What `augbench compare` says, from small stores whose records and scores are written by hand."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from math import isnan

import numpy as np
import pandas as pd
import pytest
from helpers import assert_one_line, cli, path_of, tiny_grid
from rich.console import Console

from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.core.protocol import make_protocol
from augbench.core.specs import AdapterSpec, AugmenterSpec, Cell, DataSpec, PoolSpec, SearchSpec
from augbench.metrics.evaluate import evaluate
from augbench.planning.library import Library
from augbench.report.evidence.build import baseline_among, build_evidence
from augbench.report.evidence.comparison_report import compare
from augbench.report.evidence.pareto import RowCost, efficient
from augbench.report.evidence.part_costs import COSTS, costs_of, read_costs
from augbench.report.evidence.ranking import rankings
from augbench.report.evidence.sheets import section_of
from augbench.report.frame import expected_from_records, load_records
from augbench.report.leaderboard.board import board_of
from augbench.report.leaderboard.merge import gather
from augbench.report.leaderboard.row_costs import Costs
from augbench.report.numbers import DASH
from augbench.storage.store import Store

BASE = {"width": 32, "height": 32, "lr": 0.01, "batch": 5, "epochs": 1, "ap": "step"}
CLASSES = ("crack", "stain")
SKILL = {"none": 0.4, "memseg": 1.6, "cutpaste": 1.6, "worse": -0.6}  # how far defects stand out of the noise
ITEMS = (60, 20)  # normal and defect test items, of two images each


def cell(augmenter="none", seed=0, n_aug=None, dataset="ksdd2", shots="all", draw=None, fold=None, **protocol):
    settings = make_protocol({"name": "small", **BASE, **protocol})
    classes = CLASSES if dataset == "neu" else ()
    data = DataSpec(dataset, dataset, {}, digest(dataset), fold, settings.holdout, classes, settings.test_share)
    n_aug = (0 if augmenter == "none" else 80) if n_aug is None else n_aug
    return Cell(data, AugmenterSpec(augmenter, augmenter, {}, {}), shots, draw, n_aug, seed, settings)


def write(store, one, skill=None, items=ITEMS, own_noise=0.5, lineage=None):
    """A record with its scores. Test items differ in how hard they are, the same for every cell of a dataset."""
    good, defective = items
    fold = one.data.fold or 0
    hard = np.random.default_rng([7, fold]).normal(size=good + defective)
    names = [f"{one.data.alias}{fold}-{i}" for i in range(good + defective)]
    rng = np.random.default_rng([one.seed, one.draw or 0, fold, int(digest(one.augmenter.alias)[:6], 16)])
    group = np.repeat(np.arange(good + defective), 2)
    label = np.where(group < good, "good", np.where(group % 2, *CLASSES))
    skill = SKILL.get(one.augmenter.alias, 1.0) if skill is None else skill
    noise = hard[group] * 0.5 + own_noise * rng.normal(size=len(group))
    table = pd.DataFrame({"id": [f"p{i}" for i in range(len(group))], "part": "test", "label": label,
                          "group": np.array(names)[group]})  # fmt: skip
    if one.data.classes:
        table = table[table["label"] != "good"].reset_index(drop=True)
        noise = noise[group >= good]
        for name in CLASSES:
            logit = skill * (table["label"] == name) + noise * (1 if name == CLASSES[0] else -1)
            table[f"logit_{name}"] = logit.to_numpy(np.float32)
    else:
        table["logit"] = (skill * (group >= good) + noise).astype(np.float32)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    store.files.write(store.name("scores", one.key), buffer.getvalue())
    result = {**evaluate(table, one.protocol), "counts": {}, "curves": {"loss": [1.0], "test": []}}
    provenance = {"seconds": {"total": 20.0}, "images_per_second": 10.0, "embedded": [], "device": "cpu one",
                  "git_sha": "a" * 40, "versions": {}, **(lineage or {})}  # fmt: skip
    store.write_json("cells", one.key, {"schema": 1, "key": one.key, "spec": one.as_dict(), "result": result,
                                        "provenance": provenance})  # fmt: skip


def filled(store, augmenters=("none", "memseg", "cutpaste"), seeds=4, **axes):
    cells = [cell(name, seed, **axes) for name in augmenters for seed in range(seeds)]
    for one in cells:
        write(store, one)
    return cells


def evidence_of(store, **options):
    records = load_records(store)
    return build_evidence(store, expected_from_records(records), records, **{"resamples": 500, **options})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def printed(store, **options):
    console = Console(width=100, record=True, file=io.StringIO())
    compare(store, console=console, resamples=500, **options)
    return " ".join(console.export_text().split())


# -- intervals and verdicts


def test_a_large_difference_is_found_and_none_is_not(store):
    filled(store)
    (one,) = evidence_of(store)
    assert one.baseline == "none" and (one.groups, one.defective_groups) == (80, 20)
    assert {(c.augmenter, c.versus): str(c.verdict) for c in one.against} == {
        ("memseg", "none"): "better",
        ("cutpaste", "none"): "better",
    }
    (pair,) = one.pairs
    assert (pair.augmenter, pair.versus, pair.n_aug) == ("cutpaste", "memseg", 80)
    assert pair.verdict == "no detectable difference" and pair.together.low < 0 < pair.together.high


def test_estimates_are_the_means_of_the_records(store):
    filled(store)
    records = load_records(store)
    (one,) = evidence_of(store)
    for row in one.rows:
        own = records.loc[records["augmenter"] == row.augmenter, "ap"]
        found = row.intervals["ap"]
        assert found.estimate == pytest.approx(own.mean(), abs=1e-12) and found.runs == 4
        assert 0 <= found.low < found.estimate < found.high <= 1
    minus = {row.augmenter: row.intervals["ap"].estimate for row in one.rows}
    assert one.against[0].alone.estimate == pytest.approx(minus["cutpaste"] - minus["none"], abs=1e-12)


def test_the_trapezoidal_ap_is_resampled_where_the_protocol_has_it(store):
    for seed in range(3):
        write(store, cell("none", seed, ap="trapezoidal"))
    (one,) = evidence_of(store)
    assert one.rows[0].intervals["ap"].estimate == pytest.approx(
        load_records(store)["ap_trapezoidal"].mean(), abs=1e-12
    )


def test_pairing_removes_the_difficulty_of_the_items(store):
    """Both rows are wrong on the same items: what they differ by is known better than either."""
    for name in ("none", "memseg"):
        for seed in range(4):
            write(store, cell(name, seed), skill=1.0, own_noise=0.1)
    (one,) = evidence_of(store)
    width = {row.augmenter: row.intervals["ap"].high - row.intervals["ap"].low for row in one.rows}
    (difference,) = one.against
    assert difference.alone.high - difference.alone.low < 0.5 * min(width.values())


def test_images_of_one_item_are_resampled_together(store):
    """Images of one item are correlated: resampled separately, they would give intervals that are too narrow."""
    for seed in range(3):
        write(store, cell("none", seed))
    (together,) = evidence_of(store)
    for one in store.keys("cells"):
        name = store.name("scores", one)
        table = pd.read_parquet(io.BytesIO(store.files.read(name)))
        table["group"] = table["id"]
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        store.files.write(name, buffer.getvalue())
    (apart,) = evidence_of(store)
    assert apart.groups == 2 * together.groups
    assert apart.rows[0].intervals["ap"].parts["items"] < 0.9 * together.rows[0].intervals["ap"].parts["items"]


def test_two_runs_are_too_few(store):
    filled(store, seeds=2)
    (one,) = evidence_of(store)
    assert {str(c.verdict) for c in (*one.against, *one.pairs)} == {"too few runs to say"}
    assert "too few runs to say" in printed(store)


def test_one_run_has_the_interval_of_other_items_alone(store):
    filled(store, ("none",), seeds=1)
    (one,) = evidence_of(store)
    assert set(one.rows[0].intervals["ap"].parts) == {"items"}
    text = printed(store)
    assert "One run: the interval covers other test items alone, not other seeds." in text
    assert "One run per row: the variance between runs is unknown." in text


def test_recognition_has_accuracy_and_macro_f1(store):
    filled(store, ("none", "memseg"), dataset="neu", shots=5, draw=0)
    (one,) = evidence_of(store)
    records = load_records(store)
    assert one.metrics == ("accuracy", "macro_f1") and one.defective_groups == one.groups == 20
    for metric in one.metrics:
        own = records.loc[records["augmenter"] == "memseg", metric]
        assert one.rows[1].intervals[metric].estimate == pytest.approx(own.mean(), abs=1e-12)
    assert one.against[0].verdict == "better"
    assert "difference in accuracy" in [column.title for column in section_of(one).sheets[1].columns]


def test_only_runs_that_both_rows_have_are_compared(store):
    for seed in range(5):
        write(store, cell("none", seed))
    for seed in range(2, 7):
        write(store, cell("memseg", seed))
    (one,) = evidence_of(store)
    (difference,) = one.against
    assert difference.alone.runs == difference.seeds == 3


def test_folds_of_a_partition_share_no_items_and_are_fixed(store):
    for fold in range(2):
        filled(store, ("none", "memseg"), seeds=3, dataset="magnetic_tile", fold=fold)
    (one,) = evidence_of(store)
    assert one.groups == 160 and one.smallest == 20
    assert set(one.rows[0].intervals["ap"].parts) == {"items", "seed"}
    assert one.rows[0].variance.is_split


def test_random_splits_are_drawn_again(store):
    for fold in range(4):
        filled(store, ("none",), seeds=2, dataset="neu", shots=5, draw=0, fold=fold, test_share=0.3)
    (one,) = evidence_of(store)
    assert set(one.rows[0].intervals["accuracy"].parts) == {"items", "seed", "fold"}


# -- against


def test_without_a_row_of_real_images_memseg_is_the_baseline(store):
    filled(store, ("memseg", "cutpaste"), shots=0)
    (one,) = evidence_of(store)
    assert one.baseline == "memseg" and [c.augmenter for c in one.against] == ["cutpaste"] and not one.pairs


def test_another_baseline_is_compared_at_the_same_n_aug(store):
    filled(store, ("none", "memseg", "cutpaste"))
    filled(store, ("memseg",), n_aug=40)
    (one,) = evidence_of(store, against="cutpaste")
    assert {(c.augmenter, c.n_aug, c.versus_n_aug) for c in one.against} == {("memseg", 80, 80)}
    assert "Against cutpaste" in printed(store, against="cutpaste")


def test_a_table_without_a_baseline_says_so(store):
    filled(store, ("cutpaste", "memseg"), seeds=3, shots=0)
    filled(store, ("memseg", "none"), seeds=3, shots="all")
    assert "No row of none to compare the others with: --against names another." in printed(store, against="none")
    filled(store, ("memseg",), seeds=3, dataset="plate", shots=0)
    filled(store, ("memseg",), seeds=3, dataset="plate", shots=0, n_aug=40)
    assert "All rows are of memseg: there is no other to compare it with." in printed(store)


def test_an_unknown_baseline_is_named(store):
    filled(store)
    with pytest.raises(UserError, match=r"--against 'memsek' is no augmenter of this grid \(did you mean 'memseg'\?\)"):
        evidence_of(store, against="memsek")


# -- tests over seeds


def test_below_seven_seeds_nothing_is_tested_and_the_reason_has_a_number(store):
    filled(store, seeds=4)
    (one,) = evidence_of(store)
    assert all(isnan(c.p) for c in (*one.against, *one.pairs))
    assert "with 4 paired seeds an exact one has no p below .125. There is one from 7 on (.016)." in printed(store)


def test_from_seven_seeds_on_p_is_exact_and_holds_for_all(store):
    filled(store, ("none", "memseg", "cutpaste", "worse"), seeds=7)
    (one,) = evidence_of(store)
    assert [c.p for c in one.against[:2]] == [2 / 128, 2 / 128]  # all seeds agree
    assert one.against[0].p_holm == pytest.approx(3 * 2 / 128)
    text = printed(store)
    assert "exact two-sided sign-flip test" in text and "after Holm over 3 comparisons" in text
    assert str(one.against[2].verdict) == "worse"


def test_too_many_comparisons_for_so_few_seeds_are_reported(store):
    filled(store, ("none", "memseg", "cutpaste", "a", "b"), seeds=7)
    assert "With 7 seeds and 4 comparisons no p can be below .062: it takes 8 seeds to reach .050." in printed(store)


# -- variance


def test_draws_and_seeds_are_separated_where_there_are_several_of_both(store):
    for draw in range(3):
        filled(store, ("none", "memseg"), seeds=3, shots=5, draw=draw)
    (one,) = evidence_of(store)
    assert all(row.variance.is_split for row in one.rows) and isnan(one.rows[0].variance.fold)
    assert {"items", "draw", "seed"} == set(one.rows[0].intervals["ap"].parts)
    (sheet,) = [one for one in section_of(one).sheets if one.title == "Where the variance of AP comes from"]
    assert "draw of shots" in [column.title for column in sheet.columns]
    assert "The seed of a cell is both that of its pool and that of its classifier" in printed(store)


def test_seeds_alone_are_not_split_into_pool_and_classifier(store):
    filled(store)
    text = printed(store)
    assert "Runs differ in their seed alone: no variance to split." in text
    assert "a row without synthetic images has no pool, so its variance is the classifier's." in text


# -- what is wrong with a store


def test_scores_that_are_missing_or_of_another_run_are_refused(store):
    one, other = filled(store, ("none",), seeds=2)
    scores = path_of(store, "scores", one.key)
    whole = scores.read_bytes()
    scores.write_bytes(path_of(store, "scores", other.key).read_bytes())
    with pytest.raises(UserError, match=r"give ap 0\.\d+, their record says 0\.\d+"):
        evidence_of(store)
    scores.write_bytes(whole[:100])
    with pytest.raises(UserError, match="are damaged"):
        evidence_of(store)
    scores.unlink()
    with pytest.raises(UserError, match=r"scores '.*' are missing: run the grid again"):
        evidence_of(store)


def test_cells_without_a_record_are_marked(store):
    cells = filled(store, ("none", "memseg"))
    records = load_records(store)
    expected = expected_from_records(records)
    path_of(store, "cells", cells[-1].key).unlink()
    (one,) = build_evidence(store, expected, load_records(store), resamples=300)
    assert [(row.found, row.expected) for row in one.rows] == [(4, 4), (3, 4)]
    assert one.against[0].alone.runs == 3 and not any(row.efficient for row in one.rows)


# -- costs


def put_pool(store, one, seconds=16.0, pictures=80, learns=None, device="cpu one"):
    shots, draw = (one.shots, one.draw) if learns else (None, None)
    pool = PoolSpec(one.data, one.augmenter, shots, draw, one.seed, 20)
    record = {"key": pool.key, "spec": pool.as_dict(), "pictures": pictures, "chunks": [0, 1, 2, 3],
              "provenance": {"seconds": seconds, "device": device, "git_sha": None, "versions": {}}}  # fmt: skip
    store.write_json_at(store.pool_file(pool.key), record)
    return pool


def put_adapter(store, adapter, seconds, shared=None):
    provenance = {"seconds": seconds, "device": "cpu one", "git_sha": None, "versions": {}}
    extra = {} if shared is None else {"shared_seconds": shared}
    store.write_json_at(f"{store.name('adapters', adapter.key)}/adapter.json",
                        {"key": adapter.key, "spec": adapter.as_dict(), "provenance": provenance | extra})  # fmt: skip


def learner(store, name="ddpm", **axes):
    """Cells of an augmenter that learns from the shots, with its pools."""
    cells = [cell(name, seed, n_aug=40, shots=5, draw=0, **axes) for seed in range(3)]
    for one in cells:
        write(store, one)
        put_pool(store, one, learns=True)
    return cells


def test_the_cost_of_a_row_is_what_one_classifier_of_it_needs(store):
    cells = learner(store)
    adapter = AdapterSpec(cells[0].data, cells[0].augmenter, 5, 0)
    put_adapter(store, adapter, 100.0, {"class-x": 30.0})
    store.write_json_at("shared/class-x/shared.json", {"key": "class-x", "seconds": 31.0})
    (one,) = evidence_of(store)
    cost = one.rows[0].cost
    assert (cost.search, cost.class_pictures, cost.adapting, cost.generating) == (0, 31, 70, 8)
    assert cost.total == 109 and cost.told_apart and cost.devices == ("cpu one",)


def test_an_adapter_that_reused_class_images_pays_for_them_too(store):
    cells = learner(store)
    put_adapter(store, AdapterSpec(cells[0].data, cells[0].augmenter, 5, 0), 70.0, {"class-x": 0.0})
    store.write_json_at("shared/class-x/shared.json", {"key": "class-x", "seconds": 31.0})
    assert evidence_of(store)[0].rows[0].cost.total == 109


def test_older_records_do_not_record_class_images_separately(store):
    cells = learner(store)
    put_adapter(store, AdapterSpec(cells[0].data, cells[0].augmenter, 5, 0), 100.0)
    cost = evidence_of(store)[0].rows[0].cost
    assert (cost.class_pictures, cost.adapting, cost.told_apart) == (0, 100, False)
    assert "do not record class images separately" in printed(store)


def test_what_is_not_on_record_does_not_count_as_free(store):
    learner(store)  # no adapter
    filled(store, ("none",), shots=5, draw=0)
    (one,) = evidence_of(store)
    assert one.rows[0].cost == RowCost() and one.rows[1].cost is None
    assert "The cost of the images is not on record" in printed(store)


def test_a_pool_for_all_regimes_is_not_mistaken_for_one_of_these_shots(store):
    """DDPM reads no shots at zero-shot: that pool is another one than that of the five."""
    one = cell("ddpm", 0, n_aug=40, shots=5, draw=0)
    write(store, one)
    put_pool(store, one)
    put_adapter(store, AdapterSpec(one.data, one.augmenter, None, None), 100.0, {})
    assert evidence_of(store)[0].rows[0].cost is None
    on_the_page = Costs(gather([store])).of(one.key)
    assert not on_the_page.is_whole and on_the_page.total == 0


@pytest.mark.parametrize("recorded", [True, False])
def test_without_its_plugin_a_cell_is_billed_what_its_record_names_and_nothing_else(store, tmp_path, recorded):
    """Pools of several regimes may fit an older record; one of an installed plug-in is inferred."""
    parts = Store(tmp_path / "parts")
    one, loaded = (cell(name, n_aug=40, shots=5, draw=0) for name in ("elsewhere", "memseg"))
    put_pool(parts, one, seconds=8.0)  # of zero-shot
    pool, plain = put_pool(parts, one, seconds=16.0, learns=True), put_pool(parts, loaded, seconds=4.0)
    for adapter in (pool.adapter, AdapterSpec(one.data, one.augmenter, None, None)):
        put_adapter(parts, adapter, 100.0, {})
        provenance = {"seconds": 5.0, "device": "cpu one"}
        parts.write_json("searches", SearchSpec(adapter).key, {"provenance": provenance})
    store.write_json_at(COSTS, costs_of(parts))
    made = {"pools": [{"key": pool.key, "n": 40}], "adapters": [pool.adapter.key],
            "searches": [SearchSpec(pool.adapter).key]}  # fmt: skip
    write(store, one, lineage=made if recorded else None)
    write(store, loaded, lineage={"pools": [{"key": plain.key, "n": 40}], "adapters": [], "searches": []}
          if recorded else None)  # fmt: skip
    write(store, cell("none", shots=5, draw=0))
    costs = {row.augmenter: row.cost for row in evidence_of(store)[0].rows}
    gathered = gather([store])
    on_the_page = Costs(gathered).of(one.key)
    (table,) = board_of(gathered).content["tables"]
    texts = {row["augmenter"]: row["values"]["cost"]["text"] for row in table["rows"]}
    assert costs["memseg"].total == 2
    note = "The pools of 2 of 2 records were inferred from their settings: these records are older than the recorded"
    if recorded:
        assert costs["elsewhere"].total == on_the_page.total == 113 and on_the_page.is_whole
        assert texts["elsewhere"] == "1.9 min" and "inferred" not in printed(store)
        assert not any("inferred" in line for line in table["notes"])
    else:
        assert costs["elsewhere"] is None and on_the_page.total == 0 and texts["elsewhere"] == DASH
        assert note in printed(store) and any(line.startswith(note) for line in table["notes"])


def test_a_row_that_is_better_and_no_dearer_makes_others_inefficient():
    def row(cost, value, complete=True):
        return (None if cost is None else RowCost(generating=cost), value, complete)

    assert efficient([row(0, 0.5), row(10, 0.6), row(20, 0.6), row(30, 0.7)]) == [True, True, False, True]
    assert efficient([row(10, 0.6), row(10, 0.6)]) == [True, True]
    assert efficient([row(10, 0.6), row(20, 0.9, complete=False), row(None, 0.9)]) == [False, False, False]


def test_costs_of_a_store_are_read_where_its_parts_are_gone(store, tmp_path):
    cells = learner(store)
    adapter = AdapterSpec(cells[0].data, cells[0].augmenter, 5, 0)
    put_adapter(store, adapter, 100.0, {"class-x": 30.0})
    store.write_json_at("shared/class-x/shared.json", {"key": "class-x", "seconds": 31.0})
    search = SearchSpec(adapter)
    store.write_json("searches", search.key, {"provenance": {"seconds": 5.0, "device": "cpu one"}})
    content = costs_of(store)
    assert {part["kind"] for part in content["costs"].values()} == {"pools", "adapters", "searches", "shared"}
    published = Store(tmp_path / "published")
    for kind in ("cells", "scores"):
        for one in cells:
            published.files.write(store.name(kind, one.key), store.files.read(store.name(kind, one.key)))
    published.write_json_at(COSTS, content)
    assert read_costs(published) == read_costs(store) and costs_of(published) == content
    assert evidence_of(published)[0].rows[0].cost == evidence_of(store)[0].rows[0].cost


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"schema": 2, "costs": {}}, "is not a list of costs of schema 1"),
        ({"schema": 1, "costs": {"k": {"kind": "pools", "seconds": 1.0}}}, "is damaged at 'k'"),
        ({"schema": 1, "costs": {"k": {"kind": "adapters", "seconds": -1}}}, "has -1 seconds"),
        ({"schema": 1, "costs": {"k": {"kind": "other", "seconds": 1}}}, "is damaged at 'k'"),
        ({"schema": 1, "costs": {"k": {"kind": "shared", "what": 1}}}, "is damaged at 'k'"),
    ],
)
def test_damaged_costs_are_named(store, content, text):
    store.write_json_at(COSTS, content)
    with pytest.raises(UserError, match=text):
        read_costs(store)


def test_an_adaptation_tells_what_shared_parts_took(tmp_path, monkeypatch):
    from augbench.stages import adapt as job
    from augbench.stages.context import Context

    store = Store(tmp_path)
    grid = tiny_grid(augmenters=["none"])
    library = Library.of(grid.datasets)
    data = DataSpec("surfaces", "surfaces", {}, library.fingerprint("surfaces", None), None, 0.0)

    class Learner:
        uses_gpu = False

        def reads(self, shots):
            return frozenset({"negatives"})

        def adapt(self, view, out, seed, context):
            for _ in range(2):
                folder = context.shared("class-x", lambda made: (made / "a.txt").write_text("a"))
            (out / "read.txt").write_text((folder / "a.txt").read_text())

    monkeypatch.setattr(job, "chosen_augmenter", lambda context, spec: (Learner(), None))
    context = Context(store, library, "cpu", None)
    specs = [
        AdapterSpec(data, AugmenterSpec("toy", name, {"limit": n}, {"limit": n}), None, None)
        for n, name in ((1, "a"), (2, "b"))
    ]
    for spec in specs:
        job.adapt(context, spec)
    first, second = (json.loads((path_of(store, "adapters", s.key) / "adapter.json").read_text()) for s in specs)
    assert 0 < first["provenance"]["shared_seconds"]["class-x"] < first["provenance"]["seconds"]
    assert second["provenance"]["shared_seconds"] == {"class-x": 0.0}
    parts = read_costs(store)
    assert parts["class-x"].kind == "shared" and parts["class-x"].seconds > 0
    assert parts[specs[0].key].own_seconds == pytest.approx(
        first["provenance"]["seconds"] - first["provenance"]["shared_seconds"]["class-x"]
    )


# -- ranks


def many_datasets(store, count):
    for number in range(count):
        filled(store, seeds=3, dataset=f"plate{number}")


def test_few_datasets_are_counted_instead_of_ranked(store):
    many_datasets(store, 2)
    assert all(one.ranks is None for one in rankings(evidence_of(store)))
    assert "they need 8 datasets with the same augmenters, protocol and shots; here the most are 2." in printed(store)


def test_from_eight_datasets_on_there_are_ranks_and_a_diagram(store, tmp_path):
    many_datasets(store, 8)
    (found,) = rankings(evidence_of(store, resamples=200))
    assert found.augmenters == ("none", "cutpaste", "memseg") and len(found.datasets) == 8
    assert found.ranks.average[0] == 3 and sum(found.ranks.average) == pytest.approx(6)
    files = compare(store, out=tmp_path / "out", resamples=200)
    assert str(tmp_path / "out" / "cd.svg") in files
    drawn = ElementTree.parse(tmp_path / "out" / "cd.svg")
    texts = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"none", "memseg", "cutpaste", "critical difference 1.17"} <= texts
    assert "average rank" in (tmp_path / "out" / "compare.md").read_text()


# -- files


def everything(store, tmp_path):
    """A table with intervals, both kinds of comparison, and costs."""
    cells = filled(store)
    for one in cells:
        if one.n_aug:
            put_pool(store, one, seconds=4.0 if one.augmenter.name == "memseg" else 9.0)
    compare(store, out=tmp_path / "out", resamples=500)
    return tmp_path / "out"


def test_files_say_the_same(store, tmp_path):
    out = everything(store, tmp_path)
    assert sorted(path.name for path in out.iterdir()) == [
        "compare.csv", "compare.json", "compare.md", "compare.tex", "pareto.svg"]  # fmt: skip
    (table,) = json.loads((out / "compare.json").read_text())["tables"]
    lines = list(csv.DictReader(io.StringIO((out / "compare.csv").read_text())))
    assert [line["line"] for line in lines] == ["interval"] * 3 + ["against"] * 2 + ["pair"]
    for line, row in zip(lines, table["rows"], strict=False):
        assert float(line["estimate"]) == row["intervals"]["ap"]["estimate"]
        assert float(line["low"]) == row["intervals"]["ap"]["low"]
        assert float(line["cost_seconds"]) == row["cost"]["total"]
    assert [line["verdict"] for line in lines[3:]] == [c["verdict"] for c in table["against"] + table["pairs"]]
    markdown, latex = (out / "compare.md").read_text(), (out / "compare.tex").read_text()
    for text in ("better", "no detectable difference"):
        assert text in markdown and text in latex
    assert "![Metric against cost](pareto.svg)" in markdown and latex.count(r"\begin{table}") == 4


def test_the_plot_has_every_row_that_costs_something(store, tmp_path):
    drawn = ElementTree.parse(everything(store, tmp_path) / "pareto.svg")
    texts = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"memseg", "cutpaste", "80", "none (costs nothing)"} <= texts


def test_equal_stores_give_equal_bytes(store, tmp_path):
    out = everything(store, tmp_path)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    compare(Store(store.url), out=tmp_path / "again", resamples=500)
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first


def test_what_stands_in_other_tables_changes_nothing(store):
    filled(store)
    (alone,) = evidence_of(store)
    filled(store, dataset="plate")
    beside = next(one for one in evidence_of(store) if one.table.dataset == "ksdd2")
    assert beside.against == alone.against


def test_smoke_test_parts_are_reported(store):
    (one, *_) = filled(store)
    record = store.read_record(one.key)
    record["provenance"]["embedded"] = ["dataset surfaces"]
    store.write_json("cells", one.key, record)
    assert "mechanics, not evidence (dataset surfaces)" in printed(store)


# -- the command


def test_the_command_writes_into_the_store_and_prints(store):
    filled(store, seeds=3)
    result = cli("compare", store.url, "--resamples", "200")
    assert result.returncode == 0, result.stderr
    assert "Against none" in result.stdout and "better" in result.stdout
    assert (store.files.folder / "reports" / "all" / "compare.json").is_file()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--grid", "nothing"], ["knows no grid 'nothing'"]),
        (["--set", "seeds=[0]"], ["--set changes a grid: give --grid FILE too"]),
        (["--against", "nobody"], ["--against 'nobody' is no augmenter of this grid"]),
        (["--resamples", "3"], ["--resamples", "greater than or equal to 200"]),
    ],
)
def test_mistakes_end_in_one_line(store, options, text):
    filled(store, ("none",), seeds=1)
    assert_one_line(cli("compare", store.url, *options), *text)


def test_an_empty_store_is_named(tmp_path):
    assert_one_line(cli("compare", tmp_path / "none"), "does not exist or holds no records")


def test_a_long_list_is_cut_to_what_is_decided_in_the_terminal_alone(store, tmp_path):
    names = ["none", *(f"a{i}" for i in range(9))]  # 36 pairs
    for name in names:
        for seed in range(3):
            write(store, cell(name, seed), skill=0.0 if name == "a8" else 1.5)
    text = printed(store, out=tmp_path)
    decided = [c for c in evidence_of(store)[0].pairs if c.verdict in ("better", "worse")]
    assert 0 < len(decided) < 36
    assert f"{36 - len(decided)} of 36 differences are neither better nor worse: they are in compare.md." in text
    whole = (tmp_path / "compare.md").read_text().split("### Between augmenters")[1]
    assert whole.count("no detectable difference |") == 36 - len(decided)


def test_the_baseline_is_known_by_a_name_with_a_digest_too():
    assert baseline_among({"memseg #e170b6", "diag"}) == "memseg #e170b6"
    assert baseline_among({"none", "memseg #e170b6"}) == "none"
    assert baseline_among({"memseg #e170b6", "memseg #4ae2a8"}) == ""  # neither is more so than the other
    assert baseline_among({"diag"}) == "" and baseline_among({"diag", "none"}, "diag") == "diag"
