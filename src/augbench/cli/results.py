"""`augbench results`: check published results, export them from a store, go on from them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augbench.cli.options import RootOption

if TYPE_CHECKING:
    from augbench.report.publish.verify import CheckResult

app = typer.Typer(name="results", help="Publish results, and check what was published.", no_args_is_help=True)


Format = StrEnum("Format", ["text", "github"])
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A published store, e.g. results/neu.")]


@app.command("check")
def results_check(
    folder: FolderArgument,
    form: Annotated[
        Format, typer.Option("--format", help="github: Markdown for a comment on a pull request.")
    ] = Format.text,
) -> None:
    """Recompute every metric and key of published results; name each file that does not match.

    Example: augbench results check results/demo
    """
    from augbench.report.publish.comment import to_comment
    from augbench.report.publish.verify import check_results

    verdict = check_results(folder)
    if form is Format.text:
        _print(folder, verdict)
        return
    typer.echo(to_comment(folder, verdict), nl=False)
    if verdict.refused:
        raise typer.Exit(2)


@app.command("rerun")
def results_rerun(
    folder: FolderArgument,
    sample: Annotated[int, typer.Option(min=1, help="Number of cells, drawn at random.")] = 3,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the draw; it is printed. Default: another one each time.")
    ] = None,
    grid: Annotated[str | None, typer.Option("--grid", metavar="NAME", help="Only cells of this grid.")] = None,
    roots: RootOption = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="How far metrics that rank all images may be apart on another device or with other versions. Default: "
            "0.05 where a network is fine-tuned, 0.01 for probes; where a classifier or an adapter is trained, what "
            "another seed changes, if this is more. Equal device and versions must give equal results.",
        ),
    ] = None,
) -> None:
    """Train random cells of published results again, with their synthetic images, and compare.

    Exit status 2: a cell differs.

    Example: augbench run tune_configs/first_look.yaml --executor inline &&
    augbench results rerun runs/first_look --sample 1
    """
    from augbench import api
    from augbench.cli.output import lasting_console
    from augbench.report.render.terminal import to_terminal

    with lasting_console("the exit status tells whether the cells agree") as console:
        found = api.rerun(folder, sample, seed, grid=grid, roots=roots or (), tolerance=tolerance, console=console)
        console.print(to_terminal(found.sections, console.width))
    if not found.agrees:
        raise typer.Exit(2)


@app.command("export")
def results_export(
    store: Annotated[str, typer.Argument(help="The store to publish from: a folder or a URL.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or an empty folder.")],
    grid: Annotated[str | None, typer.Option("--grid", metavar="NAME", help="Only this grid's results.")] = None,
) -> None:
    """Copy records, scores and tables out of a store, without images and weights, and check the copy.

    Example: augbench run tune_configs/first_look.yaml --executor inline &&
    augbench results export runs/first_look --out runs/published
    """
    from augbench.report.publish.export import export
    from augbench.report.publish.verify import check_results
    from augbench.storage.store import Store

    for line in export(Store(store), out, grid):
        typer.echo(line)
    _print(out, check_results(out))


@app.command("unpack")
def results_unpack(
    folder: FolderArgument,
    store: Annotated[str, typer.Option("--store", help="A new store: a folder or a URL (s3://...).")],
) -> None:
    """Make a store of published results, so that a run can add cells to them.

    Example: augbench results unpack results/demo --store runs/unpacked
    """
    from augbench.report.publish.unpack import unpack
    from augbench.storage.store import Store

    typer.echo(unpack(Store(folder), Store(store)))


def _print(folder: Path, verdict: CheckResult) -> None:
    for sentence in verdict.refused:
        typer.echo(f"refused: {sentence}")
    for sentence in verdict.said:
        typer.echo(f"note: {sentence}")
    typer.echo(f"{folder}: {verdict.summary}")
    if verdict.refused:
        raise typer.Exit(2)
