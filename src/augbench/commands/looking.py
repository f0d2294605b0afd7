"""Commands that look at what is there: datasets, protocols, models, pools, stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

datasets_app = typer.Typer(help="Look at datasets.", no_args_is_help=True)
protocols_app = typer.Typer(help="Look at how classifiers are trained and judged.", no_args_is_help=True)
models_app = typer.Typer(help="Look at the weights that come with augbench.", no_args_is_help=True)
pool_app = typer.Typer(help="Look at what augmenters made.", no_args_is_help=True)
store_app = typer.Typer(help="Look after a store.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Put these commands into the command line."""
    app.add_typer(datasets_app, name="datasets")
    app.add_typer(protocols_app, name="protocols")
    app.add_typer(models_app, name="models")
    app.add_typer(pool_app, name="pool")
    app.add_typer(store_app, name="store")


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
