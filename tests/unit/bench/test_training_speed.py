"""bench/train.py and bench/floor.py: the ways take turns and do equal work; operations and bytes are counted."""

import json

import floor
import pytest
import torch
import train
from floor import Cost, cost, training_cost

SMALL = [
    "--backbone=test_byobnet",
    "--width=32",
    "--height=48",
    "--batch=2",
    "--threads=1",
    "--workers=0",
    "--minutes=0",
]


def test_operations_and_bytes_are_counted():
    one, other = torch.ones(4, 8), torch.ones(8, 16)
    assert cost(lambda: one @ other) == Cost(2 * 4 * 8 * 16, 4 * (4 * 8 + 8 * 16 + 4 * 16))
    assert cost(lambda: other.T.reshape(16, 8)[2:]) == Cost(0, 0)  # views
    assert Cost(100.0, 8.0).floor(peak=10.0, bandwidth=1.0) == 10 and Cost(1.0, 8.0).floor(10.0, 1.0) == 8


def test_a_training_step_is_counted_without_weights():
    """ResNet-50 takes 4.1 G multiplications for an image of 224 x 224; the backward pass costs two forward passes."""
    step = training_cost("resnet50", 2, 224, 224)
    assert step.operations / 2 == pytest.approx(3 * 2 * 4.09e9, rel=0.02)
    assert step.bytes > 25.6e6 * 4 * 5  # weights, gradients and Adam's moments are read and written
    assert training_cost("resnet50", 2, 224, 448).operations == pytest.approx(2 * step.operations, rel=0.01)


def test_stages_run_and_are_counted(one_thread):
    found = {stage.name: cost(stage.call).operations / stage.units for stage in floor.stages()}
    assert found["features"] == pytest.approx(0.73e9, rel=0.05)
    assert found["adapt"] > found["generate"] / 20 > found["fidelity"] > 0


@pytest.fixture
def _same_tf32():
    """Undo what the bare step sets for good."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value


@pytest.mark.usefixtures("one_thread", "_same_tf32")
@pytest.mark.parametrize("way", train.ways(train.arguments(SMALL)), ids=lambda way: way.name)
def test_every_way_trains_whole_turns(way, tmp_path, monkeypatch):
    """Each takes a step of its optimiser for each batch of a turn."""
    args = train.arguments([*SMALL, "--steps", "3"])
    args.folder = tmp_path
    monkeypatch.setattr(train, "FILES", 4)
    train.draw(tmp_path)
    steps, at_turns = [], []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *_: steps.append(step(self)))

    class Enough(Exception):
        pass

    def turn():
        at_turns.append(len(steps))
        if len(at_turns) == 2:
            raise Enough

    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with pytest.raises(Enough):
            way.run(args, train.protocol_of(args, way.precision, 1), turn, *(["bf16"] if way.run is train.bare else []))
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert at_turns == [3, 6]


def test_two_cells_are_measured_where_threads_are_left():
    names = [way.name for way in train.ways(train.arguments(["--precision", "bf16"]))]
    assert names == ["plain fp32", "bare bf16", "ours bf16", "two cells bf16"]
    on_gpu = train.ways(train.arguments(["--device", "cuda", "--precision", "fp16", "fp32"]))
    assert [way.name for way in on_gpu] == ["plain fp32", "bare fp16", "bare fp32", "ours fp32"]
    with pytest.raises(SystemExit):
        train.arguments(["--precision", "fp16"])


def test_ratios_are_taken_round_by_round(capsys):
    """A round that a disturbance slows down twofold changes no ratio."""
    args = train.arguments([*SMALL, "--precision", "fp32", "--batch", "8"])
    seconds = {"plain fp32": [4.0, 8.0, 4.0], "bare fp32": [1.0, 2.0, 1.0], "ours fp32": [2.0, 4.0, 2.0]}
    train.report(args, seconds, {"fp32": [1e9, 5e8, 1e9]}, 1e15)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {row["way"]: row for row in found["ways"]}
    assert rows["ours fp32"]["times_plain"] == 2 and rows["ours fp32"]["times_bare"] == 0.5
    assert rows["ours fp32"]["images_per_second"] == 4 and rows["ours fp32"]["rounds"] == [4, 2, 4]
    assert rows["bare fp32"]["share_of_floor"] == pytest.approx(8 * found["gflop_per_image"])


def test_processes_take_turns_and_end():
    """The smallest run, with processes; the warm-up and a round."""
    args = train.arguments([*SMALL, "--precision", "fp32"])
    with train.waiting([train.Way("bare", train.bare, "fp32", 1)], args) as turns:
        turns["bare"]()
        turns["bare"]()
