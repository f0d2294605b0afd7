"""Stores in a folder, in memory and on S3: equal files and results, and clear errors if a store becomes unreachable."""

import errno
import subprocess
import sys
import time

import pytest
from helpers import assert_one_line, cli, grid_file, results_of, tiny_grid

from augbench.core.errors import StoreError, UserError
from augbench.runner.driver import run
from augbench.stages.train import train_cell
from augbench.storage import leases as leases_module
from augbench.storage import remote_files
from augbench.storage.files import MARKER
from augbench.storage.remote_files import may_pass
from augbench.storage.store import Store

GRID = {"shots": [5], "n_aug": [6]}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(remote_files, "FIRST_WAIT", 0.01)


@pytest.fixture
def expected(tmp_path):
    """The grid in a local store: the reference for other stores."""
    store = Store(tmp_path / "expected")
    assert run(tiny_grid(**GRID), store, executor="inline").done == 2
    return store


def test_files_behave_alike_everywhere(any_store, tmp_path):
    files = any_store.files
    assert not any_store.exists() and files.names("cells") == set()
    assert files.create("cells/a.json", b"1") and not files.create("cells/a.json", b"2")
    assert files.read("cells/a.json") == b"1"
    files.write("cells/a.json", b"3")
    files.write("cells/b.json", b"4")
    assert any_store.exists() and any_store.keys("cells") == {"a", "b"}
    assert list(files.read_many([f"cells/{name}.json" for name in "bxa"])) == [b"4", None, b"3"]
    assert files.exists("cells/a.json") and not files.exists("cells") and not files.exists("cells/x.json")
    assert abs(files.age("cells/a.json")) < 30 and files.age("cells/x.json") is None
    assert files.remove("cells/a.json") and not files.remove("cells/a.json")
    with pytest.raises(FileNotFoundError):
        files.read("cells/a.json")
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "adapter.json").write_bytes(b"{}")
    (made / "deep" / "x.safetensors").write_bytes(b"weights")
    files.commit_folder(made, "adapters/k", "adapter.json")
    assert not made.exists()
    folder = files.local_folder("adapters/k")
    assert (folder / "deep" / "x.safetensors").read_bytes() == b"weights"
    assert any_store.keys("adapters") == {"k"}


def test_a_folder_committed_twice_stays_intact(any_store, tmp_path):
    for _ in range(2):
        made = tmp_path / "made"
        made.mkdir()
        (made / "adapter.json").write_bytes(b"{}")
        any_store.files.commit_folder(made, "adapters/k", "adapter.json")
    assert any_store.files.read("adapters/k/adapter.json") == b"{}"
    assert any_store.files.names("adapters") == {"k"}


def test_a_folder_whose_marker_was_deleted_is_made_anew(any_store, tmp_path):
    """The way out of a damaged adapter record: the record alone is deleted, and the grid run again."""
    for weights in (b"old", b"new"):
        made = tmp_path / "made"
        made.mkdir()
        (made / "adapter.json").write_bytes(b"{}")
        (made / "x.safetensors").write_bytes(weights)
        any_store.files.commit_folder(made, "adapters/k", "adapter.json")
        assert any_store.files.remove("adapters/k/adapter.json")
    assert any_store.files.read("adapters/k/x.safetensors") == b"new" and any_store.files.names("adapters") == {"k"}


def test_many_files_are_read_in_order(any_store, monkeypatch):
    monkeypatch.setattr(remote_files, "READ_TOGETHER", 3)
    names = [f"cells/{i}.json" for i in range(8)]
    for name in names:
        any_store.files.write(name, name.encode())
    assert [data.decode() for data in any_store.files.read_many(names[::-1])] == names[::-1]


def test_missing_files_are_none_also_after_transient_errors(s3):
    store = Store("s3://bucket")
    store.files.write("cells/a.json", b"a")
    names = ["cells/a.json", "cells/b.json"]
    s3.failures_left = 2  # both are retried, each alone
    assert list(store.files.read_many(names)) == [b"a", None] and s3.failures_left == 0


@pytest.mark.parametrize("mount_point", [False, True])
def test_a_missing_folder_is_not_a_new_store(tmp_path, mount_point):
    """Nor is the empty folder that a disk was mounted on."""
    folder = tmp_path / "store"
    store = Store(folder)
    assert store.keys("cells") == set()  # not created yet
    store.files.write("cells/a.json", b"{}")
    folder.rename(tmp_path / "away")
    if mount_point:
        folder.mkdir()
    for opened in (store, Store(folder, look=False)):  # as in a worker, whose driver has created the store
        for act in (
            lambda files: files.write("cells/b.json", b"{}"),
            lambda files: files.create("leases/b", b"{}"),
            lambda files: files.appending("logs/b.log"),
            lambda files: files.read("cells/a.json"),
            lambda files: files.exists("cells/a.json"),
            lambda files: files.names("cells"),
            lambda files: files.scratch_folder("b"),
        ):
            with pytest.raises(StoreError, match="is not there: mount its disk"):
                act(opened.files)
    assert not mount_point or not list(folder.iterdir()), "what is written there now would be lost"
    assert mount_point or not folder.exists()
    if mount_point:
        folder.rmdir()
    (tmp_path / "away").rename(folder)
    store.files.write("cells/b.json", b"{}")
    assert store.keys("cells") == {"a", "b"}


