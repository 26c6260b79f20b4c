"""The models that --modelName can name. To add one: a network in models/, a trainer in trains/, and a line in MODELS.

A network has SelfMM's constructor, keeps `hyper_parameters`, `frame_widths`, `dtype` and `text_encoder.bert`, and maps
a Batch to Outputs, with fusion among the tasks. A trainer has the signature of `fit`. It continues from the Training's
state, keeps in it whatever resuming needs, and yields an EpochResult after each epoch. Random numbers come from
PyTorch's generators, which resuming restores. Under torchrun it shards windows as `fit` does, with `train.ranks`.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from models.self_mm import SelfMM
from trains.self_mm import fit
from utils.errors import UserError


class ModelKind(NamedTuple):
    network: type[nn.Module]
    fit: Callable


MODELS = {"self_mm": ModelKind(SelfMM, fit)}


def model_kind(name: str) -> ModelKind:
    """Raises UserError for an unknown name."""
    if name not in MODELS:
        raise UserError(f"--modelName {name}: unknown model; expected one of: {', '.join(MODELS)}")
    return MODELS[name]
