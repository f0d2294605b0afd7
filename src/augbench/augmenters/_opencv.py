"""OpenCV, imported where it is needed."""

from __future__ import annotations

import os
from types import ModuleType


def opencv() -> ModuleType:
    """Import ``cv2``, for one thread, and keep the environment as it is.

    Its import puts its own folder into LD_LIBRARY_PATH, which programs started later would inherit.
    """
    before = os.environ.get("LD_LIBRARY_PATH")
    import cv2

    if before is None:
        os.environ.pop("LD_LIBRARY_PATH", None)
    else:
        os.environ["LD_LIBRARY_PATH"] = before
    cv2.setNumThreads(1)  # workers share a machine, and rounding must not depend on how
    return cv2
