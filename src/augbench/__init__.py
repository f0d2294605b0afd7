"""augbench: which way of making synthetic defects improves a classifier, by how much, at what cost.

Importing this loads neither torch nor ray. The names below are what a plug-in author needs.
"""

from augbench.core.contracts import GOOD, Augmenter, Dataset, Part, Request, Settings, Synthetic, TrainView
from augbench.core.errors import UserError

__version__ = "0.1.0"
__all__ = ["GOOD", "Augmenter", "Dataset", "Part", "Request", "Settings", "Synthetic", "TrainView", "UserError"]
