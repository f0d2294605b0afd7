import logging
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

# Set before any library reads them: tests use no network, and the home folder of whoever runs them (weight caches, a
# Ray token, git settings) has no effect.
HOME = tempfile.mkdtemp(prefix="augbench-home-")
for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "TORCH_HOME", "AUGBENCH_DATA"):
    os.environ.pop(name, None)
os.environ |= {"HOME": HOME, "HF_HUB_OFFLINE": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each would compete for the cores
os.environ.setdefault("RAY_worker_niceness", "0")  # nicer ones, as by default, would wait for the other tests
sys.path.insert(0, str(Path(__file__).parent / "helpers"))
BENCH = Path(__file__).parents[1] / "bench"
sys.path += [str(BENCH), str(BENCH / "micro")]  # tests cover its scripts, or simulate machines with them

from augbench.core import registry  # noqa: E402
from augbench.storage.store import Store  # noqa: E402

collect_ignore = ["helpers"]  # test files in it are run by tests
LONG = ("test_chaos", "test_cluster", "test_engine", "test_files", "test_search", "test_tracking", "test_inout_grid",
        "test_tune_dispatch", "test_third_party", "test_devices", "test_grid")  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run files that take a minute first: no worker is to start one when the other has nothing left to do."""
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_unconfigure():
    shutil.rmtree(HOME, ignore_errors=True)


# -- tests leave the process state unchanged


# Variables that libraries set on import, pytest, and for a GPU `deterministic`.
SET_BY_LIBRARIES = {
    "PYTEST_CURRENT_TEST", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR", "CRC32C_SW_MODE",
    "PYTHONBREAKPOINT", "RAY_CLIENT_MODE", "CUBLAS_WORKSPACE_CONFIG", "LD_LIBRARY_PATH",
}  # fmt: skip


def process_state():
    """State that a test, or a file's fixtures, must not change. Libraries may be imported meanwhile and add loggers."""
    names = [None, *(name for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger))]
    ray, torch = sys.modules.get("ray"), sys.modules.get("torch")
    return {
        "variables": dict(os.environ),
        "log levels": {name: logging.getLogger(name).level for name in names},
        "record factory": logging.getLogRecordFactory(),
        "folder": Path.cwd(),
        "plug-ins": {kind: list(registry.find(kind)) for kind in registry.PLUGIN_KINDS},
        "Ray": bool(ray and ray.is_initialized()),
        "threads": torch.get_num_threads() if torch else None,
        "TF32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) if torch else None,
    }


def assert_unchanged(before, test):
    after = process_state()
    after["log levels"] = {name: level for name, level in after["log levels"].items() if name in before["log levels"]}
    for state in (before, after):
        state["variables"] = {name: text for name, text in state["variables"].items() if name not in SET_BY_LIBRARIES}
    if before["threads"] is None:  # torch was imported meanwhile
        after["threads"] = after["TF32"] = None
    if after["record factory"].__module__.startswith("ray."):  # Ray was imported meanwhile and sets its own for good
        after["record factory"] = before["record factory"]
    for what, old in before.items():
        if after[what] != old and isinstance(old, dict):
            changed = {name for name in old.keys() | after[what].keys() if old.get(name) != after[what].get(name)}
            pytest.fail(f"{test} changed {what}: {sorted(map(str, changed))}")
        assert after[what] == old, f"{test} changed: {what}"


@contextmanager
def state_unchanged(test):
    """Remove plug-ins added with ``--plugin`` on exit, as their files are gone by then; fail if other state differs."""
    before = process_state()
    tables = [registry._files, registry._versions, *(registry.find(kind) for kind in registry.PLUGIN_KINDS)]
    copies = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, copies, strict=True):
        table.clear()
        table.update(old)
    assert_unchanged(before, test)


@pytest.fixture(scope="session", autouse=True)
def _plugins_of_tests():
    import helpers

    registry.load_file(helpers.TOY)
    registry.load_file(helpers.SEARCHER)


@pytest.fixture(autouse=True, scope="module")
def _module_state_unchanged(request, _plugins_of_tests):
    with state_unchanged(request.node.name):
        yield


@pytest.fixture(autouse=True)
def _state_unchanged(request, _module_state_unchanged):
    with state_unchanged(request.node.name):
        yield


# -- stores


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def _s3_server():
    from s3 import S3Server

    with S3Server() as server:
        yield server


@pytest.fixture
def s3(_s3_server, monkeypatch):
    """An S3 server on loopback with the empty bucket ``bucket``; environment variables point clients to it."""
    for name, value in _s3_server.variables.items():
        monkeypatch.setenv(name, value)
    _s3_server.reset()
    _s3_server.make_bucket("bucket")
    return _s3_server


@pytest.fixture(params=["local", "memory", "s3"])
def any_store(request, tmp_path):
    """The same store in a folder, in memory, and on S3."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Store("s3://bucket/some/store")
    return Store(tmp_path / "store" if request.param == "local" else f"memory://{tmp_path.name}")


@pytest.fixture(scope="module")  # module scope, so that other fixtures of the module compute under it too
def one_thread():
    """Limit torch to one thread: small models gain nothing from more, and results are the same on every machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
