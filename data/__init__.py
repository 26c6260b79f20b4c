"""From a feature file to the tensors of a window."""

import utils  # noqa: F401 (checks Python, before the numpy of `python -m data.feature_file`)
