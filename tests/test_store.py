"""The store: whole files or none, damaged ones named, leases advisory."""

import hashlib
import json
import os
import threading
import time

import layouts
import pytest
from helpers import tiny_plan

from augbench.core import leases as leases_module
from augbench.core.errors import UserError
from augbench.core.grid import DatasetEntry
from augbench.core.leases import Leases, abandoned
from augbench.core.library import Library
from augbench.core.store import Store, json_bytes, json_lines, write_atomic


def test_write_is_whole_or_nothing(store, monkeypatch):
    store.write_json("cells", "a", {"x": 1})

    def broken(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", broken)
    with pytest.raises(UserError, match="No space left"):
        store.write_json("cells", "a", {"x": 2})
    assert store.read_json("cells", "a") == {"x": 1}
    assert [path.name for path in store.path("cells", "a").parent.iterdir()] == ["a.json"]


def test_unfinished_files_are_no_keys(store):
    store.write_json("cells", "a", {"x": 1})
    (store.root / "cells" / ".b.json.1234.part").write_text("{")
    assert store.keys("cells") == {"a"}


@pytest.mark.parametrize("content", ["", '{"key": "a", "spec"', "[]", '{"key": "other"}'])
def test_damaged_record_is_named(store, content):
    store.path("cells", "a").parent.mkdir(parents=True)
    store.path("cells", "a").write_text(content)
    with pytest.raises(UserError, match=r"a\.json"):
        store.read_record("a")
    assert len(store.check()) == 1


def test_equal_values_give_equal_bytes():
    assert json_bytes({"b": 1, "a": [1.5, None]}) == json_bytes({"a": [1.5, None], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"a": float("nan")})


def test_store_refuses_what_it_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Store(tmp_path / "file")
    with pytest.raises(UserError, match="only local folders"):
        Store("s3://bucket/x")


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
        return Library.of((DatasetEntry(name="folder", settings=settings),)).fingerprint("folder", store)

    first = fingerprint()
    store.write_json("fingerprints", "folder", {**store.read_json("fingerprints", "folder"), "fingerprint": "cached"})
    assert fingerprint() == "cached"
    path = tmp_path / "good" / "000.png"
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))
    assert fingerprint() == first


def test_two_drivers_share_leases(store):
    with Leases(store.root) as one, Leases(store.root) as two:
        assert one.acquire("a") and one.acquire("a")
        assert not two.acquire("a")
        assert two.acquire("b")
        one.release("a")
        assert two.acquire("a")
        one.release("a")  # no longer ours: must not be deleted
        assert (store.root / "leases" / "a").is_file()
    assert not list((store.root / "leases").iterdir())


def test_only_one_of_many_gets_a_lease(store):
    drivers = [Leases(store.root) for _ in range(8)]
    got = []
    threads = [threading.Thread(target=lambda d=d: got.append(d.acquire("a"))) for d in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got.count(True) == 1


def test_an_abandoned_lease_is_taken_over(store):
    with Leases(store.root) as one:
        one.acquire("old")
        one.acquire("dead")
        old, dead = (store.root / "leases" / name for name in ("old", "dead"))
        os.utime(old, (time.time() - leases_module.LIFETIME - 1,) * 2)
        dead.write_text(json.dumps({**json.loads(dead.read_text()), "pid": 2**22 + 1}))  # beyond any pid
        assert abandoned(old) and abandoned(dead)
        with Leases(store.root) as two:
            assert two.acquire("old") and two.acquire("dead")


def test_heartbeat_keeps_a_lease_young(store, monkeypatch):
    monkeypatch.setattr(leases_module, "HEARTBEAT", 0.05)
    with Leases(store.root) as one:
        one.acquire("a")
        path = store.root / "leases" / "a"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 5
        while abandoned(path) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not abandoned(path)


def test_deleted_leases_change_nothing(store):
    with Leases(store.root) as one:
        one.acquire("a")
        (store.root / "leases" / "a").unlink()
        one.release("a")


def test_pool_paths_follow_the_spec(store):
    pool = next(iter(tiny_plan().pools.values()))
    line = {"file_name": "images/00060.png", "sha256": hashlib.sha256(b"x").hexdigest()}
    write_atomic(store.chunk_path(pool, 3), json_lines([line]))
    assert store.chunks(pool) == {3}
    assert "images/00060.png' is missing or damaged" in store.check()[0]
    write_atomic(store.image_path(pool, 60), b"x")
    assert not store.check()
    write_atomic(store.image_path(pool, 60), b"y")
    assert "00003.jsonl" in store.check()[0]
