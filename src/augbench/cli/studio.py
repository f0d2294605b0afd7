"""`augbench studio`: the expert in the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augbench.cli.options import RootOption, print_line


def studio(
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="A dataset, or a folder of your images. Default: surfaces.")
    ] = None,
    roots: RootOption = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the augmenter, as bundle=DIR. May be repeated."),
    ] = None,
    augmenter: Annotated[str, typer.Option(help="diag, ddpm or stablesdg.")] = "diag",
    adapter: Annotated[
        str | None, typer.Option(metavar="KEY", help="What ddpm or stablesdg has learned: its key in --store.")
    ] = None,
    pool: Annotated[str | None, typer.Option(metavar="KEY", help="Certify the images of a pool of --store.")] = None,
    store: Annotated[str | None, typer.Option(help="The store of --pool or --adapter: a folder or a URL.")] = None,
    review: Annotated[Path, typer.Option(help="The folder of the review; made if it is not there.")] = Path("review"),
    fold: Annotated[int | None, typer.Option(help="The fold whose training images are shown. Default: 0.")] = None,
    catch: Annotated[
        float, typer.Option(help="Share of hidden real defects and normal images among those to certify, as 0.1.")
    ] = 0.0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0: any that is free.")] = 7860,
) -> None:
    """Write prompts, mark regions, generate, and certify images on a local page.

    Every step is saved in the folder of the review, which grids read. It shows training images only, and this machine
    alone can open the page.

    Example: augbench studio --dataset surfaces
    """
    from augbench.report.render.terminal import standard_output
    from augbench.studio.opening import Asked, open_studio
    from augbench.studio.server import serve

    console = standard_output()
    asked = Asked(dataset, tuple(roots or ()), tuple(changes or ()), augmenter, adapter, pool, store, fold, catch)
    made = open_studio(asked, review)
    try:
        for problem in made.review.problems:
            print_line(console, f"damaged: {problem}")

        def say(address: str) -> None:
            print_line(console, f"{address}  ({made.review.folder}; Ctrl-C ends it, and all is saved)")

        serve(made, port, say)
    finally:
        made.close()
