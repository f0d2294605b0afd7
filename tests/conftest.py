import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything reads it: tests ask no network, and do not wait for one
sys.path.insert(0, str(Path(__file__).parent))

from augbench.core import plugins
from augbench.core.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture(scope="session", autouse=True)
def _toy_plugin():
    import helpers

    plugins.load_file(helpers.TOY)


@pytest.fixture(autouse=True)
def _no_data_variable(monkeypatch):
    monkeypatch.delenv("AUGBENCH_DATA", raising=False)
