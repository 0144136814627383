"""`python -m cluster_side.modalities.native`: compile the loops now, for an image; exit code 1 where that cannot be done."""

import sys

from cluster_side.modalities.native import BUILT, built, kinds

sys.exit(0 if all([built(kind, BUILT) for kind in kinds()]) else 1)  # noqa: C419  each is tried
