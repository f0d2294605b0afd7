"""`augbench protocols`: list and show presets."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(name="protocols", help="Look at how classifiers are trained and evaluated.", no_args_is_help=True)


@app.command("list")
def protocols_list() -> None:
    """List the presets.

    Example: augbench protocols list
    """
    from augbench.cli.protocols_view import protocols_sheet
    from augbench.report.render.terminal import sheet_parts, standard_output

    standard_output().print(sheet_parts(protocols_sheet()))


@app.command("show")
def protocols_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset; see `augbench protocols list`.")],
) -> None:
    """Print every setting of a preset and its source.

    Example: augbench protocols show probe
    """
    from augbench.cli.protocols_view import show_protocol
    from augbench.report.render.terminal import standard_output

    show_protocol(name, standard_output())
