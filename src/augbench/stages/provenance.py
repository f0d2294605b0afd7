"""Provenance of a result: versions, device, git SHA."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import augbench
from augbench.core.errors import UserError, brief

COMMIT_VARIABLE = "AUGBENCH_COMMIT"
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "diffusers", "transformers", "peft", "ray")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, augbench and the packages that affect results."""
    found = {"python": platform.python_version(), "augbench": augbench.__version__}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


@cache
def git_sha() -> str | None:
    """Return the commit augbench runs from, with ``-dirty`` if tracked files changed.

    Outside a checkout, as in a job of Ray, it is what `COMMIT_VARIABLE` says; None without it.

    Raises:
        UserError: the variable does not name a commit.
    """
    here = Path(augbench.__file__).parent
    try:
        top = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
                             cwd=here, capture_output=True, text=True, check=True, timeout=20)  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return _stated_commit()
    tracked = subprocess.run(["git", "ls-files", "--error-unmatch", augbench.__file__],
                             cwd=here, capture_output=True, check=False)  # fmt: skip
    is_ours = tracked.returncode == 0  # else a site-packages inside another repository
    return top.stdout.strip() if is_ours else _stated_commit()


def _stated_commit() -> str | None:
    commit = os.environ.get(COMMIT_VARIABLE)
    if commit and not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit):
        how = "git describe --always --dirty --abbrev=40 --exclude='*'"
        raise UserError(
            f"{COMMIT_VARIABLE}='{brief(commit)}' is no commit of 40 hex digits: set it to what {how} prints"
        )
    return commit or None


def device_name(device: str) -> str:
    """Return the device's model: the GPU's name, or the processor."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return _processor()


@cache
def _processor() -> str:
    """Return e.g. ``AMD EPYC, family 25 model 17``.

    Cloud machines give several generations one name, and results of each may differ by rounding.
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    fields = {name.strip(): value.strip() for name, _, value in reversed([line.partition(":") for line in lines])}
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    parts = [f"{label} {fields[key]}" for label, key in (("family", "cpu family"), ("model", "model")) if key in fields]
    return ", ".join([fields["model name"], *([" ".join(parts)] if parts else [])])
