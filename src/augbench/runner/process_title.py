"""What `ps`, `top` and Ray's dashboard show of a worker: behind the name that Ray gives its process, what it is at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_work_on(unit: str) -> Iterator[None]:
    """Put the unit behind the title of this Ray worker, for as long as it is worked on.

    Names that Ray gives are kept for what lives on from unit to unit, such as a training slot: it has no name that
    changes. Ray sets titles by a function of its own, which another version may call otherwise; then there are none.
    """
    import ray

    get, put = (getattr(ray._raylet, name, None) for name in ("getproctitle", "setproctitle"))
    if get is None or put is None:
        yield
        return
    before = get()
    put(f"{before} {unit}")
    try:
        yield
    finally:
        put(before)
