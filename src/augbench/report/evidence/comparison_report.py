"""Comparisons of a store's rows: print them and write them as Markdown, LaTeX, CSV, JSON and plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from augbench.metrics.resampling import RESAMPLES
from augbench.report.evidence.build import Evidence, build_evidence
from augbench.report.evidence.evidence_plots import cd_svg, curves_of, pareto_svg
from augbench.report.evidence.exports import to_csv, to_json
from augbench.report.evidence.ranking import Ranking, missing_ranks_note, rankings
from augbench.report.evidence.sheets import method_section, ranking_section, section_of
from augbench.report.render.latex import to_latex
from augbench.report.render.markdown import to_markdown
from augbench.report.render.terminal import to_brief, to_terminal
from augbench.report.sheet import Section
from augbench.report.store_report import places_of, reported, write_files
from augbench.storage.store import Store

PARETO, CD = "pareto.svg", "cd.svg"


@dataclass(frozen=True)
class Compared:
    """The comparison of one grid's rows."""

    name: str
    evidence: list[Evidence]
    ranked: list[Ranking]

    def sections(self, brief: bool = False) -> list[Section]:
        """Return the sections of the tables and of the ranks over datasets; ``brief`` as in `section_of`."""
        ranks = ranking_section(self.ranked, missing_ranks_note(self.ranked))
        return [*(section_of(one, brief) for one in self.evidence), ranks]

    def files(self) -> dict[str, bytes]:
        """Return name -> content of what `augbench compare` writes. Equal stores give equal bytes."""
        sections = self.sections()
        every = [method_section(self.evidence), *sections]
        drawn = {
            PARETO: ("Metric against cost", pareto_svg(self.evidence)),
            CD: ("Critical differences", cd_svg(self.ranked)),
        }
        plots = curves_of(self.evidence)
        plots |= {file: (title, svg) for file, (title, svg) in drawn.items() if svg is not None}
        images = [(title, file) for file, (title, _) in plots.items()]
        return {
            "compare.md": to_markdown(f"{self.name}: comparison", every, images).encode(),
            "compare.tex": to_latex(self.name, every).encode(),
            "compare.csv": to_csv(self.evidence).encode(),
            "compare.json": to_json(self.name, self.evidence, sections[:-1], self.ranked),
            **{file: svg.encode() for file, (_, svg) in plots.items()},
        }


def compared(
    store: Store,
    grid_name: str | None = None,
    expected: Iterable[Mapping[str, Any]] | None = None,
    against: str | None = None,
    resamples: int = RESAMPLES,
) -> list[Compared]:
    """Compare the rows of one grid of a store, or of every grid it knows; arguments and errors as of `compare`."""
    made = []
    for name, cells, records in reported(store, grid_name, expected):
        evidence, places = build_evidence(store, cells, records, against, resamples), places_of(store, name)
        for one in evidence:
            one.table.place = places.get(one.table.dataset, "")
        made.append(Compared(name, evidence, rankings(evidence)))
    return made


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
    found = compared(store, grid_name, expected, against, resamples)
    files = write_comparisons(store, found, out)
    if console is not None:  # last: a closed pipe or a full device must not cost a file
        print_comparisons(found, console, verbose)
    return files


def write_comparisons(store: Store, found: Sequence[Compared], out: Path | None = None) -> list[str]:
    """Write the files of all comparisons; return them. ``out`` as of `store_report.report`."""
    files: list[str] = []
    for one in found:
        files += write_files(store, one.name, one.files(), out / one.name if out and len(found) > 1 else out)
    return files


def print_comparisons(found: Sequence[Compared], console: Console, verbose: bool = False) -> None:
    """Print comparisons, each grid under its name; ``verbose`` as of `compare`."""
    printed: list[Section] = []
    method: dict[str, None] = {}
    for one in found:
        first = method_section(one.evidence)
        printed += [Section(one.name), *([first] if verbose else []), *one.sections(brief=True)]
        method |= dict.fromkeys(first.sentences)
    width = console.width
    console.print(to_terminal(printed, width) if verbose else to_brief(printed, width, method))
