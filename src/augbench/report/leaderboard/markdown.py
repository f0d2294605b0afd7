"""The leaderboard as Markdown: the tables of the page, with a link to the record of every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augbench.report.leaderboard.board import Board
from augbench.report.leaderboard.headings import Content
from augbench.report.leaderboard.page_versions import COLUMNS, SHORT, PageVersion
from augbench.report.render.markdown import escape, table_lines


def markdown_of(board: Board, versions: Sequence[PageVersion]) -> str:
    """Return ``leaderboard.md`` in GitHub's Markdown; ``versions`` of the page, newest first."""
    content = board.content
    lines = ["# Leaderboard", "", *_versions(versions), *_overview(content)]
    for table in content["tables"]:
        lines += _table(table, content["runs"])
    if content["older"]["rows"]:
        lines += _older(content["older"])
    return "\n".join(lines)


def _versions(versions: Sequence[PageVersion]) -> list[str]:
    new = versions[0]
    commit = f", the newest at commit {escape(new.commit[:SHORT])}" if new.commit else ""
    grid = table_lines(COLUMNS, [True] * 3 + [False, True], [[*map(escape, one.texts)] for one in versions])
    history = ["<details>", "<summary>Versions</summary>", "", *grid, "", "</details>", ""]
    return [f"Version {escape(new.name)}: {new.records:,} records{commit}; {new.difference}.", "", *history]


def _older(older: Content) -> list[str]:
    rows = []
    for row in older["rows"]:
        links = " ".join(f"[{number}]({file})" for number, file in enumerate(row["files"], 1))
        rows.append([*map(escape, row["texts"]), links])
    grid = table_lines([*older["columns"], "records"], [True] * 6 + [False] * 4, rows)
    return ["<details>", f"<summary>{older['title']}</summary>", "", *grid, "", "</details>", ""]


def _overview(content: Content) -> list[str]:
    """Format the headline metric and gain of each augmenter in each setting."""
    tables, overview = content["tables"], content["overview"]
    heads = [escape(f"{t['dataset']}, {t['shots_text']}, {t['protocol']}") for t in tables]
    rows = [[escape(row["augmenter"]), *map(_summary, row["entries"])] for row in overview["rows"]]
    caption = (
        "The headline metric of each augmenter in each setting, mean over its N_aug, the gain over the baseline, "
        f"and whether it is significant. {overview['note']}"
    )
    return [
        "## Overview",
        "",
        escape(caption),
        "",
        *table_lines(["augmenter", *heads], [True] + [False] * len(heads), rows),
        "",
    ]


def _summary(entry: Content | None) -> str:
    if entry is None:
        return "\N{EN DASH}"
    text = escape(entry["text"] + ("" if entry["is_whole"] else " *"))
    under = [escape(text) for text in (entry["under"], entry["verdict"]) if text]
    return "<br>".join([f"**{text}**" if entry["is_best"] else text, *under])


def _table(table: Content, runs: list[dict[str, Any]]) -> list[str]:
    columns = table["columns"]
    heads = [escape(c["title"]) + (f"<br>{escape(c['group'])}" if c["group"] else "") for c in columns]
    rows = [[*(_entry(table, row, column["key"]) for column in columns), _links(row, runs)] for row in table["rows"]]
    are_text = [True] * 2 + [False] * (len(heads) - 1)
    lines = [f"## {escape(table['title'])}", ""]
    lines += [f"**{escape(table['label'])}**", ""] if table["label"] else []
    lines += [escape(" ".join(table["captions"])), "", *table_lines([*heads, "records"], are_text, rows), ""]
    label = [f"Fidelity: {table['fidelity_label']}."] if table["fidelity_label"] else []
    notes = [*table["notes"], *label, *table["fidelity_notes"]]
    return [*lines, *(f"- {escape(note)}" for note in notes), ""]


def _entry(table: Content, row: Content, key: str) -> str:
    given = f"{row['augmenter']} {row['mark']}".rstrip() if key == "augmenter" else row["values"][key]["text"]
    text = escape(given)
    mark = "**" if row["is_best"] and key == table["headline"] else "*" if row["is_average"] and text else ""
    return f"{mark}{text}{mark}"


def _links(row: Content, runs: list[dict[str, Any]]) -> str:
    """Link each run by its number; average rows have no links, since their rows do."""
    if row["is_average"]:
        return ""
    return " ".join(f"[{number}]({runs[run]['file']})" for number, run in enumerate(row["runs"], 1))
