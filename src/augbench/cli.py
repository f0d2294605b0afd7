"""The command line: thin and lazy. Heavy imports happen inside the commands, so that ``augbench --help`` is instant."""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from augbench.core.store import Store

app = typer.Typer(
    name="augbench",
    help="Which way of making synthetic defects improves a surface-inspection classifier, by how much, at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
datasets_app = typer.Typer(help="Look at datasets.", no_args_is_help=True)
protocols_app = typer.Typer(help="Look at how classifiers are trained and judged.", no_args_is_help=True)
models_app = typer.Typer(help="Look at the weights that come with augbench.", no_args_is_help=True)
pool_app = typer.Typer(help="Look at what augmenters made.", no_args_is_help=True)
store_app = typer.Typer(help="Look after a store.", no_args_is_help=True)
app.add_typer(datasets_app, name="datasets")
app.add_typer(protocols_app, name="protocols")
app.add_typer(models_app, name="models")
app.add_typer(pool_app, name="pool")
app.add_typer(store_app, name="store")


class Executor(StrEnum):
    """How a run is executed."""

    ray = "ray"
    inline = "inline"


class Room(StrEnum):
    """What can be listed."""

    datasets = "datasets"
    augmenters = "augmenters"
    models = "models"
    protocols = "protocols"


GridArgument = Annotated[Path, typer.Argument(metavar="GRID", help="A grid file, e.g. tune_configs/demo.yaml.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the grid, e.g. --set seeds=[0,1]. May be repeated."),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="Where results are kept: a folder or a URL (s3://...). Default: runs/<grid name>."),
]


