"""What --modelName can name: a network, and what trains it. A new one is a file in models/, one in trains/, and a line below.

A network is made as SelfMM is: Network(config, bert_config, audio_width, vision_width, bert). It keeps `hyper_parameters`,
`frame_widths` and `text_encoder.bert`, and maps a Batch to Outputs, fusion among the tasks.

A trainer is called as fit is: fit(training, train, valid, config, metrics). It goes on from where the Training stands, keeps
in it all that it needs to go on, and yields an EpochResult after each epoch. For torchrun it must do what fit does with
`train.ranks`: windows then hold one rank's share of their clips.
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
    """Raises UserError for a name that nobody knows."""
    if name not in MODELS:
        raise UserError(f"--modelName {name}: unknown; there are: {', '.join(MODELS)}")
    return MODELS[name]
