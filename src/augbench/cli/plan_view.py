"""Output of `augbench plan`: the trainings, pools and images of a grid."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from augbench.planning.plan import Plan
from augbench.planning.remaining import Remaining
from augbench.report.planned import plan_section
from augbench.report.render.terminal import sheet_parts
from augbench.storage.store import Store


def print_plan(plan: Plan, remaining: Remaining, store: Store, console: Console) -> None:
    """Print the units of a plan and those that the store lacks."""
    section = plan_section(plan, remaining, store)
    console.print(f"[bold]{section.title}[/]  {escape(section.lead)}", highlight=False)
    for sheet in section.sheets:
        console.print(sheet_parts(sheet))
    for line in section.sentences:
        console.print(line, highlight=False, markup=False)
