"""`python -m cluster_side.modalities.native`: compile the loops now, for an image; exit code 1 where that cannot be done."""

import sys

from cluster_side.modalities.native import library

sys.exit(0 if library() is not None else 1)
