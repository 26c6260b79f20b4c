"""One seed of an experiment, from new weights to its test. All ranks run the same code; they differ in their keeper."""

from trains.runs.experiment import Experiment
from trains.runs.keeper import FINISHED, Keeper, NoKeeper
from utils.signals import deferred_signals


def train_seed(experiment: Experiment, seed: int, keeper: Keeper | NoKeeper) -> dict[str, float]:
    """Trains a seed until it is over, and tests its best epoch. Returns the test's metrics; {} without files to keep.

    The keeper says where to begin, saves on the way, and writes down what came of it.
    """
    with keeper.session(), deferred_signals():
        state = experiment.ranks.broadcast_object(keeper.find_state())
        if state == FINISHED:
            return keeper.finished_test()
        training, train, valid = experiment.new_training(seed)
        keeper.begin(training, state)
        del state  # its memory
        with keeper.faults_explained(training):
            for result in experiment.kind.fit(training, train, valid, experiment.config, experiment.metrics):
                keeper.after_epoch(training, result)
            return keeper.finish(training)
