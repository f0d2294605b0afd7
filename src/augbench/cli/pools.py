"""`augbench pool`: show a pool, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augbench.cli.options import LayoutOption, RootOption

app = typer.Typer(name="pool", help="Look at the images of augmenters.", no_args_is_help=True)


@app.command("show")
def pool_show(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key of a pool, or a prefix of it.")],
    store: Annotated[str, typer.Option(help="The store of the pool: a folder or a URL.")],
    roots: RootOption = None,
    out: Annotated[Path | None, typer.Option(help="The PNG to write. Default: KEY.png.")] = None,
    count: Annotated[int, typer.Option(min=1, max=500, help="Number of images of the pool.")] = 20,
) -> None:
    """Write a contact sheet: real defects of the dataset, then images of a pool.

    Example: augbench run tune_configs/first_look.yaml --executor inline &&
    augbench pool show surfaces-memseg --store runs/first_look --out runs/pool.png
    """
    from augbench.cli.pools_view import write_pool_sheet
    from augbench.report.render.terminal import standard_output
    from augbench.storage.store import Store

    write_pool_sheet(Store(store), key, roots or (), out, count, standard_output())


@app.command("export")
def pool_export(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key of a pool, or a prefix of it.")],
    store: Annotated[str, typer.Option(help="The store of the pool: a folder or a URL.")],
    layout: LayoutOption,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="A new or an empty folder. Default: KEY-FORMAT.")
    ] = None,
) -> None:
    """Write a pool as a folder that other tools read, with masks, licences, provenance and a dataset card.

    Example: augbench run tune_configs/first_look.yaml --executor inline &&
    augbench pool export surfaces-memseg --store runs/first_look --format coco --out runs/coco
    """
    from augbench.export.layouts import export_images
    from augbench.export.samples import pool_source
    from augbench.storage.store import Store

    source = pool_source(Store(store), key)
    for line in export_images(source, layout, out or Path(f"{source.name}-{layout}")):
        typer.echo(line)
