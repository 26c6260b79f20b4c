"""The bar of one epoch."""

import time

from torch import Tensor
from tqdm import tqdm


class Progress:
    """Goes through an epoch's windows and shows how far it is; silent where the output is no terminal."""

    def __init__(self, windows, epoch: int):
        self._bar = tqdm(windows, desc=f"epoch {epoch:3d}", unit="window", leave=False, disable=None)
        self._shown = 0.0

    def __iter__(self):
        return iter(self._bar)

    def show(self, losses: Tensor) -> None:
        """Shows the mean of a pass's losses (B,); once a second at most, as reading them waits for a GPU."""
        if not self._bar.disable and time.monotonic() - self._shown > 1:
            self._shown = time.monotonic()
            self._bar.set_postfix(loss=f"{losses.mean().item():.4f}")
