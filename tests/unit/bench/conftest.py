"""Put the scripts of bench/ on the path: these tests cover them."""

import sys

from helpers import ROOT

sys.path += [str(ROOT / "bench"), str(ROOT / "bench" / "micro")]
