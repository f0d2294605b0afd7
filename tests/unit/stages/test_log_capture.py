"""Logs of work units are captured in the store, also of failed ones, and are no part of results."""

import logging
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from helpers import HERE, TINY, assert_one_line, cli, results_of, tiny_grid, tiny_plan

from augbench.core import registry
from augbench.core.errors import StoreError, UserError
from augbench.planning.library import Library
from augbench.runner.driver import run
from augbench.stages.context import Context
from augbench.stages.log_capture import unit_log
from augbench.storage import remote_files, unit_logs
from augbench.storage.store import Store
from augbench.storage.unit_logs import UnitLog, logs_of

pytestmark = pytest.mark.filterwarnings("ignore:the light flickers")

TALKER = HERE / "plugins" / "talker.py"
BROKEN = {"name": "talker", "as": "hoarse", "settings": {"broken_from": 4}}
GRID = {"augmenters": ["none", "talker", BROKEN], "shots": [5], "n_aug": [3, 8]}


@pytest.fixture(scope="module", autouse=True)
def _talker():
    registry.load_file(TALKER)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("finished"))
    summary = run(tiny_grid(**GRID), store, executor="inline")
    assert summary.done == 4 and len(summary.failures) == 1  # none, talker twice, and the first chunk of the hoarse one
    return store


def hoarse_pool():
    return next(pool for pool in tiny_plan(**GRID).pools.values() if pool.augmenter.alias == "hoarse")


def cell_without_images():
    return next(cell for cell in tiny_plan(**GRID).cells if cell.augmenter.name == "none")


def context_of(store):
    return Context(store, Library({}))


def log_of(store, key, part=None):
    return store.files.read(store.log_name(key, part)).decode()


def body(text):
    """Return the lines of a log without header and end."""
    return [line for line in text.splitlines() if not line.startswith("=== ")]


# -- a run


def test_every_unit_has_a_log(finished):
    plan = tiny_plan(**GRID)
    units = {finished.log_name(cell.key) for cell in plan.cells if cell.augmenter.alias != "hoarse" or cell.n_aug == 3}
    units |= {finished.log_name(pool.adapter.key) for pool in plan.pools.values()}
    units |= {finished.log_name(pool.key, chunk) for pool in plan.pools.values() for chunk in (0, 1)}
    folder = finished.files.folder
    assert {path.relative_to(folder).as_posix() for path in (folder / "logs").rglob("*.log")} == units


def test_the_log_of_a_training(finished):
    cell = cell_without_images()
    lines = log_of(finished, cell.key).splitlines()
    assert lines[0].startswith(f"=== {cell.key}: begun 20")
    assert "host " in lines[1] and "process " in lines[1] and "cpu (" in lines[1] and "Ray" not in lines[1]
    assert "augbench " in lines[2] and "torch " in lines[2]
    result = finished.read_record(cell.key)["result"]
    text = "\n".join(lines)
    assert "finetune: gathered in " in text and "shots 5" in text
    for epoch in range(1, TINY["epochs"] + 1):
        assert f"fit: epoch {epoch} of {TINY['epochs']}: loss {result['curves']['loss'][epoch - 1]:.4f}" in text
        assert f"finetune: epoch {epoch}: ap {result['curves']['test'][epoch - 1]['ap']:.4f}" in text
    assert f"ap {result['ap']:.4f}" in lines[-2] and lines[-1].startswith("=== done after ")


def test_output_of_plugins_and_libraries_and_tracebacks_are_logged(finished):
    pool = hoarse_pool()
    adapting = log_of(finished, pool.adapter.key)
    assert "adapting as no worker of Ray" in adapting and "adapt: step 1 of 1: loss 0.2500" in adapting
    assert "generate: 4 images in " in log_of(finished, pool.key, 0)
    text = log_of(finished, pool.key, 1)
    assert "part 1: begun" in text and "generating as no worker of Ray" in text
    assert text.count("WARNING some.library: the lamp is old") == text.count("the lamp is old") == 1
    assert "nobody wants to know" not in text
    assert "=== RuntimeError: the talker lost its voice" in text and 'talker.py", line' in text
    assert text.splitlines()[-1].startswith("=== failed after ")


def test_logs_are_no_results(finished, tmp_path):
    folder = shutil.copytree(finished.files.folder, tmp_path / "copy")
    store, before = Store(folder), results_of(finished)
    assert not store.check()
    exported = cli("results", "export", folder, "--out", tmp_path / "published")
    assert exported.returncode == 0, exported.stderr
    assert not (tmp_path / "published" / "logs").exists()
    shutil.rmtree(folder / "logs")
    assert not store.check() and results_of(store) == before
    assert run(tiny_grid(**GRID), store, executor="inline").trained == 0
    assert [path.name for path in (folder / "logs").rglob("*.log")] == ["00001.log"]  # the chunk that fails


