"""Commands that begin a plug-in: a skeleton that works, and its test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

new_app = typer.Typer(help="Begin a plug-in of your own: a file that works, and its test.", no_args_is_help=True)

GRID = {
    "augmenters": """datasets: [surfaces]
augmenters: [none, {name}]
protocols: [demo]
shots: [5]
n_aug: [20]""",
    "datasets": """datasets:
  - name: {name}
    settings: {{root: /path/to/{name}}}
augmenters: [none, memseg]
protocols: [small]
shots: [5]
n_aug: [20]""",
}


def add_to(app: typer.Typer) -> None:
    """Put these commands into the command line."""
    app.add_typer(new_app, name="new")


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name in grids and tables, and of the file.")]
FolderOption = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the two files go.")]


@new_app.command("augmenter")
def new_augmenter(name: NameArgument, folder: FolderOption = Path()) -> None:
    """Write NAME.py and test_NAME.py: an augmenter that draws scratches, to be replaced."""
    _begin("augmenters", name, folder)


@new_app.command("dataset")
def new_dataset(name: NameArgument, folder: FolderOption = Path()) -> None:
    """Write NAME.py and test_NAME.py: a dataset of pictures in folders, to be replaced."""
    _begin("datasets", name, folder)


def _begin(room: str, name: str, folder: Path) -> None:
    import keyword
    import re
    from importlib import resources

    import augbench
    from augbench.core import registry
    from augbench.core.errors import UserError
    from augbench.planning.grid import NAME
    from augbench.storage.files import LocalFiles

    kind = room.removesuffix("s")
    if not re.match(NAME, name) or keyword.iskeyword(name):
        raise UserError(f"'{name}' cannot be the name of a plug-in: letters, digits, underscores; a letter goes first")
    if name in registry.find(room):
        raise UserError(f"'{name}' is already one of the {room}: take another name")
    if folder.resolve().is_relative_to(Path(augbench.__file__).parent):
        raise UserError(f"--dir '{folder}' lies in augbench, where each file is a plug-in: begin elsewhere, then move")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--dir '{folder}' is a file: give a folder")
    names = {f"{name}.py": f"{kind}.py.txt", f"test_{name}.py": f"test_{kind}.py.txt"}
    for file in names:
        if (folder / file).exists():
            raise UserError(f"'{folder / file}' is there already: take another name, or another folder with --dir")
    values = {"@name@": name, "@Class@": "".join(part[:1].upper() + part[1:] for part in name.split("_"))}
    for file, template in names.items():
        text = (resources.files("augbench") / "assets" / "templates" / template).read_text(encoding="utf-8")
        for mark, value in values.items():
            text = text.replace(mark, value)
        if not LocalFiles(folder).create(file, text.encode()):
            raise UserError(f"'{folder / file}' is there already")
    typer.echo(_next_steps(room, name, folder))


def _next_steps(room: str, name: str, folder: Path) -> str:
    """What to do now, with commands that can be pasted."""
    file, test = folder / f"{name}.py", folder / f"test_{name}.py"
    grid = GRID[room].format(name=name)
    data = f"\n  augbench --plugin {file} datasets check {name} --root /path/to/{name}" if room == "datasets" else ""
    return f"""wrote {file} and {test}; next:
  python -m pytest {test}
  augbench --plugin {file} list {room}{data}
  augbench --plugin {file} run {name}_grid.yaml
where {name}_grid.yaml may say

{grid}

It may stay a file for --plugin, or go into a package with an entry point in augbench.{room}, or into augbench itself
(CONTRIBUTING.md)."""
