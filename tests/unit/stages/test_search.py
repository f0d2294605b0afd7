"""The quality search: what it tries, by what it judges, what it refuses, and that it is made once."""

import json

import numpy as np
import pytest
import torch
import yaml
from helpers import SEARCHER, cli, on_disk, path_of, results_of, tiny_grid
from layouts import draw_neu

from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.runner.scheduler import Scheduler
from augbench.runner.worker import Failure, WorkerSetup
from augbench.stages import search as job
from augbench.storage.leases import Leases
from augbench.storage.store import Store

SETTINGS = {"strengths": [0.0, 0.15, 0.9], "steps_tried": [1, 2]}


def grid_of(shots=8, changes=(), **more):
    augmenter = {"name": "searcher", "settings": SETTINGS | dict(changes)}
    return tiny_grid(**{"augmenters": ["none", augmenter], "shots": [shots], "fidelity": None, **more})


def search_of(grid, store):
    plan = make_plan(grid, store)
    (spec,) = {plan.search(pool).key: plan.search(pool) for pool in plan.pools.values()}.values()
    store.files.folder.mkdir(exist_ok=True)  # a run has written the grid there before any worker comes
    return plan, spec, WorkerSetup.of(plan, store).context(use_gpu=False)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("searched"))
    summary = run(grid_of(), store, executor="inline")
    assert not summary.failures and summary.done == 2
    return store


def test_the_best_that_does_not_copy_is_taken(searched):
    plan, spec, _ = search_of(grid_of(), searched)
    result = searched.read_json("searches", spec.key)["result"]
    rows = {(row["settings"]["steps"], row["settings"]["strength"]): row for row in result["table"]}
    assert rows.keys() == {(n, s) for n in (1, 2) for s in (0.0, 0.15, 0.9)}
    assert all(len(row["scores"]) == 2 for row in rows.values())  # each half was judged by once
    assert rows[1, 0.0]["refused"] and rows[1, 0.0]["memorisation"] < 1e-6
    assert not rows[1, 0.15]["refused"] and not rows[1, 0.9]["refused"]
    assert rows[1, 0.15]["score"] < rows[1, 0.9]["score"]
    assert result["chosen"] == {"steps": 1, "strength": 0.15} and not result["why"]
    (pool,) = plan.pools.values()
    assert {line["meta"]["strength"] for line in searched.chunk_lines(pool, 0)} == {0.15}
    adapter = json.loads((path_of(searched, "adapters", spec.adapter.key) / "adapter.json").read_text())
    assert adapter["search"] == result  # the table is kept with what was learned
    (cell,) = [cell for cell in plan.cells if cell.n_aug]
    (note,) = searched.read_record(cell.key)["provenance"]["notes"]
    assert note.startswith("searcher: quality search over 6 candidates chose steps 1, strength 0.15 (KID ")
    assert not list(path_of(searched, "searches", "").parent.glob("*.part"))


def test_candidates_learn_from_one_half_and_are_judged_by_the_other(searched, tmp_path, monkeypatch):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    plan, spec, context = search_of(grid_of(changes={"log": str(log)}), store)
    judged = []
    real = job._HalfScorer.__init__

    def spy(self, context, adapter, scoring, learned, unseen, labels):
        judged.append((set(learned["id"]), set(unseen["id"])))
        real(self, context, adapter, scoring, learned, unseen, labels)

    monkeypatch.setattr(job._HalfScorer, "__init__", spy)
    for number in range(4):
        job.run_arm(context, spec, number)
    shots = set(context.library.shots(spec.adapter.data, 8, None if spec.adapter.draw is None else 0)["id"])
    for learned, unseen in judged:
        assert learned | unseen == shots and not learned & unseen and min(len(learned), len(unseen)) >= 2
    assert {frozenset(unseen) for _, unseen in judged} == {frozenset(learned) for learned, _ in judged}
    assert log.read_text().split("\n")[:-1] == ["1 4", "1 4", "2 4", "2 4"]  # an adaptation serves all its strengths
    assert subtract(plan, store).searches == [spec]  # nothing is decided before `decide`


