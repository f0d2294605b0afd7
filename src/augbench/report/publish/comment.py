"""A check of published results as Markdown, for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from augbench.report.publish.verify import CheckResult
from augbench.report.render.markdown import escape, table_lines

MOST = 40  # sentences of a list: GitHub takes 65,536 characters


def to_comment(folder: Path, result: CheckResult) -> str:
    """Return the outcome, the number of records, what is refused, and, folded, the notes."""
    outcome = "refused" if result.refused else "all is well"
    lines = [f"### `{folder.as_posix().replace('`', '')}`: {outcome}", ""]
    if result.counts:
        heads = [escape(kind) for kind in result.counts]
        lines += [*table_lines(heads, [False] * len(heads), [[f"{n:,}" for n in result.counts.values()]]), ""]
    if result.refused:
        lines += ["**Remake or remove:**", "", *_list(result.refused), ""]
    if result.said:
        lines += [
            "<details>",
            f"<summary>Notes ({len(result.said)})</summary>",
            "",
            *_list(result.said),
            "",
            "</details>",
            "",
        ]
    lines.append("Every metric was recomputed from the scores, every key from its spec (`augbench results check`).")
    return "\n".join(lines) + "\n"


def _list(sentences: Sequence[str]) -> Iterator[str]:
    yield from (f"- {escape(sentence)}" for sentence in sentences[:MOST])
    if len(sentences) > MOST:
        yield f"- and {len(sentences) - MOST:,} more"
