"""`augbench augmenters`: list."""

from __future__ import annotations

import typer

augmenters_app = typer.Typer(help="Look at augmenters.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Put these commands into the command line."""
    app.add_typer(augmenters_app, name="augmenters")


@augmenters_app.command("list")
def augmenters_list() -> None:
    """List the augmenters: title, what they read, whether they learn."""
    from augbench.cli.augmenters_view import listing
    from augbench.report.table_text import standard_output

    standard_output().print(listing("augmenters"))
