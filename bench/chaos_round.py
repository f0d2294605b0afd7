"""One round of bench/chaos.py: the setup that all rounds share, the runs of a round, and their disturbances."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from chaos_disturbances import FULL, PRETENDER, RECORD, Disturbance, Place, Scene, committed, small_disk
from chaos_evidence import Outcome, differences, problems_of
from chaos_machines import Machines, wait_until

TESTS = Path(__file__).parent.parent / "tests" / "helpers"
TOY = TESTS / "plugins" / "toy.py"
GRID: dict[str, Any] = {
    "name": "chaos",
    "datasets": [
        {
            "name": "surfaces",
            "settings": {"train_good": 24, "train_defective": 8, "test_good": 12, "test_defective": 8},
        }
    ],
    "augmenters": ["none", "memseg", "toy"],
    "shots": [3, 5],
    "n_aug": [6, 24],
    "seeds": [0, 1, 2],
    "protocols": [
        {
            "name": "tiny", "width": 32, "height": 48, "backbone": "test_byobnet", "weights": "scratch",
            "optimiser": "adamw", "lr": 0.002, "batch": 8, "epochs": 8, "holdout": 0.2, "false_alarm_rate": 0.25,
            "eval_batch": 16,
        }
    ],
    "fidelity": None,
}  # fmt: skip
CELLS, CHUNKS = 30, 42  # 3 pools of memseg with 2 chunks, 6 pools of toy with 6
MOST_RUNS = 10  # runs of the command in a round
MOST_SECONDS = 300.0  # time limit of a run


@dataclass(frozen=True)
class Round:
    """The disturbances of a round, and their moments."""

    seed: int
    number: int
    place: str
    events: tuple[tuple[int, Disturbance], ...]  # number of committed chunks and cells -> disturbance

    def __str__(self) -> str:
        what = "; ".join(f"at {moment}: {one.name}" for moment, one in self.events)
        return f"round {self.number}, {self.place}: {what}"


# -- shared setup


@dataclass(frozen=True)
class Stage:
    """The setup that all rounds share."""

    folder: Path
    grid: Path
    words: tuple[str, ...]  # first arguments of every command
    environment: dict[str, str]
    machines: Machines
    server: Any  # the S3 server
    disk: Path
    disk_is: str  # "tmpfs" or "pretended"
    expected: dict[str, bytes]  # files of the undisturbed run


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Run undisturbed, then start a cluster, an S3 server and a small disk."""
    sys.path.append(str(TESTS))
    from s3 import S3Server

    grid = folder / "chaos.yaml"
    grid.write_text(yaml.safe_dump(GRID))
    with S3Server() as server, small_disk() as (disk, disk_is):
        environment = {
            **server.variables,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            FULL: str(folder / "full"),
        }
        words = [sys.executable, "-m", "augbench", "--plugin", str(TOY)]
        if disk_is == "pretended":
            plugin = folder / "full_disk.py"
            plugin.write_text(PRETENDER)
            words += ["--plugin", str(plugin)]
        undisturbed = Place("folder", str(folder / "undisturbed"))
        command = [*words, "run", str(grid), "--store", undisturbed.url, "--executor", "inline"]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"the undisturbed run failed: {done.stderr}")
        with Machines(environment) as machines:
            yield Stage(
                folder, grid, tuple(words), environment, machines, server, disk, disk_is, undisturbed.contents()
            )


# -- one round


