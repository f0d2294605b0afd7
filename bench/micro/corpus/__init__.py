"""A procedural corpus of surfaces with captions and masks, which pretrains the small models that augbench ships.

64 x 64 images of everyday materials, normal or with one kind of defect. The benchmark's dataset `surfaces` is held out:
none of its materials occurs here, and where both draw a defect with the same code the ranges differ (a test checks it).

    plan(seed, index)       the content of image ``index`` of a corpus: an `Item`
    render(item)            the image and its mask, from derived seeds: independent of order
    captions(item, count)   possible captions
    make(count, seed, ...)  many images as arrays, made by several processes
"""

from corpus.defects import DEFECTS
from corpus.images import Arrays, Item, captions, make, plan, render
from corpus.materials import MATERIALS, RESERVED

__all__ = ["DEFECTS", "MATERIALS", "RESERVED", "Arrays", "Item", "captions", "make", "plan", "render"]
