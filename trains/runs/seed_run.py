"""Trains one seed of an experiment and tests its best epoch. All ranks run this code; only rank 0 has a keeper."""

from contextlib import nullcontext

from trains.runs.experiment import Experiment
from trains.runs.keeper import FINISHED, Keeper
from trains.runs.training_state import restore
from utils.signals import deferred_signals


def train_seed(experiment: Experiment, seed: int, keeper: Keeper | None) -> dict[str, float]:
    """Trains a seed, or the rest of it, and tests its best epoch. Returns the test's metrics; {} except on rank 0."""
    with deferred_signals(), keeper.session() if keeper else nullcontext():
        state = experiment.ranks.broadcast_object(keeper.find_state() if keeper else None)
        if state == FINISHED:
            return keeper.finished_test() if keeper else {}
        training, train, valid = experiment.new_training(seed)
        if state is not None:
            restore(training, *state)
        del state  # frees its memory
        if keeper:
            keeper.begin(training)
        for result in experiment.kind.fit(training, train, valid, experiment.config, experiment.metrics):
            if keeper:
                keeper.after_epoch(result)
        return keeper.finish() if keeper else {}
