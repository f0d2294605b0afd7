"""A procedural corpus of surfaces with captions and masks, which pretrains the small models that augbench ships.

64 x 64 pictures of everyday materials, good or with one kind of defect. The benchmark's dataset `surfaces` is held out:
no material of it occurs here, and where both draw a defect with the same code the ranges differ (a test says so).

    plan(seed, index)       what picture ``index`` of a corpus shows: an `Item`
    render(item)            the picture and its mask, from derived seeds: any picture alone, in any order
    captions(item, count)   what it may be called
    make(count, seed, ...)  many of them as arrays, on several processes
"""

from corpus.defects import DEFECTS
from corpus.materials import MATERIALS, RESERVED
from corpus.pictures import Arrays, Item, captions, make, plan, render

__all__ = ["DEFECTS", "MATERIALS", "RESERVED", "Arrays", "Item", "captions", "make", "plan", "render"]
