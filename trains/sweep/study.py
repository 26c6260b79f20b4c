"""A sweep: trials with different hyper-parameters, judged on the validation split, run by any number of workers.

Workers on any machine share only Optuna's storage. Each trains one trial after another until the storage holds as many
finished trials as requested; up to workers - 1 more may finish. A trial that is stopped, or whose worker dies, is retried
with the same values. The test split is never opened.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, TrialPruned, UpdateFinishedTrialError
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from config.command_line import RunOptions
from config.config_regression import Config
from config.config_tune import Range, count, space_of, varied
from config.tuned import sweep_file
from trains.runs.experiment import Experiment
from trains.sweep.storage import open_storage, storage_errors
from utils.errors import UserError
from utils.files import make_folder
from utils.metrics import lower_is_better
from utils.signals import Stopped, deferred_signals, raise_if_stop_requested


class BruteForceSampler(optuna.samplers.BruteForceSampler):
    """Every combination once. Optuna's own fails for good after a trial that failed before it had all its values."""

    @staticmethod
    def _populate_tree(tree, trials: list[FrozenTrial], params: dict) -> None:
        kept = [trial for trial in trials if trial.state != TrialState.FAIL]  # another retries a failed one
        optuna.samplers.BruteForceSampler._populate_tree(tree, kept, params)


# constant_liar: stay away from the trials that are running.
SAMPLERS = {"random": RandomSampler, "tpe": lambda: TPESampler(constant_liar=True)}
# n_warmup_steps: in epochs 1 and 2 only the fusion task has a loss.
PRUNERS = {"none": NopPruner, "median": lambda: MedianPruner(n_warmup_steps=2), "hyperband": HyperbandPruner}
RESULT = "result"  # user attribute: a trial's scores, and how it was trained


def short(value: object) -> str:
    """A value for the screen; files have all its digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class LostTrialError(BaseException):
    """Another worker retries this trial. Not an Exception: Optuna would fail the trial a second time."""


class Sweep:
    def __init__(self, experiment: Experiment, options: RunOptions):
        """Opens the storage and the study that the flags describe. Raises UserError if they cannot be opened."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        self.experiment, self.options, self.seed = experiment, options, options.seeds[0]
        self.key = experiment.config.KeyEval
        self.space = space_of(experiment.dataset.name, fixed=options.hyper_parameters)
        self.budget = int(min(options.tune_times, count(self.space)))
        self.path = functools.partial(sweep_file, options.res_save_dir, experiment.model_name, experiment.dataset.name)
        database = self.path("tune.db").resolve()
        make_folder(database.parent)
        self.storage = open_storage(options.storage or f"sqlite:///{database}", options.heartbeat)
        sampler = BruteForceSampler() if count(self.space) <= options.tune_times else SAMPLERS[options.sampler]()
        direction = "minimize" if lower_is_better(self.key) else "maximize"
        how = {"storage": self.storage, "sampler": sampler, "pruner": PRUNERS[options.pruner](), "direction": direction}
        with storage_errors(self.storage):
            self.study = optuna.create_study(study_name=self._name(), load_if_exists=True, **how)

    def _name(self) -> str:
        """The study's name, a hash of all that its trials share: other data, space or settings make another study."""
        fixed = {key: value for key, value in self.experiment.config.identity().items() if key not in self.space}
        shared = self.experiment.provenance.data_and_encoder()
        identity = json.dumps([shared, fixed, self.space, self.seed], sort_keys=True, default=vars)
        return f"{shared['dataset']}-{shared['model']}-regression-{hashlib.sha1(identity.encode()).hexdigest()[:10]}"

    def describe(self) -> str:
        """What is searched, and where the trials are."""
        sweep = f"sweep {self.study.study_name} in {self.storage.engine.url.render_as_string()}, seed {self.seed}"
        return f"{sweep}\n{self.budget} of {count(self.space):g} combinations of {', '.join(varied(self.space))}"

    def finished(self) -> list[FrozenTrial]:
        """The complete and pruned trials of all workers, in order."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    def work(self, log: logging.Logger, after_each: Callable[[], None]) -> None:
        """Trains trials until enough are finished. after_each: called after each trial that this worker finishes."""
        self.log = log
        with storage_errors(self.storage), deferred_signals():
            while len(self.finished()) < self.budget:
                with contextlib.suppress(LostTrialError):
                    self.study.optimize(self._objective, n_trials=1)
                    after_each()
                raise_if_stop_requested()

    def _objective(self, trial: Trial) -> float:
        """Trains a trial. Returns the validation score of its best epoch; raises TrialPruned if that does not count."""
        # Optuna's first heartbeat comes from a thread; without any, a killed worker's trial would never be retried.
        self.storage.record_heartbeat(trial._trial_id)
        try:
            score, result = self._train(trial, self.options.config(**self._draw(trial)))
            trial.set_user_attr(RESULT, result)
        except UpdateFinishedTrialError:
            self.log.info(f"trial {trial.number}  sent no heartbeat for too long: another worker retries it")
            raise LostTrialError from None
        except Stopped:  # Optuna would leave the trial running until its heartbeat is too old
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            self.storage.heartbeat_stale_trial_callback(self.study, self.study.trials[trial.number])
            raise
        outcome = result["note"] or f"{self.key} {short(score)} at epoch {result['best_epoch']} of {result['epochs']}"
        params = " ".join(f"{key}={short(trial.params[key])}" for key in varied(self.space))
        self.log.info(f"trial {trial.number}  {result['state']}  {outcome}  {result['seconds']:.1f} s  {params}")
        if result["state"] == "pruned":
            raise TrialPruned
        return score

    def _draw(self, trial: Trial) -> dict[str, object]:
        """Draws a trial's hyper-parameters; a retried trial gets those of the first attempt."""
        for key, values in self.space.items():
            if isinstance(values, Range):
                suggest = trial.suggest_int if Config.__annotations__[key] is int else trial.suggest_float
                suggest(key, values.low, values.high, log=values.log)
            else:
                trial.suggest_categorical(key, values)
        return trial.params

    def _train(self, trial: Trial, config: Config) -> tuple[float, dict[str, object]]:
        """Returns the validation score of the best epoch, and the trial's RESULT."""
        experiment = self.experiment.with_config(config)
        start = time.perf_counter()
        best, epochs, note = None, 0, ""  # note: why the trial does not count
        try:
            training, train, valid = experiment.new_training(self.seed)
            for epoch in experiment.fit(training, train, valid, config, experiment.metrics):
                epochs, score = epoch.epoch, epoch.valid[self.key]
                best = epoch if training.at_best else best
                if np.isfinite(score):  # unlike the correlation of a constant
                    trial.report(score, epochs)
                if not training.is_over(config) and trial.should_prune():
                    note = "stopped by the pruner"
                    break
        except UserError as error:  # a result too: these values do not work
            note = str(error)
        score = best.valid[self.key] if best else float("nan")
        if not note and not np.isfinite(score):
            note = f"{self.key} is undefined"
        # Columns of the CSV, in this order.
        result = {"state": "pruned" if note else "complete", "valid": best.valid if best else {}}
        result |= {"best_epoch": best.epoch if best else None, "epochs": epochs}
        result |= {"seconds": round(time.perf_counter() - start, 2), "seed": self.seed}
        result |= {"device": self.experiment.provenance.device, "threads": self.experiment.provenance.threads}
        return score, result | {"worker": f"{socket.gethostname()} {os.getpid()}", "note": note, "config": vars(config)}
