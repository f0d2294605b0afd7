import logging
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

# Before anything reads them. Tests ask no network, and do not wait for one; what is in the home folder of whoever runs
# them (caches of weights, a token of Ray's, settings of git) decides nothing.
HOME = tempfile.mkdtemp(prefix="augbench-home-")
for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "TORCH_HOME", "AUGBENCH_DATA"):
    os.environ.pop(name, None)
os.environ |= {"HOME": HOME, "HF_HUB_OFFLINE": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each would wait for one another
sys.path.insert(0, str(Path(__file__).parent))

from augbench.core import plugins  # noqa: E402
from augbench.core.store import Store  # noqa: E402


LONG = ("test_chaos", "test_cluster", "test_engine", "test_files", "test_search", "test_tracking", "test_inout_grid",
        "test_dispatch", "test_third_party")  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files that take a minute come first: no worker is to begin one when the other has nothing left to do."""
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_unconfigure():
    shutil.rmtree(HOME, ignore_errors=True)


# -- nothing is left behind


# When they are imported, and by pytest.
SET_BY_LIBRARIES = {
    "PYTEST_CURRENT_TEST", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR", "CRC32C_SW_MODE",
    "PYTHONBREAKPOINT", "RAY_CLIENT_MODE",
}  # fmt: skip


def process_state():
    """What a test, or a file's fixtures, must leave as it was. Libraries may come in meanwhile, with loggers."""
    names = [None, *(name for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger))]
    ray, torch = sys.modules.get("ray"), sys.modules.get("torch")
    return {
        "variables": dict(os.environ),
        "log levels": {name: logging.getLogger(name).level for name in names},
        "record factory": logging.getLogRecordFactory(),
        "folder": Path.cwd(),
        "plug-ins": {room: list(plugins.find(room)) for room in plugins.ROOMS},
        "Ray": bool(ray and ray.is_initialized()),
        "threads": torch.get_num_threads() if torch else None,
    }


def assert_as_before(before, who):
    after = process_state()
    after["log levels"] = {name: level for name, level in after["log levels"].items() if name in before["log levels"]}
    for state in (before, after):
        state["variables"] = {name: text for name, text in state["variables"].items() if name not in SET_BY_LIBRARIES}
    if before["threads"] is None:  # torch came in
        after["threads"] = None
    if after["record factory"].__module__.startswith("ray."):  # Ray came in: it has one of its own for good
        after["record factory"] = before["record factory"]
    for what, was in before.items():
        if after[what] != was and isinstance(was, dict):
            changed = {name for name in was.keys() | after[what].keys() if was.get(name) != after[what].get(name)}
            pytest.fail(f"{who} left other {what}: {sorted(map(str, changed))}")
        assert after[what] == was, f"{who} left another value of: {what}"


@pytest.fixture(autouse=True, scope="module")
def _module_leaves_nothing(request, _plugins_of_tests):
    before = process_state()
    yield
    assert_as_before(before, request.node.name)


@pytest.fixture(autouse=True)
def _leaves_nothing(request, _module_leaves_nothing):
    before = process_state()
    yield
    assert_as_before(before, request.node.name)


@pytest.fixture(scope="session", autouse=True)
def _plugins_of_tests():
    import helpers

    plugins.load_file(helpers.TOY)
    plugins.load_file(helpers.SEARCHER)


@contextmanager
def plugins_restored():
    """What is added with ``--plugin`` meanwhile is gone afterwards: its file is, too."""
    tables = [plugins._files, plugins._versions, *(plugins.find(room) for room in plugins.ROOMS)]
    before = [dict(table) for table in tables]
    yield
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)


@pytest.fixture(autouse=True, scope="module")
def _plugins_of_the_file(_module_leaves_nothing):
    with plugins_restored():
        yield


@pytest.fixture(autouse=True)
def _plugins_of_the_test(_leaves_nothing):
    with plugins_restored():
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
    """A real S3 server on loopback with the empty bucket ``bucket``; clients find it by their variables."""
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


@pytest.fixture(scope="module")  # so that what other fixtures of a module make is made in the same way
def one_thread():
    """Torch on one thread: small models gain nothing from more, and the numbers stay the same on every machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
