"""The quality search: its candidates, their evaluation, refused copies, and that it runs once."""

import json

import numpy as np
import pytest
import torch
from helpers import SEARCHER, cli, grid_file, on_disk, path_of, results_of, tiny_grid
from layouts import draw_neu

from augbench.core.specs import SearchSpec
from augbench.features.extractor import Extractor
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.runner.scheduler import Scheduler
from augbench.runner.worker import Failure, WorkerSetup
from augbench.stages import search as stage
from augbench.stages.train import _lineage
from augbench.storage.leases import Leases
from augbench.storage.store import Store

SETTINGS = {"strengths": [0.0, 0.15, 0.9], "steps_tried": [1, 2]}


def grid_of(shots=8, changes=(), **more):
    augmenter = {"name": "searcher", "settings": SETTINGS | dict(changes)}
    return tiny_grid(**{"augmenters": ["none", augmenter], "shots": [shots], "fidelity": None, **more})


def search_of(grid, store):
    plan = make_plan(grid, store)
    (spec,) = {plan.search(pool).key: plan.search(pool) for pool in plan.pools.values()}.values()
    store.write_json("grids", plan.grid.name, {})  # a run writes the grid there before workers start
    return plan, spec, WorkerSetup.of(plan, store).context(gpu=0)


def result_of(grid, store):
    """Run a grid without failures; return its plan and the result of its search."""
    assert not run(grid, store, executor="inline").failures
    plan, spec, _ = search_of(grid, store)
    return plan, store.read_json("searches", spec.key)["result"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("searched"))
    summary = run(grid_of(fidelity={"extractor": "micro_resnet"}), store, executor="inline")
    assert not summary.failures and summary.done == 2
    return store


def test_the_best_candidate_that_does_not_copy_is_chosen(searched):
    plan, spec, _ = search_of(grid_of(), searched)
    result = searched.read_json("searches", spec.key)["result"]
    rows = {(row["settings"]["steps"], row["settings"]["strength"]): row for row in result["table"]}
    assert rows.keys() == {(n, s) for n in (1, 2) for s in (0.0, 0.15, 0.9)}
    assert all(len(row["scores"]) == 2 for row in rows.values())  # evaluated once on each half
    assert rows[1, 0.0]["refused"] and rows[1, 0.0]["memorisation"] < 1e-6
    assert not rows[1, 0.15]["refused"] and not rows[1, 0.9]["refused"]
    assert rows[1, 0.15]["score"] < rows[1, 0.9]["score"]
    assert result["chosen"] == {"steps": 1, "strength": 0.15} and not result["why"]
    (pool,) = plan.pools.values()
    assert {line["meta"]["strength"] for line in searched.chunk_lines(pool, 0)} == {0.15}
    adapter = json.loads((path_of(searched, "adapters", spec.adapter.key) / "adapter.json").read_text())
    assert adapter["search"] == result  # the table is stored with the adapter
    (cell,) = [cell for cell in plan.cells if cell.n_aug]
    (note,) = searched.read_record(cell.key)["provenance"]["notes"]
    assert note.startswith("searcher: quality search over 6 candidates chose steps 1, strength 0.15 (KID ")
    assert not list(path_of(searched, "searches", "").parent.glob("*.part"))
    lineages = {name: lineage for name, (_, lineage, _) in results_of(searched).items()}
    named = lineages.pop(cell.key)
    assert named["searches"] == [spec.key] and named["adapters"] == [spec.adapter.key]
    assert named["pools"] == [{"key": pool.key, "n": 6}]
    assert list(lineages.values()) == [{"pools": [], "adapters": [], "searches": []}]


def test_the_lineage_of_a_cell_is_what_its_slices_need():
    parts = [{"name": "memseg", "share": 0.2}, {"name": "toy", "share": 0.7}, {"name": "cutpaste", "share": 0.1}]
    mixture = {"name": "mixture", "settings": {"parts": parts}}
    unlearned = {"name": "searcher", "settings": SETTINGS | {"learner": False}}
    plan = make_plan(tiny_grid(augmenters=["none", "memseg", "toy", unlearned, mixture], shots=[5]))
    pools = {pool.augmenter.name: pool for pool in plan.pools.values()}
    found = {cell.augmenter.name: _lineage(plan.library, plan.needs[cell.key]) for cell in plan.cells}

    def lineage(counts, adapters=(), searches=()):
        uses = [{"key": pools[name].key, "n": n} for name, n in counts.items()]
        return {"pools": uses, "adapters": list(adapters), "searches": list(searches)}

    toy, search = pools["toy"].adapter.key, SearchSpec(pools["searcher"].adapter).key
    assert found == {
        "none": lineage({}),
        "memseg": lineage({"memseg": 6}),
        "toy": lineage({"toy": 6}, [toy]),
        "searcher": lineage({"searcher": 6}, searches=[search]),
        "mixture": lineage({"memseg": 2, "toy": 4}, [toy]),  # no image of cutpaste: a tenth of six
    }


