"""`augbench results`: check published results, export them from a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from augbench.report.publish.verify import CheckResult

app = typer.Typer(name="results", help="Publish results, and check what was published.", no_args_is_help=True)


@app.command("check")
def results_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A published store, e.g. results/neu.")],
) -> None:
    """Recompute every metric and key of published results; name each file that does not match."""
    from augbench.report.publish.verify import check_results

    _print(folder, check_results(folder))


@app.command("export")
def results_export(
    store: Annotated[str, typer.Argument(help="The store to publish from: a folder or a URL.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or an empty folder.")],
    grid: Annotated[str | None, typer.Option("--grid", metavar="NAME", help="Only this grid's results.")] = None,
) -> None:
    """Copy records, scores and tables out of a store, without images and weights, and check the copy."""
    from augbench.report.publish.export import export
    from augbench.report.publish.verify import check_results
    from augbench.storage.store import Store

    for line in export(Store(store), out, grid):
        typer.echo(line)
    _print(out, check_results(out))


def _print(folder: Path, verdict: CheckResult) -> None:
    for sentence in verdict.refused:
        typer.echo(f"refused: {sentence}")
    for sentence in verdict.said:
        typer.echo(f"note: {sentence}")
    typer.echo(f"{folder}: {verdict.summary}")
    if verdict.refused:
        raise typer.Exit(2)
