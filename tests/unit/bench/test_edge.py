"""The table of bench/edge.py, and that the published one shows its measurements."""

import json

from edge import GRAPHS, lines_of
from helpers import ROOT

FOLDER = ROOT / "results" / "edge"


def test_the_published_table_shows_the_measurements():
    results = json.loads((FOLDER / "edge.json").read_text())["results"]
    text = (FOLDER / "README.md").read_text()
    lines = lines_of(results)
    assert sum("| ONNX int8 |" in line for line in lines) == len(results) == 3
    for result in results:
        assert result["measured"].keys() == {"torch", *GRAPHS} and result["model"]["key"] in text
        for one in result["measured"].values():
            shown = f"| {one['median_ms']:.1f} | {one['p99_ms']:.1f} | {one['times_torch']:.2f} |"
            assert shown in text and any(shown in line for line in lines)