def test_a_store_of_before_markers_gets_one_with_the_first_write(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_bytes(b"{}")
    store = Store(tmp_path)
    assert store.keys("cells") == {"a"} and not (tmp_path / MARKER).exists()
    store.files.write("cells/b.json", b"{}")
    assert (tmp_path / MARKER).exists() and Store(tmp_path).keys("cells") == {"a", "b"}
    assert Store(tmp_path, look=False).keys("cells") == {"a", "b"}


def test_unfinished_files_are_found_and_discarded(tmp_path):
    store = Store(tmp_path)
    store.files.write("cells/a.json", b"{}")
    half = ["cells/.b.json.1234.part", "cells/.c.json.1234.gone", "features/a/.00000.safetensors.1234.part"]
    for name in (*half, "adapters/.d.1234.part/e/f"):
        store.files.write(name, b"half")
    found = store.unfinished([])
    assert sorted(found) == ["adapters/.d.1234.part", *half]
    store.files.discard(found)
    store.files.discard(found)  # removed already
    assert store.unfinished([]) == [] and store.keys("cells") == {"a"}


def test_a_file_that_cannot_be_removed_is_an_error_of_the_store(tmp_path, monkeypatch):
    def read_only(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    store = Store(tmp_path)
    for step in ("rename", "unlink"):
        store.write_json("cells", "a", {})
        with (
            monkeypatch.context() as patch,
            pytest.raises(StoreError, match=r"cells/a.json' \(Read-only file system\)"),
        ):
            patch.setattr(f"pathlib.Path.{step}", read_only)
            store.files.remove("cells/a.json")


def test_a_grid_gives_equal_bytes_in_every_store(any_store, expected):
    summary = run(tiny_grid(**GRID), any_store, executor="inline")
    assert summary.done == summary.cells == 2 and not summary.failures
    assert results_of(any_store) == results_of(expected)
    assert not any_store.check()
    assert run(tiny_grid(**GRID), any_store, executor="inline").trained == 0
    pool = any_store.name("pools", next(iter(any_store.keys("pools"))))
    assert {"pool.json", "metadata.jsonl", "images", "masks", "chunks"} == any_store.files.names(pool)
    any_store.files.write(f"{pool}/images/00003.png", b"damaged")
    any_store.files.remove(any_store.name("scores", sorted(any_store.keys("scores"))[0]))
    assert len(any_store.check()) == 2


def test_an_adapter_is_trained_and_used_in_every_store(any_store):
    grid = tiny_grid(augmenters=["toy"], shots=[5], n_aug=[4])
    summary = run(grid, any_store, executor="inline")
    assert summary.done == 1 and not summary.failures
    assert len(any_store.keys("adapters")) == 1


def test_a_remote_file_system_never_shows_an_incomplete_file(tmp_path, monkeypatch):
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    class Disk(LocalFileSystem):
        protocol = "disk"

    fsspec.register_implementation("disk", Disk, clobber=True)
    store = Store(f"disk://{tmp_path}/x")
    run(tiny_grid(**GRID), store, executor="inline")
    assert not store.check() and len(store.keys("cells")) == 2
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]

    def broken(self, old, new, **options):
        raise PermissionError(13, "no")

    monkeypatch.setattr(Disk, "mv", broken)
    with pytest.raises(StoreError, match="no"):
        store.write_json("cells", "a", {})
    assert "a" not in store.keys("cells")


def test_a_store_on_s3_refuses_a_bucket_with_other_contents(s3):
    Store("s3://bucket").files.write("photos/1.jpg", b"")
    with pytest.raises(UserError, match="with other contents"):
        Store("s3://bucket")
    assert not Store("s3://bucket/new").exists()


# -- transient and permanent errors


def test_a_busy_s3_is_retried(s3):
    store = Store("s3://bucket")
    store.files.write("cells/a.json", b"{}")
    actions = {
        "write": lambda: store.files.write("cells/b.json", b"{}") is None,
        "read": lambda: store.files.read("cells/a.json"),
        "list": lambda: store.keys("cells"),
        "many": lambda: list(store.files.read_many(["cells/a.json"])),
        "create": lambda: store.files.create("leases/a", b""),
    }
    for name, action in actions.items():
        # The client retries five times, but not responses without a body that says "slow down".
        s3.failures_left = 3 if name in ("read", "many") else 8
        assert action(), name
        assert s3.failures_left == 0, name


def test_a_grid_survives_a_busy_s3(s3, expected):
    s3.fail_every = 9
    summary = run(tiny_grid(**GRID), Store("s3://bucket"), executor="inline")
    s3.fail_every = 0
    assert summary.done == 2 and not summary.failures
    assert results_of(Store("s3://bucket")) == results_of(expected)


def test_an_unreachable_store_ends_the_run_without_loss(s3, monkeypatch):
    store, grid = Store("s3://bucket"), tiny_grid(shots=[5], n_aug=[6], seeds=[0, 1])
    seen = []

    def away_after_the_first(context, images, cell, slices):
        record = train_cell(context, images, cell, slices)
        seen.append(cell.key)
        s3.down = True
        return record

    monkeypatch.setattr("augbench.runner.inline.train_cell", away_after_the_first)
    with pytest.raises(StoreError, match="again when it answers"):
        run(grid, store, executor="inline")
    assert len(seen) == 1
    monkeypatch.setattr("augbench.runner.inline.train_cell", train_cell)
    s3.reset()
    assert store.keys("cells") == set(seen) and not store.keys("failures")
    monkeypatch.setattr(leases_module, "LIFETIME", 0)  # its leases were not released, and its process is alive
    summary = run(grid, Store("s3://bucket"), executor="inline")
    assert summary.done == 4 and summary.trained == 3


def test_permanent_errors_end_at_once(s3, monkeypatch):
    store = Store("s3://bucket")
    with pytest.raises(StoreError, match="create the bucket first"):
        Store("s3://nowhere/x").write_json("cells", "a", {})
    s3.denied = True
    begun = len(s3.requests)
    with pytest.raises(StoreError, match="check the URL, your credentials and your permissions"):
        store.write_json("cells", "a", {})
    assert len(s3.requests) - begun <= 2, "asked again though it was forbidden"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "--store is empty"),
        ("s3://", "names no bucket"),
        ("nonsense://x", "Protocol not known: nonsense"),
        ("simplecache::s3://bucket", "chained URLs"),
    ],
)
def test_locations_that_cannot_be_a_store(location, words):
    with pytest.raises(UserError, match=words):
        Store(location)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"gs://b/x.*gcsfs.*pip"):
        Store("gs://b/x")


