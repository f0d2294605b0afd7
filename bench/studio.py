"""Measure the review page with many images: server time of what a person does, in milliseconds.

    python bench/studio.py --images 2000

It draws a review of that many images of 512 x 512 pixels on the embedded dataset, decides half of them, and asks the
server what the page asks it: the list, the list of one prompt, the next image, a decision, an undo, the summary.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from starlette.testclient import TestClient

from augbench.core.seeds import rng
from augbench.studio.opening import Asked, open_studio
from augbench.studio.server import make_app

LIMIT = 200  # milliseconds
TIMES = 15


def main() -> None:
    """Draw the review and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=512)
    options = parser.parse_args()
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as folder:
        studio = open_studio(Asked(), Path(folder) / "review")
        started = time.perf_counter()
        fill(studio.review, options.images, options.side)
        console.print(f"{options.images} images added, half of them decided, in {time.perf_counter() - started:.0f} s")
        studio.close()
        started = time.perf_counter()
        studio = open_studio(Asked(), Path(folder) / "review")
        console.print(f"opened again in {time.perf_counter() - started:.2f} s; {len(studio.review.problems)} problems")
        client = TestClient(make_app(studio), base_url="http://127.0.0.1")
        waiting = [item.id for item in studio.review.items("queue")]
        table = Table("request", "median ms", "slowest ms", title=f"server time, limit {LIMIT} ms")
        slow = False
        for name, ask in requests(client, waiting).items():
            spent = [timed(ask, number) for number in range(TIMES)]
            slow |= max(spent[1:]) > LIMIT  # the first of all measures the masks of real defects
            table.add_row(name, f"{statistics.median(spent):.0f}", f"{max(spent):.0f}")
        console.print(table)
        studio.close()
    raise SystemExit(int(slow))


def fill(review, images: int, side: int) -> None:
    """Add images with three prompts, and decide about every other one."""
    random = rng("studio-bench")
    base = random.integers(0, 256, (side, side, 3), np.uint8) // 4
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 3 : side // 2] = True
    for number in range(images):
        base[0, 0] = number % 256
        made = {"source": "train-good-00000", "prompt": f"a scratch {number % 3}", "seed": number, "region": "drawn"}
        name = review.add(base, mask, "defect", made)
        if number % 2:
            review.decide(name, "accept" if number % 4 == 1 else "reject", "")


def requests(client: TestClient, waiting: list[str]):
    """Return what a person does: name -> the request of a number."""
    return {
        "state, when the page opens": lambda number: client.get("/api/state"),
        "list": lambda number: client.get("/api/items", params={"offset": 60 * number}),
        "list of the waiting ones": lambda number: client.get("/api/items", params={"state": "queue"}),
        "list of one prompt": lambda number: client.get("/api/items", params={"prompt": f"a scratch {number % 3}"}),
        "next": lambda number: client.get("/api/next", params={"after": waiting[number]}),
        "image": lambda number: client.get("/api/image", params={"name": waiting[number]}),
        "small image": lambda number: client.get("/api/image", params={"name": waiting[number], "kind": "thumb"}),
        "decide, and the next": lambda number: client.post(
            "/api/decide", json={"name": waiting[number], "decision": "accept", "expected": ""}
        ),
        "undo": lambda number: client.post("/api/undo", json={}),
        "summary": lambda number: client.get("/api/summary"),
    }


def timed(ask, number: int) -> float:
    """Return the milliseconds of a request that must succeed."""
    started = time.perf_counter()
    response = ask(number)
    spent = 1000 * (time.perf_counter() - started)
    response.raise_for_status()
    return spent


if __name__ == "__main__":
    main()
