"""Safetensors files without loading them: their header is JSON that names every tensor, so torch is not needed."""

from __future__ import annotations

import json
import math
from pathlib import Path

from augbench.core.errors import UserError

HEADER_LIMIT = 100_000_000  # bytes, as the safetensors library has it


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape.

    Raises:
        UserError: the file is missing, cannot be read, is cut off, or is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, HEADER_LIMIT)))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            found = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
            end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"weights '{path}' are missing: restore the file") from None
    except OSError as error:
        raise UserError(f"weights '{path}' cannot be read ({error.strerror}): check their rights") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise UserError(f"weights '{path}' are damaged (no safetensors header): restore the file") from None
    if size != 8 + length + end:
        raise UserError(f"weights '{path}' are damaged ({size:,} bytes, not {8 + length + end:,}): restore the file")
    return found


def parameters(path: Path) -> int:
    """How many numbers the file holds, tables of positions not counted. Raises as `shapes`."""
    return sum(math.prod(shape) for name, shape in shapes(path).items() if not name.endswith("position_ids"))