# -- one log


def test_all_kinds_of_output(store, capsys, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "hunter2hunter2")
    library = logging.getLogger("with.a.handler")
    library.propagate = False
    handler = logging.StreamHandler(sys.stderr)  # created before the capture begins
    library.addHandler(handler)
    with unit_log(context_of(store), "unit"):
        print("printed", "twice\nover")
        print("half", end="")
        for step in range(5):
            print(f"\rbar {step}", end="", file=sys.stderr)
        print(file=sys.stderr)
        library.warning("for the handler")
        logging.getLogger("augbench.stages.some").info("ours, %d", 3)
        logging.getLogger("other").info("not ours")
        print("the key is hunter2hunter2.")
    library.removeHandler(handler)
    lines = [line[9:] for line in body(log_of(store, "unit"))]  # without the time
    assert lines[:3] == ["printed twice", "over", "bar 4"]
    assert lines[3:] == ["WARNING with.a.handler: for the handler", "some: ours, 3", "halfthe key is [SOME_API_KEY]."]
    passed_on = capsys.readouterr()
    assert passed_on.out == "printed twice\nover\nhalfthe key is hunter2hunter2.\n"
    assert "\rbar 4\n" in passed_on.err and "for the handler" in passed_on.err and "ours, 3" not in passed_on.err


def test_the_capture_ends_with_the_unit(store):
    before = sys.stdout, sys.stderr, logging.getLogRecordFactory()
    with pytest.raises(KeyboardInterrupt), unit_log(context_of(store), "unit"):
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr, logging.getLogRecordFactory()) == before
    assert "=== KeyboardInterrupt" in log_of(store, "unit")


def test_one_thread_beside_others(store, capsys):
    """The decision of a search runs in the driver's process, which also prints the run's progress."""
    with unit_log(context_of(store), "unit", whole_process=False):
        print("progress")
        logging.getLogger("augbench.x").info("mine")
        sender = threading.Thread(target=logging.getLogger("augbench.x").warning, args=("theirs",))
        sender.start()
        sender.join()
    assert [line[9:] for line in body(log_of(store, "unit"))] == ["x: mine"]
    assert capsys.readouterr().out == "progress\n"


def test_rich_consoles_bypass_the_log(store, capsys):
    """They draw for a terminal: the run's progress bars would fill every log."""
    from rich.console import Console

    console = Console()
    with unit_log(context_of(store), "unit"):
        console.print("bars")
    assert not body(log_of(store, "unit")) and "bars" in capsys.readouterr().out