def test_transient_errors():
    assert may_pass(ConnectionResetError()) and may_pass(TimeoutError()) and may_pass(OSError(5, "EIO"))
    assert not may_pass(PermissionError(13, "no")) and not may_pass(OSError(28, "full")) and not may_pass(ValueError())


def test_file_urls_are_folders(tmp_path):
    store = Store(f"file://{tmp_path}/x")
    store.write_json("cells", "a", {})
    assert (tmp_path / "x" / "cells" / "a.json").is_file() and store.url == str(tmp_path / "x")


# -- on Ray, from the command line


@pytest.fixture
def grid_path(tmp_path):
    return grid_file(tmp_path, **GRID)


def test_the_command_line_runs_and_reports_on_s3(s3, grid_path, expected):
    command = ("run", grid_path, "--store", "s3://bucket/runs", "--executor", "inline")
    assert "done: 0 of 2 cells" in cli("plan", grid_path, "--store", "s3://bucket/runs").stdout
    result = cli(*command)
    assert result.returncode == 0, result.stderr
    assert "Store: s3://bucket/runs" in result.stdout
    store = Store("s3://bucket/runs")
    assert results_of(store) == results_of(expected)
    assert store.files.names("leases") <= {"drivers"} and not store.files.names("leases/drivers")
    assert "nothing to do" in cli(*command).stdout
    assert cli("report", "s3://bucket/runs").returncode == 0
    assert store.files.exists("reports/tiny/report.md")
    assert cli("store", "check", "s3://bucket/runs").stdout.strip() == "all is well"


@pytest.mark.slow
def test_a_store_lost_under_ray_ends_in_one_line_and_is_completed_later(s3, tmp_path):
    grid = {**GRID, "seeds": [0, 1, 2]}
    path = grid_file(tmp_path, **grid)
    command = [sys.executable, "-m", "augbench", "run", str(path), "--store", "s3://bucket/runs"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    store = Store("s3://bucket/runs")
    deadline = time.monotonic() + 120
    while not store.keys("cells") and time.monotonic() < deadline:
        time.sleep(0.2)
    s3.down = True
    _, error = process.communicate(timeout=180)
    lines = error.strip().splitlines()
    assert process.returncode == 2 and len(lines) == 1 and "run the same command again" in lines[0], error
    s3.reset()
    done = store.keys("cells")
    assert 0 < len(done) < 6 and not store.keys("failures")
    result = cli("run", path, "--store", "s3://bucket/runs", "--executor", "inline")
    assert result.returncode == 0 and f"6 cells done, {6 - len(done)} of them now" in result.stdout, result.stdout
    expected = Store(tmp_path / "expected")
    run(tiny_grid(**grid), expected, executor="inline")
    assert results_of(store) == results_of(expected), "what Ray's workers wrote, and what came later"


def test_no_such_bucket_is_one_line(s3, grid_path):
    nowhere = ("run", grid_path, "--store", "s3://nowhere/runs", "--executor", "inline")
    assert_one_line(cli(*nowhere), "s3://nowhere/runs", "create the bucket")


def test_memory_is_for_one_process(grid_path):
    assert_one_line(cli("run", grid_path, "--store", "memory://x"), "--executor inline")
    assert cli("run", grid_path, "--store", "memory://x", "--executor", "inline").returncode == 0
