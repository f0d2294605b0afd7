"""What a run prints while it works: above all the time that is left."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from augbench.runner import progress


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def run_of(**counts):
    names = ("searches", "adapters", "fidelity", "chunks", "features")
    state = {f"{name}_total": counts.get(name, 0) for name in names} | {name: {} for name in names[:3]}
    state |= {
        "chunks_done": 0,
        "features_done": 0,
        "done": 30,
        "total": 130,
        "chunks_open": (counts.get("chunks", 0), 0),
    }
    return SimpleNamespace(**state, failures=[], blocked={}, learning={}, last=None)


def test_time_spent_before_the_first_cell_says_nothing_about_cells(clock):
    scheduler = run_of()
    shown = progress.RunProgress(scheduler, Console())
    clock.seconds += 3600
    scheduler.done = 31
    assert shown._note() == ""
    clock.seconds += 1
    scheduler.done = 40
    assert shown._note() == "", "fewer than a tenth of the hundred, which came at once"
    clock.seconds += 9
    scheduler.done = 51
    assert shown._note() == "2.00 cells/s · 0:40 left"  # 79 cells at two a second
    scheduler.blocked = {"a pool": 19}
    assert shown._note() == "2.00 cells/s · 0:30 left"
    scheduler.done, scheduler.blocked = 130, {}
    assert "left" not in shown._note()


def test_the_slowest_stage_tells_what_is_left_once_all_are_known(clock):
    scheduler = run_of(chunks=10)
    shown = progress.RunProgress(scheduler, Console())
    for done in (31, 51):
        scheduler.done = done
        shown._note()
        clock.seconds += 10
    assert shown._note() == "1.00 cells/s"  # how long a chunk takes is not known yet
    for done in (1, 2):
        scheduler.chunks_done, scheduler.chunks_open = done, (10 - done, 0)
        shown._note()
        clock.seconds += 60
    scheduler.done, scheduler.chunks_done, scheduler.chunks_open = 125, 3, (7, 0)
    assert shown._note().endswith("7:00 left")  # two chunks in two minutes
    scheduler.adapters = {"an adapter": None}
    assert "left" not in shown._note()


def test_thousands_of_cells_at_once_are_looked_at_once(clock, monkeypatch):
    scheduler = run_of()
    shown = progress.RunProgress(scheduler, Console(quiet=True))
    looks = []
    monkeypatch.setattr(shown, "_note", lambda: looks.append(scheduler.done) or "")
    for scheduler.done in range(31, 131):
        shown.update()
    assert looks == [31]
    clock.seconds += 1
    shown.update()
    shown.update(final=True)
    assert looks == [31, 130, 130]