@dataclass
class Played:
    """The outcome of a round."""

    round: Round
    hit: list[Disturbance] = field(default_factory=list)
    missed: list[Disturbance] = field(default_factory=list)  # the run ended before
    reruns: int = 0  # runs until all was done, without the final one that finds nothing to do
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Player:
    """Plays one round on the shared setup."""

    def __init__(self, stage: Stage, round: Round) -> None:
        self.stage = stage
        self.played = Played(round)
        self.folder = stage.folder / f"round-{round.seed}-{round.number}"
        shutil.rmtree(self.folder, ignore_errors=True)  # if it is played again
        self.folder.mkdir()
        self.place = self._place(round)
        self.waiting = list(round.events)
        self.damaged: set[str] = set()
        self.records: dict[str, bytes] = {}  # committed at the end of a run
        self.runs = 0

    def play(self) -> Played:
        """Repeat the command until it reports that all is done, then compare the store."""
        started = time.monotonic()
        self.stage.machines.top_up()
        while not self._run().says_all_is_done or self.waiting or self._delete_named(self._checked()):
            if self.runs == MOST_RUNS:
                self._add_problem(f"not done after {MOST_RUNS} runs")
                break
        found = self.place.contents()
        if self.place.kind == "disk":
            shutil.rmtree(self.place.url)  # makes room for the next round
        for problem in differences(found, self.stage.expected):
            self._add_problem(problem)
        for name, data in self.records.items():
            if name not in self.damaged and found.get(name) != data:
                self._add_problem(f"'{name}' was complete and has been recomputed")
        self.played.reruns = self.runs - 2
        self.played.seconds = time.monotonic() - started
        return self.played

    def _place(self, round: Round) -> Place:
        if round.place == "s3":
            server = self.stage.server
            server.reset()
            variables = server.variables
            return Place(
                "s3",
                f"{server.make_bucket('chaos')}/store",
                key=variables["AWS_ACCESS_KEY_ID"],
                secret=variables["AWS_SECRET_ACCESS_KEY"],
                client_kwargs={"endpoint_url": variables["AWS_ENDPOINT_URL"], "region_name": "us-east-1"},
            )
        return Place(round.place, str((self.stage.disk if round.place == "disk" else self.folder) / "store"))

    def _add_problem(self, problem: str) -> None:
        self.played.problems.append(problem)

    # -- runs

    def _run(self) -> Outcome:
        """Run the command once with its disturbances; check its messages, and delete the files they name."""
        self.runs += 1
        with self._started(*self._run_words()) as (driver, ended):
            scene = self._scene(driver)
            struck = self._strike(scene)
            outcome = ended()
        lingering = [one for one in self.played.hit if one.lingers and one not in struck]
        for problem in problems_of(outcome, [*struck, *lingering]):
            self._add_problem(f"run {self.runs}: {problem}")
        for one in struck:
            if one.stays:
                self._repeat_disturbed(one, scene)
                one.lift(scene)
        if outcome.status == 0:
            self.played.missed += [one for _, one in self.waiting]
            self.waiting.clear()
        self._delete_named(outcome)
        self._note_records()
        return outcome

    def _strike(self, scene: Scene) -> list[Disturbance]:
        """Apply each disturbance at its moment, until the run has ended or must fail."""
        struck: list[Disturbance] = []
        while self.waiting and not any(one.stays for one in struck):
            moment, one = self.waiting[0]
            if not wait_until(lambda moment=moment: self._has_come(moment, scene), MOST_SECONDS, self._pause):
                self._add_problem(f"run {self.runs} did not commit {moment} chunks and cells in {MOST_SECONDS:.0f} s")
                break
            if scene.driver.poll() is not None:
                break
            self.waiting.pop(0)
            if one.strike(scene):
                struck.append(one)
                self.played.hit.append(one)
            else:
                one.lift(scene)
                self.played.missed.append(one)
        return struck

    @property
    def _pause(self) -> float:
        return 0.1 if self.place.kind == "s3" else 0.01

    def _has_come(self, moment: int, scene: Scene) -> bool:
        """Return whether that many units are committed and this run is working, by its lease in the store."""
        if scene.driver.poll() is not None:
            return True
        names = self.place.names()
        at_work = any(f"-{scene.driver.pid}-" in name for name in names if name.startswith("leases/drivers/"))
        return at_work and committed(names) >= moment

    def _repeat_disturbed(self, one: Disturbance, scene: Scene) -> None:
        """Run again while the disturbance lasts: the run must end with the same message."""
        one.strike(scene)
        with self._started(*self._run_words()) as (_, ended):
            outcome = ended()
        for problem in problems_of(outcome, [one]):
            self._add_problem(f"run {self.runs}, repeated: {problem}")
        if outcome.status == 0:
            self._add_problem(f"run {self.runs} succeeded, though still: {one.name}")

    def _checked(self) -> Outcome:
        """Run `augbench store check`."""
        with self._started("store", "check", self.place.url) as (_, ended):
            return ended()

    def _delete_named(self, outcome: Outcome) -> bool:
        """Delete the files that a message says to delete; return whether there are any. All must be damaged ones."""
        named = outcome.to_delete()
        for path in named:
            name = path.removeprefix(f"{self.place.url}/")
            pool = name.partition("/chunks/")[0]
            if name not in self.damaged and not any(one.startswith(f"{pool}/images/") for one in self.damaged):
                self._add_problem(f"'{name}' was reported as damaged, but is not")
            self.place.delete(name)
        return bool(named)

    def _note_records(self) -> None:
        for name in self.place.names() - self.records.keys():
            if RECORD.match(name):
                self.records[name] = self.place.read(name)

    def _scene(self, driver: subprocess.Popen) -> Scene:
        stage = self.stage
        full = stage.disk / "full" if stage.disk_is == "tmpfs" else Path(stage.environment[FULL])
        return Scene(
            stage.machines, self.place, driver, stage.server, full, stage.disk_is != "tmpfs",
            frozenset(stage.expected), self.damaged, self.played.problems,
        )  # fmt: skip

    # -- processes

    def _run_words(self) -> tuple[str, ...]:
        return ("run", str(self.stage.grid), "--store", self.place.url, "--address", self.stage.machines.address)

    @contextlib.contextmanager
    def _started(self, *words: str) -> Iterator[tuple[subprocess.Popen, Callable[[], Outcome]]]:
        """Start a command in its own process; yield the process and a function that waits for its end."""
        files = [self.folder / f"{words[0]}-{len(list(self.folder.glob('*.out')))}.{end}" for end in ("out", "err")]
        with files[0].open("w") as out, files[1].open("w") as err:
            begun = time.monotonic()
            process = subprocess.Popen(
                [*self.stage.words, *words],
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env={**os.environ, **self.stage.environment, "COLUMNS": "120"},
                preexec_fn=restore_sigint,
            )

            def ended() -> Outcome:
                try:
                    status = process.wait(MOST_SECONDS)
                except subprocess.TimeoutExpired:
                    self._add_problem(f"run {self.runs} had not ended after {MOST_SECONDS:.0f} s")
                    process.kill()
                    status = process.wait()
                return Outcome(status, *(file.read_text() for file in files), time.monotonic() - begun)

            try:
                yield process, ended
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def restore_sigint() -> None:
    """Restore the default SIGINT handler: shells ignore SIGINT in background jobs, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
