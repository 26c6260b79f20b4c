"""The search space of a sweep (run.py --is_tune): which values each hyper-parameter may take. This is the file to edit.

    "batch_size": [16, 32]                                  one of these
    "learning_rate_bert": Range(1e-5, 1e-4, log=True)       anything in between; log: evenly over the orders of magnitude
    "post_fusion_dim": Range(32, 256)                       whole numbers for a key that takes whole numbers

What isn't named here has its value from config_regression.py; what --set names isn't searched. A sweep goes on with the
trials of an earlier one only where space, data, encoder, seed and all other values are the same; else it starts a new study.
"""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from config.config_regression import Config, make_config
from utils.errors import UserError


@dataclass(frozen=True)
class Range:
    """From low to high, both included."""

    low: float
    high: float
    log: bool = False


Values = list | Range
Space = dict[str, Values]

# The space that the authors' hyper-parameters come from: of 50 random trials, the best on the validation split. A list of
# one value sets it for all trials. H isn't searched: it is the range of the dataset's labels.
SEARCH_SPACE: Space = {
    "batch_size": [16, 32],
    "learning_rate_bert": [5e-5],
    "learning_rate_audio": [1e-4, 1e-3, 5e-3],
    "learning_rate_video": [1e-4, 1e-3, 5e-3],
    "learning_rate_other": [1e-4, 1e-3],
    "weight_decay_bert": [0.001, 0.01],
    "weight_decay_audio": [0.0, 0.001, 0.01],
    "weight_decay_video": [0.0, 0.001, 0.01],
    "weight_decay_other": [0.001, 0.01],
    "a_lstm_hidden_size": [16, 32],
    "v_lstm_hidden_size": [32, 64],
    "a_lstm_dropout": [0.0],
    "v_lstm_dropout": [0.0],
    "audio_out": [16],
    "video_out": [32],
    "post_fusion_dim": [64, 128],
    "post_text_dim": [32, 64],
    "post_audio_dim": [16, 32],
    "post_video_dim": [16, 32],
    "post_fusion_dropout": [0.0, 0.1],
    "post_text_dropout": [0.0, 0.1],
    "post_audio_dropout": [0.0, 0.1],
    "post_video_dropout": [0.0, 0.1],
}

# The made-up corpus has a small BERT of random weights, which needs larger steps.
DEMO_SPACE: Space = SEARCH_SPACE | {"learning_rate_bert": Range(3e-4, 3e-3, log=True)}

SPACES: dict[str, Space] = {"demo": DEMO_SPACE}  # a dataset's own space; the others share SEARCH_SPACE


def space_of(dataset: str, settings: dict[str, object]) -> Space:
    """What is searched for a dataset: its space, but for the keys that are set."""
    return {key: values for key, values in SPACES.get(dataset, SEARCH_SPACE).items() if key not in settings}


def varied(space: Space) -> list[str]:
    """The keys that differ between trials."""
    return [key for key, values in space.items() if isinstance(values, Range) or len(values) > 1]


def is_whole(key: str) -> bool:
    """Whether a key takes whole numbers."""
    return any(field.name == key and field.type is int for field in dataclasses.fields(Config))


def count(space: Space) -> float:
    """How many different trials there are."""
    sizes = [
        (values.high - values.low + 1 if is_whole(key) else math.inf) if isinstance(values, Range) else len(values)
        for key, values in space.items()
    ]
    return math.prod(sizes)


def combinations(space: Space) -> Iterator[dict[str, object]]:
    """All different trials of a space that has so many: see `count`."""
    every = [range(values.low, values.high + 1) if isinstance(values, Range) else values for values in space.values()]
    for chosen in itertools.product(*every):
        yield dict(zip(space, chosen, strict=True))


def _check(dataset: str, space: Space) -> None:
    """Raises UserError for a key or a value that Config doesn't take."""
    types = {field.name: field.type for field in dataclasses.fields(Config)}
    # What a sweep's trials share: how they compute and are judged, and the texts that a frozen encoder has read once.
    shared = ("precision", "max_clips_per_pass", "KeyEval", "use_finetune")
    for key, values in space.items():
        where = f"config/config_tune.py: {dataset}: {key}"
        if key not in types or key in shared:
            known = [name for name in types if name not in shared]
            closest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise UserError(f"{where}: nothing to search there; the closest hyper-parameter is {closest!r}")
        if isinstance(values, Range):
            kind, low, high = types[key], values.low, values.high
            if kind not in (int, float) or (kind is int and (type(low), type(high)) != (int, int)):
                raise UserError(f"{where}: a Range of {low!r} to {high!r} doesn't fit a value of type {kind.__name__}")
            if not low < high or (values.log and low <= 0):
                raise UserError(f"{where}: a Range goes from a lower to a higher value, with log from above 0")
            values = [low, high]
        if not isinstance(values, list) or not values or any(values.count(value) > 1 for value in values):
            raise UserError(f"{where}: expected a list of different values, or a Range")
        for value in values:
            try:
                make_config(dataset, **{key: value})
            except UserError as error:
                raise UserError(f"{where}: {error}") from None


for _dataset, _space in {"mosi": SEARCH_SPACE, **SPACES}.items():
    _check(_dataset, _space)
