"""`augbench datasets`: list, show, check, sample, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augbench.cli.options import LayoutOption, RootOption, named_dataset

app = typer.Typer(name="datasets", help="Look at datasets.", no_args_is_help=True)


DatasetArgument = Annotated[
    str, typer.Argument(metavar="NAME|DIR", help="A dataset, see `augbench datasets list`; or a folder of your images.")
]
SettingOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the dataset. May be repeated.")
]


@app.command("list")
def datasets_list() -> None:
    """List the datasets: task, split, size, licence.

    Example: augbench datasets list
    """
    from augbench.cli.datasets_view import datasets_sheet
    from augbench.report.render.terminal import sheet_parts, standard_output

    standard_output().print(sheet_parts(datasets_sheet()))


@app.command("show")
def datasets_show(name: DatasetArgument, changes: SettingOption = None) -> None:
    """Print what a dataset is, where to get it, its expected layout and its settings.

    Example: augbench datasets show magnetic_tile
    """
    from augbench.cli.datasets_view import show_dataset
    from augbench.report.render.terminal import standard_output

    show_dataset(named_dataset(name)[0], changes or (), standard_output())


@app.command("check")
def datasets_check(
    name: DatasetArgument,
    roots: RootOption = None,
    changes: SettingOption = None,
    store: Annotated[
        str | None,
        typer.Option(help="Store fingerprint and near-copies there, so that a run need not read all files again."),
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="Write a CSV of image and group, in which near-copies share a group.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Write a PNG with pairs of near-copies, to look at.")] = None,
) -> None:
    """Read every file; print counts, groups, formats, near-copies across the split, and each problem.

    Example: augbench datasets check surfaces
    """
    from augbench.cli.datasets_view import check_dataset
    from augbench.report.render.terminal import standard_output

    if check_dataset(*named_dataset(name, roots), changes or (), store, standard_output(), groups, pairs):
        raise typer.Exit(2)


@app.command("sample")
def datasets_sample(
    name: DatasetArgument,
    roots: RootOption = None,
    changes: SettingOption = None,
    out: Annotated[Path | None, typer.Option(help="The PNG to write. Default: NAME.png.")] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Approximate number of images.")] = 40,
) -> None:
    """Write a contact sheet: normal images and some of every class, with their masks outlined.

    Example: augbench datasets sample surfaces --out runs/surfaces.png
    """
    from augbench.cli.datasets_view import write_sample
    from augbench.report.render.terminal import standard_output

    write_sample(*named_dataset(name, roots), changes or (), out, count, standard_output())


@app.command("export")
def datasets_export(
    name: DatasetArgument,
    layout: LayoutOption,
    roots: RootOption = None,
    changes: SettingOption = None,
    fold: Annotated[
        int | None, typer.Option("--fold", min=0, help="The fold that is the test split, of a dataset with folds.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="A new or an empty folder. Default: NAME-FORMAT.")
    ] = None,
) -> None:
    """Write a dataset with its split as a folder that other tools read, with masks, licence and a dataset card.

    Example: augbench datasets export surfaces --format imagefolder --out runs/surfaces
    """
    from augbench.cli.datasets_view import open_library
    from augbench.export.layouts import export_images
    from augbench.export.samples import dataset_source

    asked, root = named_dataset(name, roots)
    source = dataset_source(open_library(asked, root, changes or ()).dataset(asked), fold)
    for line in export_images(source, layout, out or Path(f"{source.name}-{layout}")):
        typer.echo(line)
