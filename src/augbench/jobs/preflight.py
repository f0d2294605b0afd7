"""What is checked before anything starts: better one line now than a thousand failures later."""

from __future__ import annotations

from augbench.classifiers.backbone import build
from augbench.core.plan import Plan


def preflight(plan: Plan) -> None:
    """Make sure that every classifier of the plan can be built.

    Raises:
        UserError: an unknown backbone, or weights that cannot be had.
    """
    for protocol in plan.grid.protocols:
        build(protocol, 1, 0)
