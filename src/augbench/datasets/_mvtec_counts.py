"""Official counts of the datasets in MVTec AD's layout, by category.

MVTec AD: the table of the paper (3,629 training images; test: 467 normal, 1,258 with a defect). BTech: the archive
(1,799 training images; test: 451 normal, 290 with a defect). VisA: ``split_csv/*.csv`` of its repository (9,621 normal
images, 1,200 with a defect).
"""

from __future__ import annotations

from augbench.core.contracts import DEFECTIVE, GOOD

TRAIN_TEST = {  # category: normal training, normal test and defect test images
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "hazelnut": (391, 40, 70),
    "leather": (245, 32, 92),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "tile": (230, 33, 84),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "wood": (247, 19, 60),
    "zipper": (240, 32, 119),
    "01": (400, 21, 49),
    "02": (399, 30, 200),
    "03": (1000, 400, 41),
}
VISA = {  # category: normal images; of them in training in 1cls, 2cls_fewshot, 2cls_highshot
    "candle": (1000, 900, 200, 600),
    "capsules": (602, 542, 120, 361),
    "cashew": (500, 450, 100, 300),
    "chewinggum": (503, 453, 101, 302),
    "fryum": (500, 450, 100, 300),
    "macaroni1": (1000, 900, 200, 600),
    "macaroni2": (1000, 900, 200, 600),
    "pcb1": (1004, 904, 201, 602),
    "pcb2": (1001, 901, 200, 601),
    "pcb3": (1006, 905, 201, 604),
    "pcb4": (1005, 904, 201, 603),
    "pipe_fryum": (500, 450, 100, 300),
}
VISA_DEFECTIVE = 100  # in every category
# split: column of VISA, number of defect images in training
VISA_TRAINING = {"official": (1, 0), "2cls_fewshot": (2, 20), "2cls_highshot": (3, 60)}


def official_counts(category: str, split: str) -> dict[str, int]:
    """Return `Dataset.official_counts` of a category for a value of ``split``; {} for an unknown category."""
    if category in VISA:
        column, trained = VISA_TRAINING["official" if split == "folds" else split]
        train = VISA[category][column]
        test, defective = VISA[category][0] - train, VISA_DEFECTIVE - trained
    elif category in TRAIN_TEST:
        (train, test, defective), trained = TRAIN_TEST[category], 0
    else:
        return {}
    if split == "folds":
        return {GOOD: train + test, DEFECTIVE: trained + defective}
    counts = {f"train {GOOD}": train, f"train {DEFECTIVE}": trained}
    return {**counts, f"test {GOOD}": test, f"test {DEFECTIVE}": defective}
