"""Sentiment classes in words."""

import numpy as np

from utils.metrics import sims_classes

# Class names of the datasets' papers, for Mult_acc_7 (mosi) and Mult_acc_5 (sims).
_POSITIVE = {"mosi": ("weakly positive", "positive", "strongly positive"), "sims": ("weakly positive", "positive")}


def sentiment_class(score: float, metrics: str) -> str:
    """The class of a score: one of seven (metrics "mosi") or five ("sims")."""
    if metrics == "mosi":
        step = int(np.round(np.clip(np.float32(score), -3, 3)))
    else:
        step = int(sims_classes(np.clip(np.float32(score), -1, 1), 5)) - 2
    if step == 0:
        return "neutral"
    name = _POSITIVE[metrics][abs(step) - 1]
    return name if step > 0 else name.replace("positive", "negative")
