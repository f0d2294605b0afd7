"""The store: atomic writes, errors that name damaged files, advisory leases; in a folder, in memory and on S3."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time

import layouts
import numpy as np
import pytest
from helpers import library_of, path_of, tiny_plan
from safetensors.numpy import save

from augbench.core.errors import UserError
from augbench.planning.remaining import Holdings
from augbench.storage import leases as leases_module
from augbench.storage.leases import Leases, abandoned, heartbeat_name, lease_name
from augbench.storage.store import Store, json_bytes, json_lines


def test_write_is_atomic(store, monkeypatch):
    store.write_json("cells", "a", {"x": 1})

    def broken(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", broken)
    with pytest.raises(UserError, match="No space left"):
        store.write_json("cells", "a", {"x": 2})
    assert store.read_json("cells", "a") == {"x": 1}
    assert [path.name for path in path_of(store, "cells", "a").parent.iterdir()] == ["a.json"]


def test_unfinished_files_are_not_keys(store):
    store.write_json("cells", "a", {"x": 1})
    (store.files.folder / "cells" / ".b.json.1234.part").write_text("{")
    assert store.keys("cells") == {"a"}


@pytest.mark.parametrize("content", ["", '{"key": "a", "spec"', "[]", '{"key": "other"}'])
def test_damaged_record_is_named(store, content):
    path_of(store, "cells", "a").parent.mkdir(parents=True)
    path_of(store, "cells", "a").write_text(content)
    with pytest.raises(UserError, match=r"a\.json"):
        store.read_record("a")
    assert len(store.check()) == 1


@pytest.mark.parametrize("kind", ["fidelity", "searches"])
@pytest.mark.parametrize(
    "content", ["", '{"key": "a", "spec": {}}', '{"key": "b", "spec": 1, "result": 1, "provenance": 1}']
)
def test_check_names_other_damaged_records(any_store, kind, content):
    whole = {"key": "b", "spec": {}, "result": {}, "provenance": {}}
    any_store.files.write(any_store.name(kind, "a"), content.encode())
    any_store.write_json(kind, "b", whole)
    (problem,) = any_store.check()
    assert any_store.where(kind, "a") in problem


def test_equal_values_give_equal_bytes():
    assert json_bytes({"b": 1, "a": [1.5, None]}) == json_bytes({"a": [1.5, None], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"a": float("nan")})


def test_store_refuses_unusable_locations(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Store(tmp_path / "file")


def test_failures_count_attempts_and_are_cleared(store):
    for _ in range(2):
        store.record_failure("a", {}, RuntimeError("broke"))
    failure = store.read_json("failures", "a")
    assert failure["attempts"] == 2 and failure["error"] == "RuntimeError: broke" and not failure["by_user"]
    store.clear_failure("a")
    assert store.keys("failures") == set()


def test_fingerprint_is_cached_until_a_file_changes(store, tmp_path):
    settings = layouts.draw_folder(tmp_path)

    def fingerprint():
        return library_of("folder", settings).fingerprint("folder", store)

    first = fingerprint()
    store.write_json("fingerprints", "folder", {**store.read_json("fingerprints", "folder"), "fingerprint": "cached"})
    assert fingerprint() == "cached"
    path = tmp_path / "good" / "000.png"
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))
    assert fingerprint() == first


def test_two_drivers_share_leases(any_store):
    files = any_store.files
    with Leases(files) as one, Leases(files) as two:
        assert one.acquire("a") and one.acquire("a")
        assert not two.acquire("a")
        assert two.acquire("b")
        one.release("a")
        assert two.acquire("a")
        one.release("a")  # no longer ours: must not be deleted
        assert files.exists(lease_name("a"))
    assert files.names("leases") <= {"drivers"} and not files.names("leases/drivers")


@pytest.mark.parametrize("any_store", ["local", "s3"], indirect=True)
def test_only_one_of_many_gets_a_lease(any_store):
    drivers = [Leases(any_store.files) for _ in range(8)]
    got = []
    threads = [threading.Thread(target=lambda d=d: got.append(d.acquire("a"))) for d in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got.count(True) == 1


def test_the_lease_of_a_dead_process_is_taken_over(any_store):
    files = any_store.files
    with Leases(files) as one:
        one.acquire("a")
        assert not abandoned(files, "a")
        files.write(lease_name("a"), json.dumps({**json.loads(files.read(lease_name("a"))), "pid": 2**22 + 1}).encode())
        assert abandoned(files, "a")  # no process has this id
        with Leases(files) as two:
            assert two.acquire("a")


def test_the_lease_of_a_silent_driver_is_taken_over(any_store, monkeypatch):
    monkeypatch.setattr(leases_module, "HEARTBEAT", 3600)
    files = any_store.files
    with Leases(files) as one, Leases(files) as two:
        one.acquire("a")
        assert not two.acquire("a")
        monkeypatch.setattr(leases_module, "LIFETIME", -60)  # as if a minute had passed
        assert two.acquire("a")


def test_an_empty_lease_expires(store, monkeypatch):
    store.files.create(lease_name("a"), b"")  # its driver died between creating and writing
    assert not abandoned(store.files, "a")
    monkeypatch.setattr(leases_module, "LIFETIME", -1)
    assert abandoned(store.files, "a")


def test_one_heartbeat_renews_all_leases(store, monkeypatch):
    monkeypatch.setattr(leases_module, "HEARTBEAT", 0.05)
    with Leases(store.files) as one:
        one.acquire("a")
        one.acquire("b")
        for name in (lease_name("a"), lease_name("b"), heartbeat_name(one.owner)):
            os.utime(store.files.folder / name, (1, 1))
        deadline = time.monotonic() + 5
        while abandoned(store.files, "a") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not abandoned(store.files, "a") and not abandoned(store.files, "b")


def test_deleted_leases_change_nothing(any_store):
    with Leases(any_store.files) as one:
        one.acquire("a")
        any_store.files.remove(lease_name("a"))
        one.release("a")


def test_pool_paths_follow_the_spec(store):
    pool = next(iter(tiny_plan().pools.values()))
    line = {"file_name": "images/00060.png", "sha256": hashlib.sha256(b"x").hexdigest()}
    store.files.write(store.chunk_name(pool, 3), json_lines([line]))
    assert store.chunks(pool) == {3}
    assert "images/00060.png' is missing or damaged" in store.check()[0]
    store.files.write(store.image_name(pool, 60), b"x")
    assert not store.check()
    store.files.write(store.image_name(pool, 60), b"y")
    assert "00003.jsonl" in store.check()[0]


def test_every_kind_of_file_is_checked(store):
    pool = next(iter(tiny_plan().pools.values()))
    digest = hashlib.sha256(b"x").hexdigest()
    lines = [
        {"index": n, "file_name": f"images/{n:05d}.png", "sha256": digest}
        for n in range(pool.chunk_size, 2 * pool.chunk_size)
    ]
    tensors = save({"features": np.zeros(3)})
    files = {
        store.name("grids", "g"): json_bytes({"cells": []}),
        f"{store.name('adapters', 'a')}/adapter.json": json_bytes({"key": "a"}),
        store.name("weights", "w"): tensors,
        f"{store.name('features', 'f')}/00000.safetensors": tensors,
        store.pool_file(pool.key): json_bytes({"spec": pool.as_dict()}),
        store.chunk_name(pool, 1): json_lines(lines),
    }
    for name, data in {**files, **{store.image_name(pool, line["index"]): b"x" for line in lines}}.items():
        store.files.write(name, data)
    assert store.check() == []
    for name, data in files.items():
        store.files.write(name, json_lines(lines[:-1]) if name.endswith(".jsonl") else data[:-3])
        (problem,) = store.check()
        assert f"'{store.files.where(name)}' is damaged: " in problem
        store.files.write(name, data)


def test_a_copy_that_a_synchronised_folder_made_is_no_chunk(store):
    pool = next(iter(tiny_plan().pools.values()))
    stray = f"{store.name('pools', pool.key)}/chunks/00000 (conflicted copy).jsonl"
    for name in (store.chunk_name(pool, 0), stray):
        store.files.write(name, b"")
    assert store.chunks(pool) == Holdings(store).chunks(pool.key).keys() == {0}
    assert store.check() == [f"'{store.files.where(stray)}' is not the name of a chunk: remove it"]


def test_reading_scores_starts_no_threads():
    """Arrow's threads may abort a process at exit with SIGABRT."""
    code = """
import os, pyarrow, pandas
from augbench.storage.scores import scores_bytes, scores_frame
table = pandas.DataFrame({"id": [str(i) for i in range(5000)], "logit": [float(i) for i in range(5000)]})
data = scores_bytes(table)
before = len(os.listdir("/proc/self/task"))
assert scores_frame(data).equals(table)
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0", done.stderr
