"""Trains one seed of an experiment and tests its best epoch. All ranks run this code; only their keepers differ."""

from trains.runs.experiment import Experiment
from trains.runs.keeper import FINISHED, Keeper, NoKeeper
from trains.runs.training_state import restore
from utils.signals import deferred_signals


def train_seed(experiment: Experiment, seed: int, keeper: Keeper | NoKeeper) -> dict[str, float]:
    """Trains a seed, or the rest of it, and tests its best epoch. Returns the test's metrics; {} except on rank 0."""
    with deferred_signals(), keeper.session():
        state = experiment.ranks.broadcast_object(keeper.find_state())
        if state == FINISHED:
            return keeper.finished_test()
        training, train, valid = experiment.new_training(seed)
        if state is not None:
            restore(training, *state)
        del state  # frees its memory
        keeper.begin(training)
        for result in experiment.kind.fit(training, train, valid, experiment.config, experiment.metrics):
            keeper.after_epoch(result)
        return keeper.finish()
