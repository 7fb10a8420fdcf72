"""The array type of engines, requests and responses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
"""An array of any dtype."""
