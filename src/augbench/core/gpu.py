"""Memory of the GPU of this process: freeing it, and what a user can do where it is too small."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from augbench.core.errors import UserError, listed


@contextmanager
def enough_memory(*settings: str, of: str = "") -> Iterator[None]:
    """Turn torch's out-of-memory error into a `UserError` that names the settings that save memory.

    Args:
        settings: their names.
        of: what they belong to, such as "protocol 'inout'"; "": it is clear.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
        found = f"{free:.1f} of {total:.1f} GiB free"
        whose = f" of {of}" if of else ""
        raise UserError(f"not enough memory on the GPU ({found}): change {listed(settings)}{whose}") from error


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an exception, or one that it was raised from, is torch's out-of-memory error of a GPU."""
    torch = sys.modules.get("torch")  # not imported here: without it there is no such error
    while torch is not None and error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        error = error.__cause__
    return False


def free_gpu(device: str) -> None:
    """Return unused GPU memory to the device: the process stays alive, and others share the GPU."""
    if device != "cpu":
        import torch

        gc.collect()  # pipelines hold cycles of references
        torch.cuda.empty_cache()
