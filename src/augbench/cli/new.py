"""`augbench new`: create a plug-in from a working template, with its test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="new", help="Create a plug-in from a working template, with its test.", no_args_is_help=True)

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


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name in grids, tables and of the file.")]
FolderOption = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the two files go.")]


@app.command("augmenter")
def new_augmenter(name: NameArgument, folder: FolderOption = Path()) -> None:
    """Write NAME.py and test_NAME.py: an augmenter that draws scratches, to be replaced.

    Example: augbench new augmenter stripes --dir runs/my
    """
    _create("augmenters", name, folder)


@app.command("dataset")
def new_dataset(name: NameArgument, folder: FolderOption = Path()) -> None:
    """Write NAME.py and test_NAME.py: a dataset of images in folders, to be replaced.

    Example: augbench new dataset plates --dir runs/my
    """
    _create("datasets", name, folder)


def _create(kind: str, name: str, folder: Path) -> None:
    import keyword
    import re
    from importlib import resources

    import augbench
    from augbench.core import registry
    from augbench.core.errors import UserError
    from augbench.planning.grid import NAME
    from augbench.storage.files import LocalFiles

    singular = kind.removesuffix("s")
    if not re.match(NAME, name) or keyword.iskeyword(name):
        raise UserError(f"'{name}' cannot be the name of a plug-in: letters, digits, underscores; a letter goes first")
    if name in registry.find(kind):
        raise UserError(f"'{name}' is already one of the {kind}: choose another name")
    if folder.resolve().is_relative_to(Path(augbench.__file__).parent):
        fix = "create it elsewhere, then move it"
        raise UserError(f"--dir '{folder}' lies in augbench, where each file is a plug-in: {fix}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--dir '{folder}' is a file: give a folder")
    names = {f"{name}.py": f"{singular}.py.txt", f"test_{name}.py": f"test_{singular}.py.txt"}
    for file in names:
        if (folder / file).exists():
            raise UserError(f"'{folder / file}' exists already: choose another name, or another folder with --dir")
    values = {"@name@": name, "@Class@": "".join(part[:1].upper() + part[1:] for part in name.split("_"))}
    for file, template in names.items():
        text = (resources.files("augbench") / "assets" / "templates" / template).read_text(encoding="utf-8")
        for mark, value in values.items():
            text = text.replace(mark, value)
        if not LocalFiles(folder).create(file, text.encode()):
            raise UserError(f"'{folder / file}' exists already")
    typer.echo(_next_steps(kind, name, folder))


def _next_steps(kind: str, name: str, folder: Path) -> str:
    """Describe the next steps, with commands to paste."""
    file, test = folder / f"{name}.py", folder / f"test_{name}.py"
    grid = GRID[kind].format(name=name)
    data = f"\n  augbench --plugin {file} datasets check {name} --root /path/to/{name}" if kind == "datasets" else ""
    return f"""wrote {file} and {test}; next:
  python -m pytest {test}
  augbench --plugin {file} list {kind}{data}
  augbench --plugin {file} run {name}_grid.yaml
where {name}_grid.yaml may contain

{grid}

It may stay a file for --plugin, or go into a package with an entry point in augbench.{kind}, or into augbench itself
(CONTRIBUTING.md)."""
