"""`augbench models`: list, show, sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="models", help="Look at the weights that come with augbench.", no_args_is_help=True)


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="See `augbench models list`; or a diffusers folder, or a .safetensors checkpoint."
    ),
]


@app.command("list")
def models_list() -> None:
    """List the weights: kind, size, purpose, licence.

    Example: augbench models list
    """
    from augbench.cli.models_view import models_sheet
    from augbench.report.render.terminal import sheet_parts, standard_output

    standard_output().print(sheet_parts(models_sheet()))


@app.command("show")
def models_show(name: ModelArgument) -> None:
    """Print the card of a model: training data, abilities, limits.

    Example: augbench models show micro-sd
    """
    from augbench.cli.models_view import show_model
    from augbench.report.render.terminal import standard_output

    show_model(name, standard_output())


@app.command("sample")
def models_sample(
    name: ModelArgument,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What to draw. May be repeated. Default: a few examples.")
    ] = None,
    negative: Annotated[str | None, typer.Option(metavar="TEXT", help="Negative prompt.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="Images per prompt.")] = 8,
    steps: Annotated[int, typer.Option(min=1, max=500, help="Denoising steps.")] = 20,
    guidance: Annotated[float, typer.Option(min=0, max=50, help="Guidance scale; up to 1: no guidance.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of a prompt's first image; then counting up.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The PNG to write. Default: NAME.png.")] = None,
    image: Annotated[Path | None, typer.Option(help="Inpainting: the input image. Default: surfaces.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Inpainting: the mask, white inside; the size of --image.")] = None,
) -> None:
    """Write a contact sheet of images sampled from a diffusion pipeline.

    Example: augbench models sample micro-sd --out runs/micro-sd.png
    """
    from augbench.cli.models_view import write_models_sample
    from augbench.report.render.terminal import standard_output

    write_models_sample(
        name,
        prompt or (),
        negative=negative,
        count=count,
        steps=steps,
        guidance=guidance,
        seed=seed,
        out=out,
        image=image,
        mask=mask,
        console=standard_output(),
    )
