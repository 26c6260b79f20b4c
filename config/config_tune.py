"""The search space of a sweep (run.py --is_tune): the values that each hyper-parameter may take. Edit it here.

    "batch_size": [16, 32]                                  one of these
    "learning_rate_bert": Range(1e-5, 1e-4, log=True)       any value in between; log: uniform in the logarithm
    "post_fusion_dim": Range(32, 256)                       integers, for a hyper-parameter that takes integers

A hyper-parameter not listed here keeps its value from config_regression.py; --set excludes one from the search. A sweep
continues an earlier one only if space, data, encoder, seed and all other values are the same; otherwise it is a new study.
"""

import math
from dataclasses import dataclass

from config.config_regression import make_config
from utils.errors import UserError


@dataclass(frozen=True)
class Range:
    low: float
    high: float  # included
    log: bool = False


Space = dict[str, list | Range]

# The authors' space: their hyper-parameters are the best of 50 random trials on the validation split. A list of one value
# sets it for all trials. H is not searched: it is the range of the dataset's labels.
SEARCH_SPACE: Space = {
    "batch_size": [16, 32],
    "learning_rate_bert": [5e-5], "learning_rate_audio": [1e-4, 1e-3, 5e-3],
    "learning_rate_video": [1e-4, 1e-3, 5e-3], "learning_rate_other": [1e-4, 1e-3],
    "weight_decay_bert": [0.001, 0.01], "weight_decay_audio": [0.0, 0.001, 0.01],
    "weight_decay_video": [0.0, 0.001, 0.01], "weight_decay_other": [0.001, 0.01],
    "a_lstm_hidden_size": [16, 32], "v_lstm_hidden_size": [32, 64], "a_lstm_dropout": [0.0], "v_lstm_dropout": [0.0],
    "audio_out": [16], "video_out": [32],
    "post_fusion_dim": [64, 128], "post_text_dim": [32, 64], "post_audio_dim": [16, 32], "post_video_dim": [16, 32],
    "post_fusion_dropout": [0.0, 0.1], "post_text_dropout": [0.0, 0.1],
    "post_audio_dropout": [0.0, 0.1], "post_video_dropout": [0.0, 0.1],
}  # fmt: skip

# The other datasets share SEARCH_SPACE. The demo's small, randomly initialised BERT needs larger steps.
SPACES: dict[str, Space] = {"demo": SEARCH_SPACE | {"learning_rate_bert": Range(3e-4, 3e-3, log=True)}}

# Trials share how they compute, how they are scored, and the text vectors of a frozen encoder.
NOT_SEARCHED = ("precision", "max_clips_per_pass", "text_length", "KeyEval", "round_scores", "use_finetune")


def space_of(dataset: str, fixed: dict[str, object]) -> Space:
    """A dataset's search space, without the fixed hyper-parameters. Raises UserError for a key or value Config rejects."""
    space = {key: values for key, values in SPACES.get(dataset, SEARCH_SPACE).items() if key not in fixed}
    for key, values in space.items():
        where = f"config/config_tune.py: {dataset}: {key}"
        if key in NOT_SEARCHED:
            raise UserError(f"{where}: cannot be searched; choose one value with --set")
        is_valid = isinstance(values, list) and values
        if isinstance(values, Range):
            is_valid = values.low < values.high and (values.low > 0 or not values.log)
            values = [values.low, values.high]
        if not is_valid:
            raise UserError(f"{where}: expected a list, or Range(low, high) with low < high, and 0 < low for log")
        for value in values:
            try:
                make_config(dataset, **{key: value})
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
    return space


def count(space: Space) -> float:
    """The number of combinations; infinite with a Range."""
    return math.prod(math.inf if isinstance(values, Range) else len(values) for values in space.values())


def varied(space: Space) -> list[str]:
    """The keys whose values differ between trials."""
    return [key for key in space if count({key: space[key]}) > 1]
