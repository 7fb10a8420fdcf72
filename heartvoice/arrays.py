"""The type of arrays that cross a boundary, whatever their numbers are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
"""An array of any dtype, as engines, requests and responses carry it."""
