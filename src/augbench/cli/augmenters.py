"""`augbench augmenters`: list, show."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(name="augmenters", help="List augmenters and show their settings.", no_args_is_help=True)


@app.command("list")
def augmenters_list() -> None:
    """List the augmenters: title, what they read, whether they learn.

    Example: augbench augmenters list
    """
    from augbench.cli.augmenters_view import augmenters_sheet
    from augbench.report.render.terminal import sheet_parts, standard_output

    standard_output().print(sheet_parts(augmenters_sheet()))


@app.command("show")
def augmenters_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An augmenter; see `augbench augmenters list`.")],
) -> None:
    """Show what an augmenter is, reads and needs, and every setting with its meaning and source.

    Example: augbench augmenters show memseg
    """
    from augbench.cli.augmenters_view import show_augmenter
    from augbench.report.render.terminal import standard_output

    show_augmenter(name, standard_output())
