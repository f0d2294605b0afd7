"""Comparisons of a store's rows: print them and write them as Markdown, LaTeX, CSV, JSON and plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from augbench.metrics.resampling import RESAMPLES
from augbench.report.evidence.build import build_evidence
from augbench.report.evidence.evidence_plots import cd_svg, curves_of, pareto_svg
from augbench.report.evidence.exports import to_csv, to_json
from augbench.report.evidence.ranking import missing_ranks_note, rankings
from augbench.report.evidence.sheets import method_section, ranking_section, section_of
from augbench.report.render.latex import to_latex
from augbench.report.render.markdown import to_markdown
from augbench.report.render.terminal import to_brief, to_terminal
from augbench.report.sheet import Section
from augbench.report.store_report import places_of, reported, write_files
from augbench.storage.store import Store

PARETO, CD = "pareto.svg", "cd.svg"


def compare(
    store: Store,
    grid_name: str | None = None,
    expected: Iterable[Mapping[str, Any]] | None = None,
    against: str | None = None,
    resamples: int = RESAMPLES,
    out: Path | None = None,
    console: Console | None = None,
    verbose: bool = False,
) -> list[str]:
    """Compare the rows of one grid of a store, or of every grid it knows; where it knows none, of all its records.

    Writes ``compare.md``, ``.tex``, ``.csv``, ``.json``, ``pareto.svg`` where costs are known, ``dose.svg`` and
    ``real_defects.svg`` where there are curves over N_aug and over real defects, and ``cd.svg`` from eight datasets on.
    Equal stores give equal bytes. Other arguments, result and errors as of `store_report.report`.

    Args:
        against: the baseline augmenter; None = ``none`` if a table has it, else ``memseg``.
        resamples: number of bootstrap resamples.
        verbose: print every column, and all notes beside each table; else what fits, and each legend once.

    Raises:
        UserError: also an unknown augmenter, or damaged scores.
    """
    files: list[str] = []
    printed: list[Section] = []
    method: dict[str, None] = {}
    found = reported(store, grid_name, expected)
    for name, cells, records in found:
        evidence = build_evidence(store, cells, records, against, resamples)
        places = places_of(store, name)
        for one in evidence:
            one.table.place = places.get(one.table.dataset, "")
        ranked = rankings(evidence)
        first, last = method_section(evidence), ranking_section(ranked, missing_ranks_note(ranked))
        sections = [section_of(one) for one in evidence]
        head = [Section(name), first] if verbose else [Section(name)]
        printed += [*head, *(section_of(one, brief=True) for one in evidence), last]
        method |= dict.fromkeys(first.sentences)
        every = [first, *sections, last]
        drawn = {PARETO: ("Metric against cost", pareto_svg(evidence)), CD: ("Critical differences", cd_svg(ranked))}
        plots = curves_of(evidence) | {file: (title, svg) for file, (title, svg) in drawn.items() if svg is not None}
        images = [(title, file) for file, (title, _) in plots.items()]
        contents = {
            "compare.md": to_markdown(f"{name}: comparison", every, images).encode(),
            "compare.tex": to_latex(name, every).encode(),
            "compare.csv": to_csv(evidence).encode(),
            "compare.json": to_json(name, evidence, sections, ranked),
            **{file: svg.encode() for file, (_, svg) in plots.items()},
        }
        files += write_files(store, name, contents, out / name if out and len(found) > 1 else out)
    if console is not None:  # last: a closed pipe or a full device must not cost a file
        width = console.width
        console.print(to_terminal(printed, width) if verbose else to_brief(printed, width, method))
    return files
