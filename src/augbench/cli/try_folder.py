"""`augbench try`: an answer for one's own images."""

from __future__ import annotations

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
        str | None, typer.Option(metavar="PIPELINE", help="Compare DDPM, too: sd15, or a folder. A GPU is advised.")
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

    Example: augbench try my_images --budget 90s --executor inline
    """
    from augbench import api
    from augbench.advice.understand import WhichIsNormal
    from augbench.cli.output import lasting_console
    from augbench.runner.driver import Stopped
    from augbench.runner.sigterm import STATUS

    options = {"diffusion": diffusion, "executor": executor.value, "defect_rate": defect_rate, "miss_cost": miss_cost}
    options |= {"false_alarm_cost": false_alarm_cost}
    with lasting_console(f"see {out or api.answer_folder(folder)}; the same command goes on") as console:
        try:
            try:
                answer = api.try_folder(folder, out, budget, good, group, console=console, **options)
            except WhichIsNormal as error:
                if not (sys.stdin.isatty() and sys.stdout.isatty()):
                    raise
                chosen = typer.prompt("Which class holds the normal images? " + ", ".join(error.classes))
                answer = api.try_folder(folder, out, budget, chosen, group, console=console, **options)
        except Stopped as stopped:
            for key, line in list(stopped.summary.failures.items())[:10]:
                print_line(console, f"failed: {key}: {line}")
            done = f"{stopped.summary.done} of {stopped.summary.cells} cells are done"
            print_line(console, f"Stopped: {done}; run the same command again to go on.")
            raise typer.Exit(
                STATUS if stopped.summary.terminated else 130 if stopped.summary.interrupted else 2
            ) from None
        from augbench.advice.show import show

        show(answer, console)
