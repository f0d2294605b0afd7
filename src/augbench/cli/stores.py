"""`augbench store`: check a store, and remove what can be made again."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(name="store", help="Maintain a store.", no_args_is_help=True)


@app.command("check")
def store_check(store: Annotated[str, typer.Argument(help="The store to look at: a folder or a URL.")]) -> None:
    """Check a store; print every damaged file."""
    from augbench.core.errors import UserError
    from augbench.storage.store import Store

    target = Store(store)
    if not target.exists():
        raise UserError(f"'{store}' is no store: give a folder that `augbench run` made")
    problems = target.check()
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{len(problems)} problems in {len(target.keys('cells'))} cells" if problems else "all is well")
    if problems:
        raise typer.Exit(2)


@app.command("clean")
def store_clean(
    store: Annotated[str, typer.Argument(help="The store to clean: a folder or a URL.")],
    features: Annotated[bool, typer.Option("--features", help="The features of frozen backbones.")] = False,
) -> None:
    """Remove what no result needs and a run makes again."""
    from augbench.core.errors import UserError
    from augbench.storage.leases import survey
    from augbench.storage.store import Store

    target = Store(store)
    if not target.exists():
        raise UserError(f"'{store}' is no store: give a folder that `augbench run` made")
    if not features:
        raise UserError("say what to remove: --features")
    target.require_writable()
    if any(driver.lives for driver in survey(target.files)):
        raise UserError(f"a run works in '{store}': clean it when the run is over")
    typer.echo(f"removed the features of {target.remove_features()} datasets and pools")
