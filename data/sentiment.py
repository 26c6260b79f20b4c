"""Sentiment classes by name."""

import numpy as np

from utils.metrics import sims_classes

# The classes of Mult_acc_7 (mosi) and Mult_acc_5 (sims), as the datasets' papers name them.
MOSI = "strongly negative,negative,weakly negative,neutral,weakly positive,positive,strongly positive".split(",")
SIMS = "negative,weakly negative,neutral,weakly positive,positive".split(",")


def sentiment_class(score: float, metrics: str) -> str:
    """The class of a score: one of seven (metrics "mosi") or five ("sims")."""
    if metrics == "mosi":
        return MOSI[int(np.round(np.clip(np.float32(score), -3, 3))) + 3]
    return SIMS[int(sims_classes(np.clip(np.float32(score), -1, 1), 5))]