def test_an_arm_computes_on_one_thread_whatever_the_process_has(searched, tmp_path, monkeypatch):
    """The half that is judged by is looked at in an arm, too: inline has all cores, a Ray worker one."""
    from augbench.features.extractor import Extractor

    _, spec, context = search_of(grid_of(), Store(tmp_path / "store"))
    seen, call = [], Extractor.__call__
    monkeypatch.setattr(Extractor, "__call__", lambda *a: seen.append(torch.get_num_threads()) or call(*a))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        job.run_arm(context, spec, 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 4 and set(seen) == {1}  # the judging half, and what three candidates made


def test_an_arm_that_is_there_is_not_made_again(tmp_path):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    grid = grid_of(changes={"log": str(log)})
    _, spec, context = search_of(grid, store)
    first = job.run_arm(context, spec, 2)
    assert job.run_arm(context, spec, 2) == first
    assert job.arm_rows(store, spec, 2) == first and job.arm_rows(store, spec, 1) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("augbench.__version__", "9.0.0")
        assert job.arm_rows(store, spec, 2) is None, "no search is a mixture of what two versions found"
    summary = run(grid, store, executor="inline")
    assert not summary.failures
    assert sorted(log.read_text().split("\n")[:-1]) == ["1 4", "1 4", "1 8", "2 4", "2 4"]  # 1 8: the adapter itself
    assert run(grid, store, executor="inline").trained == 0


def test_a_larger_grid_searches_nothing_again(searched, tmp_path):
    grid = grid_of(n_aug=[6, 12], seeds=[0, 1])
    remaining = subtract(make_plan(grid, searched), searched)
    assert remaining.cells and remaining.chunks and not remaining.searches and not remaining.adapters


@pytest.mark.parametrize(("shots", "said"), [(3, "too few for two halves"), (1, "too few for two halves")])
def test_with_too_few_shots_the_settings_stay_and_the_record_says_so(shots, said, store):
    grid = grid_of(shots)
    assert not run(grid, store, executor="inline").failures
    plan, spec, _ = search_of(grid, store)
    result = store.read_json("searches", spec.key)["result"]
    assert said in result["why"] and result["chosen"] == {} and result["table"] == []
    (cell,) = [cell for cell in plan.cells if cell.n_aug]
    (note,) = store.read_record(cell.key)["provenance"]["notes"]
    assert note == f"searcher: no quality search: {result['why']}"
    (pool,) = plan.pools.values()
    assert {line["meta"]["strength"] for line in store.chunk_lines(pool, 0)} == {0.3}


def test_where_all_copy_the_settings_stay(store):
    grid = grid_of(changes={"strengths": [0.0], "folds": 1})
    assert not run(grid, store, executor="inline").failures
    _, spec, _ = search_of(grid, store)
    result = store.read_json("searches", spec.key)["result"]
    assert result["why"].startswith("every candidate copies") and result["chosen"] == {}
    assert all(row["refused"] for row in result["table"])


def test_classes_are_halved_each_and_judged_each(tmp_path, store):
    steel = on_disk("neu", draw_neu(tmp_path))
    grid = grid_of(4, **steel)
    _, spec, context = search_of(grid, store)
    _, labels, fold = job._halves(context, spec)
    for label in spec.adapter.data.classes:
        assert sorted(np.bincount(fold[labels == label]).tolist()) == [2, 2]
    rows = job.run_arm(context, spec, 0)
    assert {row["settings"]["strength"] for row in rows} == {0.0, 0.15, 0.9}
    _, spec, context = search_of(grid_of(3, **steel), store)
    assert "the shots of class 'crazing' are too few" in job.why_not(context, spec)


def test_an_arm_that_fails_fails_the_search_and_what_waits_for_it(store):
    grid = grid_of(changes={"breaks_at": 2})
    summary = run(grid, store, executor="inline")
    assert summary.done == 1 and sum(summary.blocked.values()) == 1  # `none` is not held up
    assert "the search broke" in next(iter(summary.failures.values()))
    _, spec, _ = search_of(grid, store)
    assert store.keys("failures") == {spec.key} and not store.keys("searches")


def test_fid_on_few_pictures_is_refused_in_a_line(store):
    summary = run(grid_of(changes={"metric": "fid"}), store, executor="inline")
    (line,) = summary.failures.values()
    assert "FID needs 161 pictures on each side, there are 4: score by kid" in line and summary.user_error


def test_what_learns_nothing_can_be_searched_for_too(store):
    grid = grid_of(changes={"learner": False})
    summary = run(grid, store, executor="inline")
    assert not summary.failures and summary.done == 2
    (pool,) = make_plan(grid, store).pools.values()
    assert {line["meta"]["strength"] for line in store.chunk_lines(pool, 0)} == {0.15}
    assert not store.keys("adapters") and len(store.keys("searches")) == 1


def test_other_candidates_are_another_search_adapter_and_pool(store):
    keys = [
        (spec.key, spec.adapter.key, *plan.pools)
        for changes in ({}, {"strengths": [0.1]}, {"folds": 1})
        for plan, spec, _ in [search_of(grid_of(changes=changes), store)]
    ]
    assert len({key for group in keys for key in group}) == 9


def test_a_board_hands_out_an_adapter_after_its_search(store):
    with Leases(store.files) as leases:
        plan = make_plan(grid_of())
        board = Scheduler(plan, subtract(plan, store), store, leases)
        (spec,) = board.next_searches()
        assert board.next_adapters() == [] and board.next_chunks() == [] and board.pools_left
        board.search_done(spec.key)
        assert board.next_searches() == [] and board.next_adapters() == [spec.adapter]
        other = Scheduler(plan, subtract(plan, store), store, leases)
        other.search_failed(spec.key, Failure("broke", by_user=False))
        assert not other.pools_left and other.blocked[spec.key] == 1


def test_on_ray_it_is_the_same(searched, store, tmp_path):
    """Ray Tune runs the arms, beside the trainings that wait for nothing; fidelity is measured beside them, too."""
    grid = grid_of(fidelity={"extractor": "micro_resnet"})
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(grid.as_dict()))
    result = cli("--plugin", SEARCHER, "run", path, "--store", store.url)  # with the plug-ins of this test alone
    assert result.returncode == 0, result.stdout + result.stderr
    _, spec, _ = search_of(grid, store)
    assert store.read_json("searches", spec.key)["result"] == searched.read_json("searches", spec.key)["result"]
    assert results_of(store) == results_of(searched)
    assert len(store.keys("fidelity")) == 1
    inline = Store(store.files.folder.parent / "inline")
    run(grid, inline, executor="inline")
    (key,) = store.keys("fidelity")
    assert inline.read_json("fidelity", key)["result"] == store.read_json("fidelity", key)["result"]


def test_a_driver_takes_no_more_adapters_than_it_makes(store, tmp_path):
    """The others are free for a second driver, and come when one is done."""
    many = [{"name": "toy", "as": f"toy{n}", "settings": {"limit": 100 + n}} for n in range(3)]
    plan = make_plan(tiny_grid(augmenters=many, shots=[5]))
    with Leases(store.files) as first, Leases(store.files) as second:
        boards = [Scheduler(plan, subtract(plan, store), store, leases) for leases in (first, second)]
        (own,) = boards[0].next_adapters(1)
        assert boards[0].next_adapters(1) == [own]  # still in work
        others = boards[1].next_adapters()
        assert len(others) == 2 and own not in others
        boards[0].adapter_done(own.key)
        assert boards[0].next_adapters(1) == []
