"""A store used by several versions of augbench: reported once, and no unit mixes versions."""

import io
import shutil

import pytest
from helpers import results_of, tiny_grid, tiny_plan
from rich.console import Console

import augbench
from augbench.cli.plan_view import print_plan
from augbench.core.errors import UserError
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.storage.store import Store
from augbench.storage.versions import FIRST, discard_chunks, mark_version, one_precision

HERE = augbench.__version__
GRID = {"augmenters": ["memseg"], "shots": [0], "n_aug": [70], "fidelity": {"extractor": "micro_resnet", "pictures": 8}}


def test_earlier_versions_are_reported_once(tmp_path, monkeypatch):
    store = Store(tmp_path / "new")
    assert mark_version(store) == () == mark_version(store)
    monkeypatch.setattr(augbench, "__version__", "9.0.0")
    assert mark_version(store) == (HERE,)
    assert mark_version(store) == ()
    monkeypatch.setattr(augbench, "__version__", "10.0.0")
    assert mark_version(store) == (HERE, "9.0.0")


def test_a_run_reports_the_first_version_which_left_no_mark(tmp_path, capsys):
    grid, reported = tiny_grid(augmenters=["none"], shots=[5]), []
    Store(tmp_path / "store").write_json("grids", "older", {})
    Store(tmp_path / "fresh").write_json("fingerprints", "surfaces", {})  # as planning does
    for folder in ("store", "store", "fresh"):
        run(grid, Store(tmp_path / folder), executor="inline")
        reported.append(f"has results of augbench {FIRST}, this is {HERE}" in " ".join(capsys.readouterr().out.split()))
    assert reported == [True, False, False]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("versions") / "store")
    assert not run(tiny_grid(**GRID), store, executor="inline").failures
    return store


@pytest.fixture
def begun(finished, tmp_path):
    """A pool of three chunks, made by another version, whose cell is missing."""
    store = Store(shutil.copytree(finished.files.folder, tmp_path / "store"))
    plan = tiny_plan(**GRID)
    (pool,), (cell,) = plan.pools.values(), plan.cells
    chunks = sorted(store.chunks(pool))
    for chunk in chunks:
        name = store.chunk_provenance_name(pool, chunk)
        made = store.parsed(name)
        made["versions"]["augbench"] = FIRST
        store.write_json_at(name, made)
    store.files.remove(store.name("cells", cell.key))
    return store, plan, pool, cell, chunks


@pytest.fixture
def unfinished(begun):
    store, plan, pool, _, chunks = begun
    store.files.remove(store.chunk_name(pool, chunks[-1]))
    return store, plan, pool, chunks


def test_a_finished_pool_of_another_version_stays(begun):
    store, plan, _, cell, _ = begun
    remaining = subtract(plan, store)
    assert [one.key for one in remaining.cells] == [cell.key]
    assert not remaining.chunks and not remaining.begun_by_others and not remaining.fidelity


def test_an_unfinished_pool_is_regenerated(unfinished, finished, capsys):
    store, plan, pool, chunks = unfinished
    image = store.image_name(pool, 0)
    store.files.write(image, b"of another version")
    remaining = subtract(plan, store)
    assert [chunk for _, chunk in remaining.begun_by_others] == chunks[:-1]
    assert [chunk for _, chunk in remaining.chunks] == chunks
    assert len(remaining.fidelity) == 1, "what was measured is not of the images that will be there"
    summary = run(tiny_grid(**GRID), store, executor="inline")
    assert not summary.failures and "begun by another version" in " ".join(capsys.readouterr().out.split())
    made = {store.parsed(store.chunk_provenance_name(pool, n))["versions"]["augbench"] for n in chunks}
    assert made == {HERE}
    assert store.files.read(image) == finished.files.read(image)
    assert store.read_pool(pool.key)["provenance"]["versions"]["augbench"] == HERE
    assert store.keys("fidelity") == finished.keys("fidelity") and not store.check()
    assert results_of(store) == results_of(finished)


def test_fidelity_of_an_unfinished_pool_is_recomputed_after_a_kill(unfinished):
    store, plan, _, chunks = unfinished
    discard_chunks(store, subtract(plan, store).begun_by_others)
    remaining = subtract(plan, store)  # of the run after the killed one
    assert not remaining.begun_by_others and len(remaining.chunks) == len(chunks) and len(remaining.fidelity) == 1


def test_a_plan_reports_chunks_of_other_versions(unfinished):
    store, plan, _, chunks = unfinished
    console = Console(file=io.StringIO(), width=200)
    print_plan(plan, subtract(plan, store), store, console)
    assert f"{len(chunks) - 1} chunks of unfinished pools were made by another version" in console.file.getvalue()


# -- precisions

DIAG = {"name": "diag", "settings": {"bundle": "micro-sdxl-inpaint", "masks": "procedural"}}
DIFFUSION = {"augmenters": [DIAG], "shots": [0], "n_aug": [40], "seeds": [0]}


def of_precision(store, pool, chunk, precision):
    """Write the provenance and marker of a chunk that was made in that precision."""
    made = {"versions": {"augbench": HERE}, "precision": precision, "seconds": 1.0, "device": "", "git_sha": None}
    store.write_json_at(store.chunk_provenance_name(pool, chunk), made)
    store.files.write(store.chunk_name(pool, chunk), b"")


def test_a_pool_of_two_precisions_is_refused(store):
    (pool,) = tiny_plan(store, **DIFFUSION).pools.values()
    of_precision(store, pool, 0, "fp32")
    one_precision(store, pool, {0}, "fp32")
    of_precision(store, pool, 1, "fp16")
    line = rf"pool '.*{pool.key}' mixes images in fp16 and fp32, .*: delete it .*, or set precision of 'diag'"
    with pytest.raises(UserError, match=line):
        run(tiny_grid(**DIFFUSION), store, executor="inline")


def test_a_pool_is_not_continued_in_another_precision(store):
    (pool,) = tiny_plan(store, **DIFFUSION).pools.values()
    of_precision(store, pool, 0, "fp16")
    summary = run(tiny_grid(**DIFFUSION), store, executor="inline")
    assert "mixes images in fp16 and fp32" in next(iter(summary.failures.values()))
    assert store.chunks(pool) == {0}


def test_chunks_that_name_no_precision_fit_any(store):
    (pool,) = tiny_plan(store, **DIFFUSION).pools.values()
    store.write_json_at(store.chunk_provenance_name(pool, 0), {})
    one_precision(store, pool, {0}, "fp16")
