"""The models that --modelName can name. To add one: a network in models/, a trainer in trains/, and a line in MODELS.

A network has SelfMM's constructor, keeps `hyper_parameters`, `frame_widths`, `dtype` and `text_encoder.bert`, and maps
a Batch to Outputs, with fusion among the tasks. A trainer has the signature of `fit`. It continues from the Training's
state, keeps in it whatever resuming needs, and yields an EpochResult after each epoch. Random numbers come from
PyTorch's generators, which resuming restores. Under torchrun it shards windows as `fit` does, with `train.ranks`.
"""

import pkgutil
from collections.abc import Callable

from utils.errors import UserError

MODELS = {"self_mm": ("models.self_mm:SelfMM", "trains.self_mm:fit")}  # imported when needed: they import torch


def check_model(name: str) -> None:
    """Raises UserError for an unknown name."""
    if name not in MODELS:
        raise UserError(f"--modelName {name}: unknown model; expected one of: {', '.join(MODELS)}")


def network_and_fit(name: str) -> tuple[type, Callable]:
    """A model's class and its trainer. Raises UserError for an unknown name."""
    check_model(name)
    network, fit = map(pkgutil.resolve_name, MODELS[name])
    return network, fit
