"""`augbench try`: an answer for one's own images."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from augbench.cli.options import print_line
from augbench.cli.run import Executor


def try_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Your images: class folders, or images and a CSV.")],
    budget: Annotated[str, typer.Option(help="How long it may take: 90s, 15m or 2h.")] = "15m",
    out: Annotated[Path | None, typer.Option(help="Where everything is written. Default: runs/try-FOLDER.")] = None,
    good: Annotated[str | None, typer.Option(help="The class of normal images, where its name does not tell.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Which images show one part: a regular expression, such as '(part\\d+)_.*'.")
    ] = None,
    diffusion: Annotated[
        str | None,
        typer.Option(metavar="PIPELINE", help="Compare DDPM, too: sd15, or a folder. Default: with a GPU and from 1h."),
    ] = None,
    executor: Annotated[Executor, typer.Option(help="ray, or inline: in this process only.")] = Executor.ray,
    defect_rate: Annotated[
        float | None, typer.Option(help="Share of parts with a defect, as 0.02. Default: as in the folder.")
    ] = None,
    miss_cost: Annotated[float | None, typer.Option(help="Cost of a defect that is missed, in any unit.")] = None,
    false_alarm_cost: Annotated[
        float | None, typer.Option(help="Cost of a normal part that is called defective, in the same unit.")
    ] = None,
) -> None:
    """Find out which synthetic defects, if any, help on your own images.

    Needs no other argument than the folder. It says what it understood, what can be found out in the time, and then
    what to do. The same command goes on where it was stopped. Exit status 0 also where nothing helps.
    """
    from augbench.advice.operating import Production
    from augbench.advice.tryout import Stopped, try_folder
    from augbench.advice.understand import WhichIsNormal
    from augbench.cli.output import lasting_console
    from augbench.runner.sigterm import STATUS

    seconds, production = budget_seconds(budget), Production(defect_rate, miss_cost, false_alarm_cost)
    options = {"bundle": diffusion, "executor": executor.value, "production": production}
    where = out or Path("runs") / f"try-{folder.expanduser().resolve().name}"
    with lasting_console(f"see {where}; the same command goes on") as console:
        try:
            try:
                answer = try_folder(folder, where, seconds, good, group, console=console, **options)
            except WhichIsNormal as error:
                if not (sys.stdin.isatty() and sys.stdout.isatty()):
                    raise
                chosen = typer.prompt("Which class holds the normal images? " + ", ".join(error.classes))
                answer = try_folder(folder, where, seconds, chosen, group, console=console, **options)
        except Stopped as stopped:
            for key, line in list(stopped.summary.failures.items())[:10]:
                print_line(console, f"failed: {key}: {line}")
            print_line(console, f"Stopped: {stopped}; run the same command again to go on.")
            raise typer.Exit(
                STATUS if stopped.summary.terminated else 130 if stopped.summary.interrupted else 2
            ) from None
        from augbench.advice.show import show

        show(answer, console)


def budget_seconds(text: str) -> float:
    """Parse ``90s``, ``15m`` or ``2h`` to seconds. Raises UserError for anything else."""
    from augbench.core.errors import UserError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise UserError(f"--budget '{text}': write 90s, 15m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2].lower()]
