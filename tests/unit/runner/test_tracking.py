"""Experiment trackers of a run on Ray, and the names of its Ray workers."""

import struct
from pathlib import Path

import pytest
from frozen_cells import frozen_plan
from helpers import HERE, ROOT, TINY, assert_one_line, cli, tiny_grid, tiny_plan

from augbench.core import registry
from augbench.core.errors import UserError
from augbench.runner import trackers, tune_tracking
from augbench.runner.driver import run
from augbench.runner.trackers import Tracker, trackers_of
from augbench.runner.tune_tracking import Tracking
from augbench.stages.train import numbers
from augbench.storage.store import Store

TALKER = HERE / "plugins" / "talker.py"
DIVERGES = {"name": "diverges", **TINY, "lr": 1e30, "optimiser": "sgd"}
GRID = {"augmenters": ["none", "talker"], "shots": [5], "n_aug": [3], "protocols": [{"name": "tiny", **TINY}, DIVERGES]}


@pytest.fixture(scope="module", autouse=True)
def _talker():
    registry.load_file(TALKER)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A store where one training was done before and the others were tracked, and the folder of TensorBoard's files."""
    store, folder = Store(tmp_path_factory.mktemp("store")), tmp_path_factory.mktemp("tensorboard")
    first = {**GRID, "augmenters": ["none"], "protocols": GRID["protocols"][:1]}
    assert run(tiny_grid(**first), store, executor="inline").trained == 1
    summary = run(tiny_grid(**GRID), store, track=[f"tensorboard={folder}"])
    assert summary.trained == 1 and len(summary.failures) == 2
    return store, folder


def cells(augmenter, protocol, plan=None):
    found = (plan or tiny_plan(**GRID)).cells
    return next(cell for cell in found if (cell.augmenter.name, cell.protocol.name) == (augmenter, protocol))


