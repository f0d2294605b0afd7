"""Turn CUDA out-of-memory errors into messages that say which settings to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from augbench.core.errors import UserError, listed


@contextmanager
def enough_memory(*settings: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into a `UserError` that names the settings that save memory.

    Raises:
        UserError: the GPU is out of memory.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
        found = f"{free:.1f} of {total:.1f} GiB free"
        raise UserError(f"not enough memory on the GPU ({found}): change {listed(settings)}") from error