@app.callback(invoke_without_command=True)
def _options(
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", metavar="FILE", help="Add the plug-ins of a Python file.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Options of every command."""
    if version:
        import augbench

        typer.echo(f"augbench {augbench.__version__}")
        raise typer.Exit
    if plugin:
        from augbench.core import plugins

        for file in plugin:
            plugins.load_file(file)


@app.command()
def plan(grid: GridArgument, changes: SetOption = None, store: StoreOption = None) -> None:
    """Show what a grid means: trainings, pictures, what is done, what is left. Starts nothing."""
    from augbench.core.grid import load_grid
    from augbench.core.plan import make_plan, subtract
    from augbench.report.plan import print_plan
    from augbench.report.render import standard_output

    loaded = load_grid(grid, changes or ())
    target = _store(store, loaded.base)
    made = make_plan(loaded, target if target.exists() else None)
    print_plan(made, subtract(made, target), target, standard_output())


@app.command()
def run(
    grid: GridArgument,
    changes: SetOption = None,
    store: StoreOption = None,
    executor: Annotated[Executor, typer.Option(help="ray, or inline: this process alone.")] = Executor.ray,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. auto.")] = None,
) -> None:
    """Complete a grid: make pictures, train, print the table. What is done already is not done again."""
    from augbench.core.grid import load_grid
    from augbench.engine.driver import run as run_grid
    from augbench.report.render import standard_output
    from augbench.report.write import report as write_report

    console = standard_output()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    loaded = load_grid(grid, changes or ())
    target = _store(store, loaded.base)
    summary = run_grid(loaded, target, executor=executor.value, address=address, console=console)
    again = f"run the same command again to go on (store: {target.url})"
    if summary.interrupted:
        say(f"Stopped: {summary.done} of {summary.cells} cells are done; {again}.")
        raise typer.Exit(130)
    if summary.done:
        write_report(target, loaded.name, console=console)
    for key, line in list(summary.failures.items())[:10]:
        waiting = f" ({summary.blocked[key]} cells wait for it)" if summary.blocked[key] else ""
        say(f"failed: {key}: {line}{waiting}")
    if summary.failures:
        missing = f"{summary.cells - summary.done} of {summary.cells} cells are missing"
        say(f"{missing}; details in {target.files.where('failures')}; mend what failed, then {again}.")
        raise typer.Exit(2 if summary.user_error else 1)
    say(_closing(summary.cells, summary.trained, summary.seconds, target))


def _closing(cells: int, trained: int, seconds: float, store: Store) -> str:
    if not trained:
        return f"All {cells} cells were done already: nothing to do. Store: {store.url}"
    return f"{cells} cells done, {trained} of them now, in {seconds:.0f} s. Store: {store.url}"


@app.command()
def report(
    store: Annotated[str, typer.Argument(help="The store to report on: a folder or a URL.")],
    grid: Annotated[Path | None, typer.Option("--grid", help="Report on the cells of this grid file.")] = None,
    changes: SetOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write there instead of STORE/reports/<grid>.")] = None,
) -> None:
    """Print the mean (std) tables of a store, and write them as Markdown, LaTeX, CSV and JSON."""
    from augbench.core.errors import UserError
    from augbench.core.expected import expected_of
    from augbench.core.grid import load_grid
    from augbench.core.plan import make_plan
    from augbench.core.store import Store
    from augbench.report.render import standard_output
    from augbench.report.write import report as write_report

    target, console = Store(store), standard_output()
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    if changes and grid is None:
        raise UserError("--set changes a grid: give --grid FILE too")
    if grid is None:
        write_report(target, None, out=out, console=console)
        return
    made = make_plan(load_grid(grid, changes or ()), target)
    for label in made.absent:
        made.library.dataset(label).root()  # its keys need its files
    write_report(target, made.grid.name, expected=expected_of(made), out=out, console=console)


@app.command("list")
def list_(what: Annotated[Room, typer.Argument(help="datasets, augmenters, models or protocols")]) -> None:
    """List what is there, each found by itself."""
    from augbench.report.listing import listing
    from augbench.report.render import standard_output

    standard_output().print(listing(what.value))


DatasetArgument = Annotated[str, typer.Argument(metavar="NAME", help="A dataset; see `augbench datasets list`.")]
RootOption = Annotated[Path | None, typer.Option(help="Where its files lie. Default: $AUGBENCH_DATA/NAME.")]
SettingOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the dataset. May be repeated.")
]


@datasets_app.command("list")
def datasets_list() -> None:
    """List the datasets: task, split, size, licence."""
    from augbench.report.datasets import datasets_table
    from augbench.report.render import standard_output

    standard_output().print(datasets_table())


@datasets_app.command("show")
def datasets_show(name: DatasetArgument, changes: SettingOption = None) -> None:
    """Say what a dataset is, where to get it, which layout is expected, and its settings."""
    from augbench.report.datasets import show_dataset
    from augbench.report.render import standard_output

    show_dataset(name, changes or (), standard_output())


@datasets_app.command("check")
def datasets_check(
    name: DatasetArgument,
    root: RootOption = None,
    changes: SettingOption = None,
    store: Annotated[
        str | None,
        typer.Option(help="Keep the fingerprint in this store, so that a run need not read all files again."),
    ] = None,
) -> None:
    """Read every file once: counts, groups, formats, and everything that is wrong, named."""
    from augbench.report.datasets import check_dataset
    from augbench.report.render import standard_output

    if check_dataset(name, root, changes or (), store, standard_output()):
        raise typer.Exit(2)


@datasets_app.command("sample")
def datasets_sample(
    name: DatasetArgument,
    root: RootOption = None,
    changes: SettingOption = None,
    out: Annotated[Path | None, typer.Option(help="The PNG to write. Default: NAME.png.")] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="About how many pictures.")] = 40,
) -> None:
    """Write a contact sheet: good pictures and some of every class, with their masks outlined."""
    from augbench.report.datasets import write_sample
    from augbench.report.render import standard_output

    write_sample(name, root, changes or (), out, count, standard_output())


@protocols_app.command("list")
def protocols_list() -> None:
    """List the presets."""
    from augbench.report.protocols import list_protocols
    from augbench.report.render import standard_output

    standard_output().print(list_protocols())


@protocols_app.command("show")
def protocols_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset; see `augbench protocols list`.")],
) -> None:
    """Print every number of a preset and where it comes from."""
    from augbench.report.protocols import show_protocol
    from augbench.report.render import standard_output

    show_protocol(name, standard_output())


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="See `augbench models list`; or a diffusers folder, or a .safetensors checkpoint."
    ),
]


@models_app.command("list")
def models_list() -> None:
    """List the weights: kind, size, what for, licence."""
    from augbench.report.models import models_table
    from augbench.report.render import standard_output

    standard_output().print(models_table())


@models_app.command("show")
def models_show(name: ModelArgument) -> None:
    """Print the card of a model: what it was made from, what it can do, where it fails."""
    from augbench.report.models import show_model
    from augbench.report.render import standard_output

    show_model(name, standard_output())


@models_app.command("sample")
def models_sample(
    name: ModelArgument,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What to paint. May be repeated. Default: a few examples.")
    ] = None,
    negative: Annotated[str | None, typer.Option(metavar="TEXT", help="What to lead away from.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="Pictures for each prompt.")] = 8,
    steps: Annotated[int, typer.Option(min=1, max=500, help="Denoising steps.")] = 20,
    guidance: Annotated[float, typer.Option(min=0, max=50, help="Guidance scale; up to 1: none.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of a prompt's first picture; then counting up.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The PNG to write. Default: NAME.png.")] = None,
    image: Annotated[Path | None, typer.Option(help="Inpainting: the picture to paint in. Default: surfaces.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Inpainting: where to paint, white; the size of --image.")] = None,
) -> None:
    """Write a contact sheet of what a diffusion bundle paints."""
    from augbench.report.models import write_models_sample
    from augbench.report.render import standard_output

    write_models_sample(
        name,
        prompt or (),
        negative=negative,
        count=count,
        steps=steps,
        guidance=guidance,
        seed=seed,
        out=out,
        image=image,
        mask=mask,
        console=standard_output(),
    )


@pool_app.command("show")
def pool_show(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A pool's key, or how it begins.")],
    store: Annotated[str, typer.Option(help="The store it is in: a folder or a URL.")],
    root: RootOption = None,
    out: Annotated[Path | None, typer.Option(help="The PNG to write. Default: KEY.png.")] = None,
    count: Annotated[int, typer.Option(min=1, max=500, help="How many pictures of the pool.")] = 20,
) -> None:
    """Write a contact sheet of a pool under real defects of its dataset."""
    from augbench.core.store import Store
    from augbench.report.pools import write_pool_sheet
    from augbench.report.render import standard_output

    write_pool_sheet(Store(store), key, root, out, count, standard_output())


@store_app.command("check")
def store_check(store: Annotated[str, typer.Argument(help="The store to look at: a folder or a URL.")]) -> None:
    """Name every damaged file of a store."""
    from augbench.core.errors import UserError
    from augbench.core.store import Store

    target = Store(store)
    if not target.exists():
        raise UserError(f"'{store}' is no store: give a folder that `augbench run` made")
    problems = target.check()
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{len(problems)} problems in {len(target.keys('cells'))} cells" if problems else "all is well")
    if problems:
        raise typer.Exit(2)


def _store(location: str | None, grid_name: str) -> Store:
    from augbench.core.store import Store

    return Store(location if location is not None else Path("runs") / grid_name)


def main() -> None:
    """Entry point: whatever a user got wrong ends in one line and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except Exception as error:
        from augbench.core.errors import UserError

        usage = getattr(error, "format_message", None)  # of the argument parser
        if "--debug" in sys.argv or not (isinstance(error, UserError) or usage):
            raise
        message = usage() if usage else str(error)
        if len(sys.argv) == 1 or not message:  # a command without its arguments: its help has been shown
            typer.echo(message)
        else:
            hint = " (see augbench --help)" if usage else ""
            typer.echo(f"augbench: {' '.join(message.split())}{hint}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
