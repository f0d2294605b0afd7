"""These tests are of scripts in bench/, or play machines with them."""

import sys

from helpers import ROOT

sys.path += [str(ROOT / "bench")]
