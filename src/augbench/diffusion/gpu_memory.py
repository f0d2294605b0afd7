"""Too little memory on a GPU is something a user can mend: it becomes one line that says how."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from augbench.core.errors import UserError, listed


@contextmanager
def enough_memory(*settings: str) -> Iterator[None]:
    """Turn torch's error into one that names the settings that save memory.

    Raises:
        UserError: the device's memory is used up.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = (amount / 2**30 for amount in torch.cuda.mem_get_info())
        found = f"{free:.1f} of {total:.1f} GiB free"
        raise UserError(f"not enough memory on the GPU ({found}): change {listed(settings)}") from error
