"""`augbench store`: check a store, and remove what can be made again."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(name="store", help="Maintain a store.", no_args_is_help=True)


@app.command("check")
def store_check(store: Annotated[str, typer.Argument(help="The store to look at: a folder or a URL.")]) -> None:
    """Check a store; print every damaged file.

    Example: augbench run tune_configs/first_look.yaml --executor inline &&
    augbench store check runs/first_look
    """
    from augbench.core.errors import UserError
    from augbench.storage.store import Store

    target = Store(store)
    if not target.exists():
        raise UserError(f"'{store}' is no store: give a folder that `augbench run` made")
    problems = target.check()
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"problems: {len(problems)}" if problems else "all is well")
    if problems:
        raise typer.Exit(2)


@app.command("clean")
def store_clean(
    store: Annotated[str, typer.Argument(help="The store to clean: a folder or a URL.")],
    features: Annotated[
        bool,
        typer.Option("--features", help="Remove the features of frozen backbones instead."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it. Without, it is only listed.")] = False,
) -> None:
    """Remove what no grid of the store names: what is left of grids and plug-ins that have changed since.

    Example: augbench run tune_configs/first_look.yaml --executor inline &&
    augbench store clean runs/first_look
    """
    from augbench.core.errors import UserError, listed
    from augbench.monitoring.leftovers import leftovers, remove
    from augbench.storage.leases import survey
    from augbench.storage.store import Store

    target = Store(store)
    if not target.exists():
        raise UserError(f"'{store}' is no store: give a folder that `augbench run` made")
    target.require_writable()
    if any(driver.lives for driver in survey(target.files)):
        raise UserError(f"a run works in '{store}': clean it when the run is over")
    if features:
        typer.echo(f"removed the features of {target.remove_features()} datasets and pools")
        return
    found = leftovers(target)
    if yes:
        remove(target, found)
    for kind, keys in found.items():
        typer.echo(f"{kind}: {len(keys)} ({listed(keys)})")
    grids = ", ".join(sorted(target.keys("grids")))
    if not found:
        typer.echo(f"nothing to remove: its grids ({grids}) name all that it holds")
    else:
        names = f"no grid of the store ({grids}) names these"
        typer.echo("removed" if yes else f"{names}: add --yes to remove them")
