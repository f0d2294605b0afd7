import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything reads it: tests ask no network, and do not wait for one
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each would wait for one another
sys.path.insert(0, str(Path(__file__).parent))

from augbench.core import plugins
from augbench.core.store import Store


def pytest_collection_modifyitems(items):
    """A file's tests share fixtures, so a worker takes all of them. Those that kill, kill their own."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


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


@pytest.fixture(scope="session", autouse=True)
def _toy_plugin():
    import helpers

    plugins.load_file(helpers.TOY)
    plugins.load_file(helpers.SEARCHER)


@pytest.fixture(autouse=True)
def _own_plugins(_toy_plugin):
    """What a test adds with ``--plugin`` is not there for the next one: its file is not, either."""
    tables = [plugins._files, plugins._versions, *(plugins.find(room) for room in plugins.ROOMS)]
    before = [dict(table) for table in tables]
    yield
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)


@pytest.fixture(autouse=True)
def _no_data_variable(monkeypatch):
    monkeypatch.delenv("AUGBENCH_DATA", raising=False)


@pytest.fixture(scope="module")  # so that what other fixtures of a module make is made in the same way
def one_thread():
    """Torch on one thread: small models gain nothing from more, and the numbers stay the same on every machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