KILLED = """
import os, signal, sys, warnings
from augbench.planning.library import Library
from augbench.storage.store import Store
from augbench.stages.context import Context
from augbench.stages.log_capture import unit_log
with unit_log(Context(Store(sys.argv[1]), Library({})), "unit"):
    print("last words")
    warnings.warn("death is near")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_worker_leaves_its_log_and_attempts_are_appended(store):
    for _ in range(2):
        process = subprocess.run([sys.executable, "-c", KILLED, store.url], check=False)
        assert process.returncode == -signal.SIGKILL
    with unit_log(context_of(store), "unit"):
        print("lives")
    text = log_of(store, "unit")
    assert text.count("=== unit: begun") == 3 and text.count("last words") == 2
    assert text.count("UserWarning: death is near") == 2
    assert text.index("last words") < text.index("lives") and text.count("=== done") == 1


def test_attempts_are_appended_in_every_store(any_store):
    for number in range(3):
        log = UnitLog(any_store.files, "logs/unit.log")
        log.say(f"attempt {number}")
        log.close()
    assert any_store.files.read("logs/unit.log") == b"attempt 0\nattempt 1\nattempt 2\n"


def test_the_size_has_a_bound(any_store, monkeypatch):
    for name, size in (("MOST_BEFORE", 400), ("MOST_FIRST", 600), ("MOST_LAST", 200)):
        monkeypatch.setattr(unit_logs, name, size)
    for attempt in range(3):
        log = UnitLog(any_store.files, "logs/unit.log")
        for number in range(200):
            log.say(f"line {number} of attempt {attempt}")
        log.close()
        lines = any_store.files.read("logs/unit.log").decode().splitlines()
        ours = lines[lines.index(f"line 0 of attempt {attempt}") :]
        assert ours[1] == f"line 1 of attempt {attempt}" and ours[-1] == f"line 199 of attempt {attempt}"
        (gap,) = [line for line in ours if line.endswith("lines left out]")]
        assert len(ours) - 1 + int(gap[1:].split()[0]) == 200
        assert len("\n".join(lines)) < 1400
    assert "[earlier lines left out]" in lines and f"line 199 of attempt {attempt - 1}" in lines


def test_a_long_line_is_cut(store):
    log = UnitLog(store.files, "logs/unit.log")
    log.say("x" * 10_000 + "\ud800")
    log.close()
    assert store.files.read("logs/unit.log") == b"x" * unit_logs.MOST_OF_A_LINE + b" [cut]\n"


# -- elsewhere


def puts(s3):
    return [path for method, path in s3.requests if method == "PUT" and "/logs/" in path]


def test_a_short_unit_costs_one_write(s3):
    with unit_log(context_of(Store("s3://bucket/store")), "unit"):
        print("short")
    assert puts(s3) == ["/bucket/store/logs/unit.log"]


def test_a_long_unit_is_written_on_its_way(s3, monkeypatch):
    monkeypatch.setattr(unit_logs, "PAUSE", 0.05)
    store = Store("s3://bucket/store")
    with unit_log(context_of(store), "unit"):
        print("so far")
        deadline = time.monotonic() + 20
        while not (store.files.exists("logs/unit.log") and "so far" in log_of(store, "unit")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        settled = len(puts(s3))
        time.sleep(0.3)
        assert len(puts(s3)) == settled  # no new line, no write
    assert "=== done" in log_of(store, "unit")


def test_a_store_out_of_reach_fails_no_unit_by_its_log(s3, monkeypatch, capfd):
    monkeypatch.setattr(remote_files, "ATTEMPTS", 1)
    store = Store("s3://bucket/store")
    s3.down = True
    with unit_log(context_of(store), "unit"):
        pass
    with pytest.raises(StoreError, match="of the unit's own"), unit_log(context_of(store), "unit"):
        raise StoreError("of the unit's own")
    s3.down = False
    assert not store.files.exists("logs/unit.log")
    assert "the log 's3://bucket/store/logs/unit.log' has a gap" in capfd.readouterr().err


def test_a_folder_that_cannot_be_written_fails_no_unit_by_its_log(store, capfd):
    store.files.write("logs", b"a file where a folder should be")
    with unit_log(context_of(store), "unit"):
        print("goes on")
    passed_on = capfd.readouterr()
    assert "has a gap" in passed_on.err and "goes on" in passed_on.out


# -- reading


def test_the_command_prints_the_log(finished):
    cell = cell_without_images()
    found = cli("log", finished.url, cell.key[:-3])
    assert found.returncode == 0 and found.stdout == log_of(finished, cell.key)
    pool = hoarse_pool()
    chunks = cli("log", finished.url, pool.key)
    assert chunks.stdout == log_of(finished, pool.key, 0) + log_of(finished, pool.key, 1)
    assert logs_of(finished, f"{pool.key}/1") == [finished.log_name(pool.key, 1)]


def test_the_command_prints_no_control_characters(store):
    store.files.write("logs/unit.log", b"\x1b[2Jred\ttab\n\xff\n")
    assert cli("log", store.url, "unit").stdout == "?[2Jred tab\n\N{REPLACEMENT CHARACTER}\n"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("surfaces", "'surfaces' is a prefix of 3 keys ('surfaces-a-1', 'surfaces-a-2' and 'surfaces-pool-1'): give"),
        ("surfaces-b-1", "(did you mean 'surfaces-a-1'?)"),
        ("xyz", "has no log of 'xyz': augbench status names what failed"),
        ("", "has no log of ''"),
        ("surfaces-a-1/0", "'surfaces-a-1' has no log of a part '0'"),
        ("surfaces-pool/7", "'surfaces-pool-1' has no log of a part '7': there are 0, 2"),
        ("surfaces-pool/x", "has no log of a part 'x'"),
        ("surfaces-pool/", "has no log of a part ''"),
    ],
)
def test_keys_that_mean_no_log(store, word, message):
    for name in ("surfaces-a-1.log", "surfaces-a-2.log", "surfaces-pool-1/00000.log", "surfaces-pool-1/00002.log"):
        store.files.write(f"logs/{name}", b"")
    with pytest.raises(UserError) as caught:
        logs_of(store, word)
    assert message in str(caught.value)


def test_mistakes_are_one_line(store):
    store.write_json("cells", "x", {})
    assert_one_line(cli("log", store.url, "x"), "has no logs", store.url)


def test_reading_loads_nothing_heavy(store):
    store.files.write("logs/unit.log", b"logged\n")
    code = (
        "import sys; from augbench.cli import app; sys.argv = ['augbench', 'log', *sys.argv[1:]]\n"
        "try: app.main()\n"
        "finally: print([name for name in ('torch', 'ray', 'sklearn', 'scipy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code, store.url, "unit"], capture_output=True, text=True, check=True)
    assert found.stdout == "logged\n[]\n"


def test_status_names_the_log_of_what_failed(finished):
    pool = hoarse_pool()
    assert f"log: augbench log {finished.url} {pool.key}" in cli("status", finished.url).stdout
    assert f'"log": "logs/{pool.key}"' in cli("status", finished.url, "--json").stdout