def test_candidates_are_adapted_to_one_half_and_evaluated_on_the_other(searched, tmp_path, monkeypatch):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    plan, spec, context = search_of(grid_of(changes={"log": str(log)}), store)
    halves = []
    original = stage._HalfScorer.__init__

    def spy(self, context, adapter, scoring, seen, unseen, labels):
        halves.append((set(seen["id"]), set(unseen["id"])))
        original(self, context, adapter, scoring, seen, unseen, labels)

    monkeypatch.setattr(stage._HalfScorer, "__init__", spy)
    for number in range(4):
        stage.run_arm(context, spec, number)
    shots = set(context.library.shots(spec.adapter.data, 8, None if spec.adapter.draw is None else 0)["id"])
    for seen, unseen in halves:
        assert seen | unseen == shots and not seen & unseen and min(len(seen), len(unseen)) >= 2
    assert {frozenset(unseen) for _, unseen in halves} == {frozenset(seen) for seen, _ in halves}
    assert log.read_text().split("\n")[:-1] == ["1 4", "1 4", "2 4", "2 4"]  # an adaptation serves all its strengths
    assert subtract(plan, store).searches == [spec]  # nothing is decided before `decide`


def test_an_arm_computes_on_one_thread_whatever_the_process_has(searched, tmp_path, monkeypatch):
    """Features of the evaluation half are extracted in an arm, too: inline has all cores, a Ray worker one."""
    _, spec, context = search_of(grid_of(), Store(tmp_path / "store"))
    seen, call = [], Extractor.__call__
    monkeypatch.setattr(Extractor, "__call__", lambda *a: seen.append(torch.get_num_threads()) or call(*a))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        stage.run_arm(context, spec, 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 4 and set(seen) == {1}  # the evaluation half, and the images of three candidates


def test_a_committed_arm_does_not_run_again(tmp_path):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    grid = grid_of(changes={"log": str(log)})
    _, spec, context = search_of(grid, store)
    first = stage.run_arm(context, spec, 2)
    assert stage.run_arm(context, spec, 2) == first
    assert stage.arm_rows(store, spec, 2) == first and stage.arm_rows(store, spec, 1) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("augbench.__version__", "9.0.0")
        assert stage.arm_rows(store, spec, 2) is None, "no search mixes rows of two versions"
    assert not run(grid, store, executor="inline").failures
    assert sorted(log.read_text().split("\n")[:-1]) == ["1 4", "1 4", "1 8", "2 4", "2 4"]  # 1 8: the adapter itself
    assert run(grid, store, executor="inline").trained == 0


def test_a_larger_grid_repeats_no_search(searched):
    grid = grid_of(n_aug=[6, 12], seeds=[0, 1])
    remaining = subtract(make_plan(grid, searched), searched)
    assert remaining.cells and remaining.chunks and not remaining.searches and not remaining.adapters


@pytest.mark.parametrize("shots", [3, 1])
def test_with_too_few_shots_the_settings_stay_and_the_record_says_so(shots, store):
    plan, result = result_of(grid_of(shots), store)
    assert "too few for two halves" in result["why"] and result["chosen"] == {} and result["table"] == []
    (cell,) = [cell for cell in plan.cells if cell.n_aug]
    (note,) = store.read_record(cell.key)["provenance"]["notes"]
    assert note == f"searcher: no quality search: {result['why']}"
    (pool,) = plan.pools.values()
    assert {line["meta"]["strength"] for line in store.chunk_lines(pool, 0)} == {0.3}


def test_if_all_candidates_copy_the_settings_stay(store):
    _, result = result_of(grid_of(changes={"strengths": [0.0], "folds": 1}), store)
    assert result["why"].startswith("every candidate copies") and result["chosen"] == {}
    assert all(row["refused"] for row in result["table"])


def test_each_class_is_split_and_evaluated(tmp_path, store):
    steel = on_disk("neu", draw_neu(tmp_path))
    _, spec, context = search_of(grid_of(4, **steel), store)
    _, labels, fold = stage._halves(context, spec)
    for label in spec.adapter.data.classes:
        assert sorted(np.bincount(fold[labels == label]).tolist()) == [2, 2]
    rows = stage.run_arm(context, spec, 0)
    assert {row["settings"]["strength"] for row in rows} == {0.0, 0.15, 0.9}
    _, spec, context = search_of(grid_of(3, **steel), store)
    assert "the shots of class 'crazing' are too few" in stage.why_not(context, spec)


def test_a_failing_arm_fails_the_search_and_its_dependents(store):
    grid = grid_of(changes={"breaks_at": 2})
    summary = run(grid, store, executor="inline")
    assert summary.done == 1 and sum(summary.blocked.values()) == 1  # `none` is not held up
    assert "the search broke" in next(iter(summary.failures.values()))
    _, spec, _ = search_of(grid, store)
    assert store.keys("failures") == {spec.key} and not store.keys("searches")


def test_fid_on_few_images_is_refused_in_a_line(store):
    summary = run(grid_of(changes={"metric": "fid"}), store, executor="inline")
    (line,) = summary.failures.values()
    assert "FID needs 161 images on each side, there are 4: score by kid" in line and summary.user_error


def test_augmenters_without_adaptation_can_be_searched(store):
    plan, _ = result_of(grid_of(changes={"learner": False}), store)
    (pool,) = plan.pools.values()
    assert {line["meta"]["strength"] for line in store.chunk_lines(pool, 0)} == {0.15}
    assert not store.keys("adapters") and len(store.keys("searches")) == 1 and len(store.keys("cells")) == 2


def test_other_candidates_are_another_search_adapter_and_pool(store):
    keys = [
        (spec.key, spec.adapter.key, *plan.pools)
        for changes in ({}, {"strengths": [0.1]}, {"folds": 1})
        for plan, spec, _ in [search_of(grid_of(changes=changes), store)]
    ]
    assert len({key for group in keys for key in group}) == 9


def test_the_scheduler_leases_an_adapter_after_its_search(store):
    with Leases(store.files) as leases:
        plan = make_plan(grid_of())
        scheduler = Scheduler(plan, subtract(plan, store), store, leases)
        (spec,) = scheduler.next_searches()
        assert scheduler.next_adapters() == [] and scheduler.next_chunks() == [] and scheduler.pools_left
        scheduler.search_done(spec.key)
        assert scheduler.next_searches() == [] and scheduler.next_adapters() == [spec.adapter]
        other = Scheduler(plan, subtract(plan, store), store, leases)
        other.search_failed(spec.key, Failure("broke", by_user=False))
        assert not other.pools_left and other.blocked[spec.key] == 1


@pytest.mark.slow
def test_on_ray_it_is_the_same(searched, store, tmp_path):
    """Ray Tune runs the arms, in parallel with trainings that need no search and with fidelity."""
    grid = grid_of(fidelity={"extractor": "micro_resnet"})
    path = grid_file(tmp_path, **grid.as_dict())
    result = cli("--plugin", SEARCHER, "run", path, "--store", store.url)  # with the plug-ins of this test only
    assert result.returncode == 0, result.stdout + result.stderr
    _, spec, _ = search_of(grid, store)
    assert store.read_json("searches", spec.key)["result"] == searched.read_json("searches", spec.key)["result"]
    assert results_of(store) == results_of(searched)
    (key,) = store.keys("fidelity")
    assert searched.read_json("fidelity", key)["result"] == store.read_json("fidelity", key)["result"]


def test_a_driver_leases_no_more_adapters_than_it_makes(store):
    """A second driver can lease the others."""
    many = [{"name": "toy", "as": f"toy{n}", "settings": {"limit": 100 + n}} for n in range(3)]
    plan = make_plan(tiny_grid(augmenters=many, shots=[5]))
    with Leases(store.files) as first, Leases(store.files) as second:
        schedulers = [Scheduler(plan, subtract(plan, store), store, leases) for leases in (first, second)]
        (own,) = schedulers[0].next_adapters(1)
        assert schedulers[0].next_adapters(1) == [own]  # still in progress
        others = schedulers[1].next_adapters()
        assert len(others) == 2 and own not in others
        schedulers[0].adapter_done(own.key)
        assert schedulers[0].next_adapters(1) == []