def summaries_of(folder):
    """Yield the summaries in the TensorBoard files of a folder, in order."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(Path(folder).iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):  # length, its checksum, an event, its checksum
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length]).summary
            at += 16 + length


# -- on Ray


def test_tensorboard_has_a_run_for_each_training_of_this_run(tracked):
    store, folder = tracked
    done_before = cells("none", "tiny").key
    assert {path.name for path in folder.iterdir()} == {cell.key for cell in tiny_plan(**GRID).cells} - {done_before}
    cell = cells("talker", "tiny")
    values = [value for summary in summaries_of(folder / cell.key) for value in summary.value]
    found = {value.tag: value.simple_value for value in values if value.tag.startswith("ray/tune/")}
    expected = numbers(store.read_record(cell.key))
    assert expected.keys() >= {"ap", "precision", "recall", "heldout_recall", "seconds"}
    for name, value in expected.items():
        assert found[f"ray/tune/{name}"] == pytest.approx(value, rel=1e-6), name
    hparams = " ".join(value.metadata.plugin_data.content.decode(errors="replace") for value in values)
    for text in (cell.key, "surfaces", "talker", "tiny", "n_aug"):
        assert text in hparams
    for augmenter in ("none", "talker"):  # failed: no values are reported
        failed = summaries_of(folder / cells(augmenter, "diverges").key)
        assert not [value for summary in failed for value in summary.value]


def test_ray_workers_write_logs(tracked):
    store, _ = tracked
    text = store.files.read(store.log_name(cells("talker", "tiny").key)).decode()
    assert "Ray node " in text and "worker " in text and "finetune: epoch 2: ap " in text
    failed = store.files.read(store.log_name(cells("talker", "diverges").key)).decode()
    assert "=== augbench.core.errors.UserError: training diverged" in failed and "Traceback" in failed


def test_workers_are_named_after_their_current_unit(tracked):
    """The title that `ps` shows, which the plug-in printed of its own process."""
    store, _ = tracked
    (pool,) = tiny_plan(**GRID).pools.values()
    adapting = store.files.read(store.log_name(pool.adapter.key)).decode()
    assert f"adapting as ray::adapt {pool.adapter.key}" in adapting
    generating = store.files.read(store.log_name(pool.key, 0)).decode()
    assert "generating as ray::MapWorker(MapBatches(ChunkMaker)).submit" in generating
    assert f" {pool.key}/00000\n" in generating


# -- without it


class FakeLogger:
    """Stands in for a logger callback of Ray Tune."""

    def __init__(self, broken_at=""):
        self.broken_at, self.calls = broken_at, []

    def _call(self, name, *arguments):
        if name == self.broken_at:
            raise ConnectionError("no\nroute")
        self.calls.append((name, *arguments))

    def setup(self):
        self._call("setup")

    def log_trial_start(self, run):
        self._call("start", str(run), dict(run.config))

    def log_trial_result(self, iteration, run, result):
        self._call("result", str(run), result)

    def log_trial_end(self, run, failed):
        self._call("end", str(run), failed)

    def on_experiment_end(self, trials):
        self._call("over")


@pytest.fixture
def make_tracking(monkeypatch):
    """Return a function that makes a `Tracking` with fake loggers and a list of the lines it reports."""

    def make(plan, **loggers):
        lines = []
        monkeypatch.setattr(tune_tracking, "_logger", lambda tracker, grid: loggers[tracker.tool])
        return Tracking([Tracker(tool) for tool in loggers], plan, lines.append), lines

    return make


def test_a_run_has_the_parameters_of_its_cell(make_tracking):
    plan, tool = tiny_plan(**GRID), FakeLogger()
    cell = cells("talker", "tiny", plan)
    tracking, lines = make_tracking(plan, mlflow=tool)
    tracking.started("first", cell.key)
    tracking.ended("first", {"ap": 0.5})
    tracking.started("second", cell.key)
    tracking.end()
    params = {
        "key": cell.key, "grid": "tiny", "dataset": "surfaces", "augmenter": "talker", "shots": "5", "draw": 0,
        "n_aug": 3, "seed": 0, "protocol": "tiny", "kind": "finetune", "backbone": "test_byobnet", "weights": "scratch",
        "epochs": 2,
    }  # fmt: skip
    assert tool.calls == [
        ("setup",),
        ("start", cell.key, params),
        ("result", cell.key, {"ap": 0.5, "training_iteration": 1}),
        ("end", cell.key, False),
        ("start", cell.key, params),
        ("end", cell.key, True),  # interrupted
        ("over",),
    ]
    assert not lines


def test_a_probe_has_neither_seed_nor_epochs():
    cell = next(cell for cell in frozen_plan(shots=[5]).cells if cell.augmenter.name == "none")
    params = tune_tracking.params_of(cell, "tiny")
    assert params["kind"] == "probe" and not {"seed", "epochs"} & params.keys()


@pytest.mark.parametrize("broken_at", ["start", "result", "end", "over"])
def test_a_tracker_that_fails_costs_no_training(make_tracking, broken_at):
    plan, broken, sound = tiny_plan(**GRID), FakeLogger(broken_at), FakeLogger()
    tracking, lines = make_tracking(plan, mlflow=broken, wandb=sound)
    for number, cell in enumerate(plan.cells[:2]):
        tracking.started(str(number), cell.key)
        tracking.ended(str(number), {})
    tracking.end()
    assert lines == ["--track mlflow: ConnectionError: no route. Nothing more is reported there; the run goes on."]
    assert [call[0] for call in sound.calls] == ["setup", *["start", "result", "end"] * 2, "over"]


def test_a_tracker_that_cannot_be_set_up_ends_the_run_with_one_line(make_tracking):
    with pytest.raises(UserError, match=r"^--track wandb: ConnectionError: no route: run `wandb login`, set"):
        make_tracking(tiny_plan(**GRID), wandb=FakeLogger("setup"))


def test_an_unusable_folder_is_found_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give a folder that can be written, --track tensorboard=DIR"):
        Tracking([Tracker("tensorboard", str(tmp_path / "file"))], tiny_plan(**GRID), print)


def test_mlflow_really(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    plan, address = tiny_plan(**GRID), f"sqlite:///{tmp_path / 'runs.db'}"
    cell = cells("talker", "tiny", plan)
    tracking = Tracking([Tracker("mlflow", address)], plan, lambda line: pytest.fail(line))
    tracking.started("first", cell.key)
    tracking.ended("first", {"ap": 0.5})
    tracking.end()
    mlflow.set_tracking_uri(address)
    (found,) = mlflow.search_runs(experiment_names=["tiny"], output_format="list")
    assert (found.info.run_name, found.info.status) == (cell.key, "FINISHED")
    assert found.data.params["n_aug"] == "3" and found.data.metrics["ap"] == 0.5


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["tensorbord"], "--track 'tensorbord' is not known (did you mean 'tensorboard'?)"),
        (["mlflow="], "--track 'mlflow=' has no destination: leave the = out, or give one"),
        (["tensorboard=a", "tensorboard=b"], "--track tensorboard is given twice: give it once"),
        *(([tool], f"--track {tool} needs the package {package}: pip install 'augbench[{tool}]'")
          for tool, package in trackers.LIBRARIES.items()),
    ],
)  # fmt: skip
def test_mistakes(monkeypatch, texts, message):
    if texts[0] in trackers.LIBRARIES:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        trackers_of(texts, "ray")
    assert str(caught.value) == message


def test_destinations_may_contain_an_equals_sign():
    assert trackers_of(["tensorboard=/tmp/a=b"], "ray") == (Tracker("tensorboard", "/tmp/a=b"),)


def test_inline_is_refused_before_anything_is_written(tmp_path):
    result = cli("run", "tune_configs/demo.yaml", "--store", tmp_path / "s", "--executor", "inline", "--track",
                 "tensorboard", cwd=ROOT)  # fmt: skip
    assert_one_line(result, "--track goes through Ray Tune", "--executor inline")
    assert not (tmp_path / "s").exists()
