"""Put bench/ on the path: these tests check its scripts or use them to simulate machines."""

import sys

from helpers import ROOT

sys.path += [str(ROOT / "bench")]
