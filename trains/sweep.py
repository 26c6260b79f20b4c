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
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

import optuna
import torch
from optuna.exceptions import StorageInternalError
from optuna.trial import Trial, TrialState

from config.command_line import chosen_settings
from config.config_regression import Config
from config.config_tune import Range, Space, Values, combinations, count, space_of, varied
from trains import TRAINERS
from trains.budget import BEGUN, REPEATS, RESULT, WITHDRAWN, Place, places
from trains.experiment import Experiment, base_config, open_experiment
from utils.functions import DivergedError, make_folder
from utils.metrics import lower_is_better
from utils.signals import Stopped, held_back, stop_if_asked
from utils.storage import Storage, open_storage, patiently

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
    """A trial gave up its place before it began."""


class BrokenOffError(Exception):
    """A signal to stop came amid a trial. Unlike Stopped, Optuna takes note of it."""


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
        identity = json.dumps([self.experiment.decisive, fixed, space, self.seed], sort_keys=True)
        shared = self.experiment.decisive
        return f"{shared['dataset']}-{shared['model']}-regression-{hashlib.sha1(identity.encode()).hexdigest()[:10]}"

    def places(self) -> list[Place]:
        """All places that trials have taken, in order; the first `budget` of them count."""
        return places(patiently(lambda: self.study.get_trials(deepcopy=False)))

    def work(self, log: logging.Logger, after_each: Callable[[], None]) -> None:
        """Trains until the budget is finished, whoever finished it. after_each: is called after each trial of this worker."""
        self._log = log
        with held_back():
            while True:
                self._fail_the_dead()
                taken = self.places()[: self.budget]
                self._repeat(taken)
                if sum(place.is_finished for place in taken) == self.budget:
                    return
                if len(taken) < self.budget or any(place.is_waiting for place in taken):
                    patiently(self._run_trial)
                    after_each()
                else:  # all are under way elsewhere; but any of their workers may die
                    time.sleep(2)
                stop_if_asked()

    def _run_trial(self) -> None:
        self._is_told_only = False
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(WithdrawnError,))
        except BrokenOffError as broken_off:
            self._repeat(self.places()[: self.budget])
            raise broken_off.__cause__ from None
        except StorageInternalError:
            raise
        except Exception:
            # Where another worker has changed a trial's state, Optuna takes no value for it, and fails in several ways.
            if not self._is_told_only:
                raise
            self._log.info(
                "a trial of this worker was taken for dead, and is repeated: --heartbeat was too short for it"
            )

    def _fail_the_dead(self) -> None:
        """Ends trials whose workers give no sign of life any more."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            patiently(optuna.storages.fail_stale_trials, self.study)
        # A worker that was killed before the first sign is nothing that Optuna would find.
        running = patiently(lambda: self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        for number in [trial.number for trial in running if BEGUN not in trial.user_attrs]:
            first_seen = self._first_seen.setdefault(number, time.monotonic())
            if time.monotonic() - first_seen > self.storage.grace_period:
                patiently(self._fail, number)

    def _repeat(self, taken: list[Place]) -> None:
        """Queues a repetition for each place whose trial broke off."""
        for place in taken:
            if place.holder is None:
                self._log.info(f"trial {place.trials[-1].number}  broke off before its end, and is repeated")
                settings = {"params": place.params, "user_attrs": {REPEATS: place.number}}
                patiently(lambda settings=settings: self.study.enqueue_trial(**settings))

    def _fail(self, number: int) -> None:
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):  # another worker was quicker
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def _objective(self, trial: Trial) -> float:
        try:
            return self._train(trial, self.configure(self._begin(trial)))
        except optuna.exceptions.UpdateFinishedTrialError:
            self._is_told_only = True
            raise
        except Stopped as stop:
            raise BrokenOffError from stop

    def _begin(self, trial: Trial) -> dict[str, object]:
        """Takes the trial's place, and draws its hyper-parameters. Raises WithdrawnError where it should not be trained."""
        # At once: of a trial whose heart has never beaten, nobody misses the next beat.
        self.storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(BEGUN, f"{socket.gethostname()} {os.getpid()}")
        params = {key: self._suggest(trial, key, values) for key, values in self.space.items()}
        found = self.places()
        mine = next((place for place in found[: self.budget] if place.is_held_by(trial.number)), None)
        if mine is None:
            self._withdraw(trial, "its place is taken")
        if mine.number == trial.number:
            self._refuse_repeated(trial, params, [place.params for place in found if place.number < mine.number])
        return params

    def _suggest(self, trial: Trial, key: str, values: Values) -> object:
        if not isinstance(values, Range):
            return trial.suggest_categorical(key, values)
        whole = isinstance(getattr(self.experiment.config, key), int)
        suggest = trial.suggest_int if whole else trial.suggest_float
        return suggest(key, values.low, values.high, log=values.log)

    def _withdraw(self, trial: Trial, reason: str) -> None:
        trial.set_user_attr(WITHDRAWN, reason)
        raise WithdrawnError(reason)

    def _refuse_repeated(self, trial: Trial, params: dict[str, object], tried: list[dict[str, object]]) -> None:
        """Withdraws a trial that an earlier place is about already. Of a small space, another takes its turn."""
        if params not in tried:
            return
        if count(self.space) <= SMALL:
            untried = [params for params in combinations(self.space) if params not in tried]
            if untried:
                self.study.enqueue_trial(random.SystemRandom().choice(untried))
        self._withdraw(trial, "repeats an earlier trial")

    def _train(self, trial: Trial, config: Config) -> float:
        """Trains with a trial's config. Returns the validation score of its best epoch."""
        experiment = self.experiment.with_config(config)
        start = time.perf_counter()
        best, epochs, note, pruned = None, 0, "", False
        try:
            training, train, valid = experiment.new_training(self.seed)
            fit = TRAINERS[experiment.model_name]
            for result in fit(training, train, valid, config, experiment.metrics):
                epochs = result.epoch
                best = result if result.is_best else best
                patiently(trial.report, result.valid[self.key], result.epoch)
                pruned = not training.is_over(config) and patiently(trial.should_prune)
                if pruned:
                    break
        except DivergedError as error:  # an outcome too: these values are unfit
            note, pruned = str(error), True
        seconds = time.perf_counter() - start
        found = {
            "state": "pruned" if pruned else "complete",
            "valid": best.valid if best else {},
            "best_epoch": best.epoch if best else None,
            "epochs": epochs,
            "seconds": round(seconds, 2),
            "seed": self.seed,
            "worker": trial.user_attrs[BEGUN],
            **{name: experiment.conditions[name] for name in ("device", "threads")},
            "note": note,
            "config": dataclasses.asdict(config),
        }
        patiently(trial.set_user_attr, RESULT, found)
        self._is_told_only = True  # what goes wrong from here on is not the training's
        score = f"{self.key} {best.valid[self.key]:.4f} at epoch {best.epoch} of {epochs}" if best else note
        params = " ".join(f"{key}={value}" for key, value in trial.params.items() if key in varied(self.space))
        self._log.info(f"trial {trial.number}  {found['state']}  {score}  {seconds:.1f} s  {params}")
        if pruned:
            raise optuna.TrialPruned
        return best.valid[self.key]


def open_sweep(args: Namespace, device: torch.device) -> Sweep:
    """Opens and checks all that the flags name. Raises UserError where something is amiss."""
    experiment = open_experiment(args, device, splits=("train", "valid"))
    results = args.res_save_dir / "tunes"
    if args.storage is None:
        make_folder(results)
    database = results.resolve() / f"{experiment.dataset.name}-{experiment.model_name}-regression-tune.db"
    return Sweep(
        experiment,
        space_of(experiment.dataset.name, chosen_settings(args)),
        configure=lambda params: base_config(args, **params),
        seed=args.seeds[0],
        times=args.tune_times,
        storage=open_storage(args.storage or f"sqlite:///{database}", args.heartbeat),
        sampler=args.sampler,
        pruner=args.pruner,
    )
