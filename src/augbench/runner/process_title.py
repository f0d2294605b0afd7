"""Process titles: `ps`, `top` and Ray's dashboard show the current unit of a worker after its Ray name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_work_on(unit: str) -> Iterator[None]:
    """Append the unit to the process title of this Ray worker while it works on it.

    Ray names an actor once, so the name of a training slot cannot follow its cells. The title is set by a private
    function of Ray; where another version of Ray lacks it, the title stays.
    """
    import ray

    get_title, set_title = (getattr(ray._raylet, name, None) for name in ("getproctitle", "setproctitle"))
    if get_title is None or set_title is None:
        yield
        return
    before = get_title()
    set_title(f"{before} {unit}")
    try:
        yield
    finally:
        set_title(before)
