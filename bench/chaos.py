"""Test that no failure during a run loses or changes a result: rounds of chaos on a cluster of raylets.

    python bench/chaos.py [--rounds 20] [--seed S] [--only N ...] [--keep DIR]

A grid of 30 trainings runs once undisturbed, in one process. Then, round by round, the same command runs on a cluster
of a head and two nodes, in a new store, and is disturbed one to three times. The seed and the round's number determine
the disturbances, their moments and the kind of store; a moment is a number of committed chunks and cells, so that work
is in progress. The command is repeated until it reports that nothing is left to do. Then the whole store is compared
with the result of the undisturbed run: byte by byte, except seconds and dates.

A full disk is a tmpfs if this system can mount one (as root, or under `unshare -rm`), else a plug-in that simulates it;
the table says which. S3 is moto's server on loopback. Prints progress, the table in Markdown and one line of JSON; the
exit status is 1 if a round was not survived.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from chaos_disturbances import DISTURBANCES, Phase
from chaos_round import CELLS, CHUNKS, Played, Player, Round, stage
from rich.console import Console

from augbench.stages.provenance import versions

MORE = (0.4, 0.4, 0.2)  # probabilities of zero, one, two further disturbances in a round


# -- drawing rounds


def draw_round(seed: int, number: int) -> Round:
    """Draw a round from the seed and the number alone.

    The first disturbance cycles through all kinds, so that each gets its turn; further ones are drawn at random.
    """
    rng = np.random.default_rng([seed, number])
    turns = np.random.default_rng(seed).permutation(len(DISTURBANCES))
    first = DISTURBANCES[turns[number % len(DISTURBANCES)]]
    place = str(rng.choice(first.places))
    others = [one for one in DISTURBANCES if one is not first and place in one.places]
    more = [others[i] for i in rng.choice(len(others), rng.choice(len(MORE), p=MORE), replace=False)]
    chosen = [kind(np.random.default_rng([seed, number, i])) for i, kind in enumerate((first, *more))]
    events = [(_moment(rng, one.phase), one) for one in chosen]
    return Round(seed, number, place, tuple(sorted(events, key=lambda event: event[0])))


def _moment(rng: np.random.Generator, phase: Phase) -> int:
    """Draw a number of committed chunks and cells. Chunks come first and take a small part of a run."""
    if phase == "any":
        phase = "chunks" if rng.random() < 0.4 else "cells"
    low, high = (1, CHUNKS // 2) if phase == "chunks" else (CHUNKS + 1, CHUNKS + CELLS - 3)
    return int(rng.integers(low, high, endpoint=True))


# -- output


def table_of(rounds: Sequence[Played], disk_is: str) -> list[dict[str, Any]]:
    """Make a line for each disturbance. A round with several counts for each of them."""
    lines = []
    for kind in DISTURBANCES:
        those = [played for played in rounds if any(type(one) is kind for one in played.hit)]
        lines.append({
            "disturbance": f"{kind.name} ({disk_is})" if kind.places == ("disk",) else kind.name,
            "times": len(those),
            "survived": sum(not played.problems for played in those),
            "too late": sum(type(one) is kind for played in rounds for one in played.missed),
            "reruns": sum(played.reruns for played in those),
            "seconds a round": round(float(np.mean([played.seconds for played in those])), 1) if those else None,
        })  # fmt: skip
    return lines


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """Format the table as in docs/scale.md."""
    names = list(lines[0])
    rows = [names, ["---", *["---:"] * (len(names) - 1)]]
    rows += [["" if line[name] is None else str(line[name]) for name in names] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    """Play the rounds; return 1 if one was not survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="only these rounds")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep every store and the output of its runs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and mounts are cleaned up
    numbers = options.only or list(range(options.rounds))
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    folder = Path(options.keep or tempfile.mkdtemp(prefix="augbench-chaos-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"seed {options.seed}; a single round: --seed {options.seed} --only N")
    rounds = []
    with stage(folder) as made:
        for number in numbers:
            console.print(str(draw_round(options.seed, number)))
            rounds.append(played := Player(made, draw_round(options.seed, number)).play())
            late = f", too late: {', '.join(one.name for one in played.missed)}" if played.missed else ""
            console.print(f"  {played.seconds:.0f} s, {played.reruns} reruns{late}")
            for problem in played.problems:
                console.print(f"  NOT SURVIVED: {problem}")
        disk_is = made.disk_is
    lines, failed = table_of(rounds, disk_is), [played.round.number for played in rounds if played.problems]
    print(markdown(lines))
    summary = {"seed": options.seed, "rounds": len(rounds), "not survived": failed, "disk": disk_is}
    print(
        json.dumps(
            {**summary, "seconds": round(sum(p.seconds for p in rounds)), "table": lines, "versions": versions()}
        )
    )
    if failed:
        console.print(f"stores and output of the runs are in {folder}")
    elif not options.keep:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
