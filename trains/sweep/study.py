"""A sweep: trials with different hyper-parameters, judged on the validation split, by any number of workers anywhere.

A worker opens the study in Optuna's storage, and trains one trial after the other until as many are finished as were asked
for. Workers know of each other through the storage only; `budget.py` says which trials count. The test split isn't there.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import random
import socket
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from config.config_regression import Config
from config.config_tune import Range, Space, Values, combinations, count, is_whole, space_of, varied
from config.tuned import sweep_file
from trains.runs.experiment import Experiment
from trains.sweep.budget import BEGUN, REPEATS, RESULT, STOPPED, WITHDRAWN, Slot, slots
from trains.sweep.storage import Storage, heartbeat, open_storage, retrying
from utils.errors import DivergedError, UserError, first_line
from utils.files import make_folder
from utils.metrics import lower_is_better
from utils.signals import Stopped, deferred_signals, raise_if_stop_requested

SAMPLERS = {
    "random": optuna.samplers.RandomSampler,
    "tpe": lambda: optuna.samplers.TPESampler(constant_liar=True),  # made for workers that don't wait for each other
}
PRUNERS = {
    "none": optuna.pruners.NopPruner,
    # In epochs 1 and 2 only fusion learns.
    "median": lambda: optuna.pruners.MedianPruner(n_warmup_steps=2),
    "hyperband": optuna.pruners.HyperbandPruner,
}
SMALL = 10_000  # trials of a space that can be gone through


class WithdrawnError(Exception):
    """A trial gave up its slot before it began."""


@dataclass
class Sweep:
    experiment: Experiment  # with the values that all trials share
    space: Space
    configure: Callable[[dict[str, object]], Config]  # a trial's hyper-parameters -> its config
    seed: int  # of all trials
    times: int  # trials asked for
    storage: Storage
    sampler: str
    pruner: str

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.budget = int(min(self.times, count(self.space)))
        self.key = self.experiment.config.KeyEval
        self._first_seen: dict[int, float] = {}  # trials that haven't begun
        self.study = optuna.create_study(
            study_name=self._name(),
            storage=self.storage,
            sampler=SAMPLERS[self.sampler](),
            pruner=PRUNERS[self.pruner](),
            direction="minimize" if lower_is_better(self.key) else "maximize",
            load_if_exists=True,
        )

    def describe(self) -> str:
        """What the log opens with."""
        lines = [
            self.experiment.describe(),
            f"sweep {self.study.study_name} in {self.storage.engine.url}, seed {self.seed}; searched: {', '.join(varied(self.space))}",
        ]
        if self.budget < self.times:
            lines += [f"the space has no more than {self.budget} different trials"]
        return "\n".join(lines)

    def _name(self) -> str:
        """A study's name holds all that its trials share: with other data, space or settings it is another study."""
        fixed = {key: value for key, value in self.experiment.config.identity().items() if key not in self.space}
        space = {key: vars(values) if isinstance(values, Range) else values for key, values in self.space.items()}
        shared = self.experiment.provenance.data_and_encoder()
        identity = json.dumps([shared, fixed, space, self.seed], sort_keys=True)
        return f"{shared['dataset']}-{shared['model']}-regression-{hashlib.sha1(identity.encode()).hexdigest()[:10]}"

    def slots(self) -> list[Slot]:
        """All slots that trials have taken, in order; the first `budget` of them count."""
        return slots(retrying(lambda: self.study.get_trials(deepcopy=False)))

    def work(self, log: logging.Logger, after_each: Callable[[], None]) -> None:
        """Trains until the budget is finished, whoever finished it. after_each: is called after each trial of this worker."""
        self._log = log
        with deferred_signals():
            while True:
                self._fail_stale_trials()
                taken = self.slots()[: self.budget]
                self._repeat(taken)
                if sum(slot.is_finished for slot in taken) == self.budget:
                    return
                if len(taken) < self.budget or any(slot.is_waiting for slot in taken):
                    self._run_trial()
                    after_each()
                else:  # all are under way elsewhere; but any of their workers may die
                    time.sleep(2)
                raise_if_stop_requested()

    def _run_trial(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that heartbeats are for Study.optimize: `heartbeat` has them
            trial = retrying(self.study.ask)
        try:
            with heartbeat(self.storage, trial._trial_id):
                state, score = self._train(trial, self.configure(self._begin(trial)))
                self._tell(trial, state, score)
        except WithdrawnError:
            with contextlib.suppress(UpdateFinishedTrialError):
                self._tell(trial, TrialState.FAIL)
        except UpdateFinishedTrialError:
            self._log.info(f"trial {trial.number}  was silent for too long, and was given to another worker")
        except BaseException as error:
            self._abandon(trial, stopped=isinstance(error, Stopped))
            raise

    def _tell(self, trial: Trial, state: TrialState, score: float | None = None) -> None:
        """Raises UpdateFinishedTrialError where another worker has ended the trial."""
        if retrying(self.study.tell, trial, score, state, skip_if_finished=True).state != state:
            raise UpdateFinishedTrialError

    def _abandon(self, trial: Trial, stopped: bool) -> None:
        """Gives a trial back at once. Where the storage is away, others will miss its heartbeat."""
        with contextlib.suppress(StorageInternalError, UpdateFinishedTrialError):
            if stopped:
                trial.set_user_attr(STOPPED, True)
            self.study.tell(trial, state=TrialState.FAIL)
            self._repeat(self.slots()[: self.budget])

    def _fail_stale_trials(self) -> None:
        """Ends trials whose workers give no sign of life any more."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            retrying(optuna.storages.fail_stale_trials, self.study)
        # A worker that was killed before the first sign is nothing that Optuna would find.
        running = retrying(lambda: self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        for number in [trial.number for trial in running if BEGUN not in trial.user_attrs]:
            first_seen = self._first_seen.setdefault(number, time.monotonic())
            if time.monotonic() - first_seen > self.storage.grace_period:
                with contextlib.suppress(UpdateFinishedTrialError):  # another worker was quicker
                    retrying(self.study.tell, number, state=TrialState.FAIL, skip_if_finished=True)

    def _repeat(self, taken: list[Slot]) -> None:
        """Queues a repetition for each slot whose trial broke off."""
        for slot in taken:
            if slot.holder is None:
                self._log.info(f"trial {slot.trials[-1].number}  broke off before its end, and is repeated")
                retrying(self.study.enqueue_trial, slot.params, user_attrs={REPEATS: slot.number})

    def _begin(self, trial: Trial) -> dict[str, object]:
        """Draws the trial's hyper-parameters. Raises WithdrawnError where it should not be trained."""
        retrying(trial.set_user_attr, BEGUN, f"{socket.gethostname()} {os.getpid()}")
        params = {key: self._suggest(trial, key, values) for key, values in self.space.items()}
        found = self.slots()
        mine = next((slot for slot in found[: self.budget] if slot.is_held_by(trial.number)), None)
        if mine is None:
            self._withdraw(trial, "its slot is taken")
        if mine.number == trial.number:
            self._refuse_repeated(trial, params, [slot.params for slot in found if slot.number < mine.number])
        return params

    def _suggest(self, trial: Trial, key: str, values: Values) -> object:
        if not isinstance(values, Range):
            return retrying(trial.suggest_categorical, key, values)
        suggest = trial.suggest_int if is_whole(key) else trial.suggest_float
        return retrying(suggest, key, values.low, values.high, log=values.log)

    def _withdraw(self, trial: Trial, reason: str) -> None:
        retrying(trial.set_user_attr, WITHDRAWN, reason)
        raise WithdrawnError(reason)

    def _refuse_repeated(self, trial: Trial, params: dict[str, object], tried: list[dict[str, object]]) -> None:
        """Withdraws a trial that an earlier slot is about already. Of a small space, another takes its turn."""
        if params not in tried:
            return
        if count(self.space) <= SMALL:
            untried = [params for params in combinations(self.space) if params not in tried]
            if untried:
                retrying(self.study.enqueue_trial, random.SystemRandom().choice(untried))
        self._withdraw(trial, "repeats an earlier trial")

    def _train(self, trial: Trial, config: Config) -> tuple[TrialState, float | None]:
        """Trains with a trial's config. Returns how it ended, and the validation score of its best epoch."""
        experiment = self.experiment.with_config(config)
        start = time.perf_counter()
        best, epochs, score, note = None, 0, float("nan"), ""
        state = TrialState.COMPLETE
        try:
            training, train, valid = experiment.new_training(self.seed)
            fit = experiment.kind.fit
            for result in fit(training, train, valid, config, experiment.metrics):
                epochs = result.epoch
                if result.is_best:
                    best, score = result, result.valid[self.key]
                if np.isfinite(result.valid[self.key]):
                    retrying(trial.report, result.valid[self.key], result.epoch)
                if not training.is_over(config) and retrying(trial.should_prune):
                    state = TrialState.PRUNED
                    break
            if not np.isfinite(score):  # a correlation may be undefined
                state, note = TrialState.PRUNED, f"{self.key} is undefined"
        except DivergedError as error:  # an outcome too: these values are unfit
            state, note = TrialState.PRUNED, str(error)
        seconds = time.perf_counter() - start
        found = {
            "state": state.name.lower(),
            "valid": best.valid if best else {},
            "best_epoch": best.epoch if best else None,
            "epochs": epochs,
            "seconds": round(seconds, 2),
            "seed": self.seed,
            "worker": trial.user_attrs[BEGUN],
            "device": self.experiment.provenance.device,
            "threads": self.experiment.provenance.threads,
            "note": note,
            "config": dataclasses.asdict(config),
        }
        retrying(trial.set_user_attr, RESULT, found)
        words = note or f"{self.key} {score:.4f} at epoch {best.epoch} of {epochs}"
        params = " ".join(f"{key}={value}" for key, value in trial.params.items() if key in varied(self.space))
        self._log.info(f"trial {trial.number}  {found['state']}  {words}  {seconds:.1f} s  {params}")
        return state, score if state == TrialState.COMPLETE else None


def open_sweep(
    experiment: Experiment,
    configure: Callable[[dict[str, object]], Config],
    *,
    fixed: dict[str, object],
    seed: int,
    times: int,
    url: str | None,
    heartbeat: int,
    results: Path,
    sampler: str = "random",
    pruner: str = "none",
) -> Sweep:
    """Opens a sweep's storage and study. Raises UserError where they can't be had.

    configure: a trial's hyper-parameters -> its config. fixed: hyper-parameters that aren't searched. url: of the storage; None: an
    SQLite file below `results`. heartbeat: seconds.
    """
    database = sweep_file(results, experiment.model_name, experiment.dataset.name, "tune.db").resolve()
    if url is None:
        make_folder(database.parent)
    storage = open_storage(url or f"sqlite:///{database}", heartbeat)
    space = space_of(experiment.dataset.name, fixed)
    try:
        return Sweep(experiment, space, configure, seed, times, storage, sampler, pruner)
    except StorageInternalError as error:
        reason = first_line(getattr(error.__cause__, "orig", None) or error)
        raise UserError(
            f"{storage.engine.url}: can't hold a sweep ({reason}); name another database with --storage"
        ) from None
