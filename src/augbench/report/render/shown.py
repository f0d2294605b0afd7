"""Results that show themselves: as text in a terminal, as tables in a notebook."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console

from augbench.report.render.page import to_fragment
from augbench.report.render.terminal import to_terminal
from augbench.report.sheet import WIDTH, Section


class Shown:
    """Base of what the functions of `augbench.api` return: ``print`` gives text, a notebook tables."""

    @property
    def sections(self) -> Sequence[Section]:
        """What is shown."""
        raise NotImplementedError

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, force_jupyter=False, no_color=True)
        with console.capture() as captured:
            console.print(to_terminal(self.sections))
        return captured.get().rstrip()

    def _repr_html_(self) -> str:
        """Return HTML for notebooks, with all texts escaped."""
        return to_fragment(self.sections)
