"""Keeps a seed's files: its checkpoint, its row in the seeds CSV, and, until both are written, its state."""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from data.schema import EXTRACTORS
from trains.runs.checkpoint import checkpoint_folder, load_checkpoint, read_metadata, save_checkpoint
from trains.runs.experiment import Experiment
from trains.runs.results import add_seed_row, finished_rows
from trains.runs.training_state import (
    State,
    capture,
    has_state,
    load_state,
    read_state,
    restore,
    save_state,
    state_folder,
)
from trains.self_mm import EpochResult
from trains.training import Training
from utils.errors import GPU_IS_FULL, UserError, translate
from utils.files import clear_leftovers, exclusive_lock, remove_folder
from utils.metrics import lower_is_better
from utils.signals import Stopped

FINISHED = "finished"  # in place of a state: nothing is left to train


class NoKeeper:
    """For every rank but the first: it leaves all files to that one, which says where to begin."""

    def __init__(self, rank: int):
        self.rank = rank

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """For all that is done for the seed: an error in this context is told with its rank."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, UserError) and (fault := translate(error)):
                advice = (
                    ": lower --max_clips_per_pass (the gradient stays the same)" if GPU_IS_FULL in str(fault) else ""
                )
                error.add_note(f"on rank {self.rank}{advice}; --resume goes on from the last saving")
            raise

    def find_state(self) -> None:
        return None

    def begin(self, training: Training, state: State | None) -> None:
        if state is not None:
            restore(training, *state)

    def faults_explained(self, training: Training) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def after_epoch(self, training: Training, result: EpochResult) -> None:
        pass

    def finish(self, training: Training) -> dict[str, float]:
        return {}

    def finished_test(self) -> dict[str, float]:
        return {}


class Keeper:
    """For the first rank."""

    def __init__(
        self, experiment: Experiment, seed: int, models: Path, seeds_csv: Path, log: logging.Logger,
        save_every: float = 5, resume: bool = False,
    ):  # fmt: skip
        """models: where checkpoint folders go. save_every: minutes between two savings of the state.

        resume: take a finished seed from its row, go on with an unfinished one, and let its new row replace an older one.
        """
        self.experiment, self.seed, self.seeds_csv = experiment, seed, seeds_csv
        self.log, self.save_every, self.resume = log, save_every, resume
        self.provenance = experiment.provenance
        self.folder = checkpoint_folder(models, self.provenance.model, self.provenance.dataset, seed)
        self.state = state_folder(self.folder)
        self.identity = {"config_hash": self.provenance.config_hash, "seed": seed}
        self.kept_epoch = 0  # whose checkpoint is in the folder
        self._start = self._saved = 0.0  # of the training; of the last saving

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """For all that is done for the seed: in this context no other process trains it. Raises UserError where one does."""
        with exclusive_lock(
            self.folder, "another run is training this seed; wait for it, or name another --model_save_dir"
        ):
            clear_leftovers(self.folder)
            clear_leftovers(self.state)
            yield

    def find_state(self) -> State | str | None:
        """The state to go on from; FINISHED; None: to be trained from the beginning. Raises UserError for another's state."""
        # Read without --resume, too: a damaged CSV must be told before the training, not after it.
        rows = finished_rows(self.seeds_csv, self.provenance.model, self.seed)
        row = rows.pop(self.provenance.config_hash, None)
        if self.resume and self._is_finished(row, rows):
            return FINISHED
        if not has_state(self.state):
            return None
        if not self.resume:
            raise UserError(
                f"{self.state}: an unfinished training is there: add --resume to go on with it; or name another "
                "--model_save_dir, or remove it, to train anew"
            )
        tensors, values = load_state(self.state)
        if values.get("identity") != self.identity:
            other = (values.get("identity") or {}).get("config_hash")
            raise UserError(
                f"--resume: {self.state} is a training with other settings or data (config {other}, and the flags make "
                f"{self.identity['config_hash']}): give its flags; or name another --model_save_dir, or "
                "remove it, to train anew"
            )
        return tensors, values

    def _is_finished(self, row: dict[str, str] | None, others: dict[str, dict[str, str]]) -> bool:
        """row: the seed's with these settings. others: its rows with other settings, by config hash."""
        if others:
            self.log.info(
                f"seed {self.seed}  rows of other settings or data are left alone (config {', '.join(others)})"
            )
        if row is None or (has_state(self.state) and read_state(self.state).get("identity") == self.identity):
            return False
        there = "" if self._has_checkpoint(row.get("best_epoch")) else f"; its checkpoint isn't in {self.folder}"
        self.log.info(f"seed {self.seed}  is finished: taken from {self.seeds_csv}{there}")
        self._log_changes(row, "the row may not be the same to the bit as today's")
        return True

    def finished_test(self) -> dict[str, float]:
        """What the seed's row in the CSV says of its test. Raises UserError where there is no such row."""
        rows = finished_rows(self.seeds_csv, self.provenance.model, self.seed)
        if self.provenance.config_hash not in rows:
            raise UserError(
                f"{self.seeds_csv}: has no row of seed {self.seed} with these settings; have files changed meanwhile?"
            )
        return self.experiment.metrics_of_row(rows[self.provenance.config_hash])

    def begin(self, training: Training, state: State | None) -> None:
        """Puts a new training where the state says, with the best epoch's checkpoint in place. Raises UserError where it can't."""
        self._start = time.perf_counter()
        self._saved = time.monotonic()
        if state is None:
            return
        try:
            restore(training, *state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if translate(error):  # no memory, for example
                raise
            raise UserError(f"--resume: {self.state}: is no state of this training ({error}); remove it") from None
        self._start -= training.seconds
        if training.at_best:
            self._save_checkpoint(training)
        elif training.best_epoch:
            if not self._has_checkpoint(training.best_epoch):
                raise UserError(
                    f"--resume: {self.folder} doesn't hold the checkpoint of epoch {training.best_epoch} any more, which is "
                    f"the best of the training to go on with; remove {self.state}, to train anew"
                )
            self.kept_epoch = training.best_epoch
        self.log.info(f"seed {self.seed}  goes on after {training}")
        _, values = state
        self._log_changes(values.get("conditions", {}), "may not be the same to the bit as without the stop")

    def after_epoch(self, training: Training, result: EpochResult) -> None:
        """At an epoch's end: its checkpoint, if it is the best so far, and the state, then or after `save_every` minutes.

        The state comes first: whenever a kill comes, the best epoch's checkpoint is there, or is the state's own model.
        """
        self.log.info(f"seed {self.seed}  {_in_words(result)}")
        if training.at_best or time.monotonic() - self._saved >= 60 * self.save_every:
            self._save_state(training)
        if training.at_best:
            self._save_checkpoint(training)

    def finish(self, training: Training) -> dict[str, float]:
        """Tests the best epoch, writes the row, and gives up the state. Returns the test's metrics."""
        seconds = time.perf_counter() - self._start
        key = self.experiment.config.KeyEval
        course = {
            f"valid_{key}": training.best_score if lower_is_better(key) else -training.best_score,
            "best_epoch": training.best_epoch,
            "epochs": training.epochs,
            "seconds": round(seconds, 2),
            "seconds_per_epoch": round(seconds / training.epochs, 2),
        }
        test = self.experiment.test(load_checkpoint(self.folder, self.experiment.kind.network))
        row = {"seed": self.seed} | test | course | self.provenance.row()
        add_seed_row(self.seeds_csv, row, replace=self.resume)
        remove_folder(self.state)
        self.log.info(f"seed {self.seed}  test: {'  '.join(f'{name} {value:.4f}' for name, value in test.items())}")
        return test

    @contextlib.contextmanager
    def faults_explained(self, training: Training) -> Iterator[None]:
        """Where the training breaks off in this context, it is saved if it can be, and the error says what is there."""
        try:
            yield
        except Stopped as stop:
            if stop.deferred:
                self._save_state(training)
                self.log.info(f"seed {self.seed}  {stop.name}: stopped after {training}; all of it is saved")
            else:
                self.log.info(
                    f"seed {self.seed}  {stop.name}: stopped at once; what was learned since the last saving is lost"
                )
            raise
        except UserError as error:
            kept = f"that of epoch {self.kept_epoch}, in {self.folder}" if self.kept_epoch else "none yet"
            raise UserError(f"seed {self.seed}, {error}; last good checkpoint: {kept}") from None
        except Exception as error:
            if fault := translate(error):
                error.add_note(f"seed {self.seed}: {self._explain(fault, training)}: --resume goes on")
            raise

    def _explain(self, fault: UserError, training: Training) -> str:
        """What is saved; where a GPU is full, after saving what was learned, and after the flag that helps, with its value.

        Other faults may come in the middle of anything, where nothing fit to go on from can be saved.
        """
        saved = "what was saved last stays" if has_state(self.state) else "nothing was learned yet"
        if GPU_IS_FULL not in str(fault):
            return saved
        if training.between_windows:
            self._save_state(training)
            saved = f"all is saved that was learned up to {training}"
        config = self.experiment.config
        window = config.batch_size * config.update_epochs
        clips = min(config.max_clips_per_pass or window, window)
        if clips == 1:
            return f"choose another GPU with --gpu_ids; {saved}"
        return f"add --max_clips_per_pass {clips // 2} (now {clips} go through at once; the gradient stays the same); {saved}"

    def _save_state(self, training: Training) -> None:
        training.seconds = time.perf_counter() - self._start
        tensors, values = capture(training)
        known = {"identity": self.identity, "conditions": self.provenance.conditions()}
        save_state(self.state, tensors, values | known)
        self._saved = time.monotonic()

    def _save_checkpoint(self, training: Training) -> None:
        labels = {task: state.labels.tolist() for task, state in training.ulgm.tasks.items()}
        table = pd.DataFrame({"id": self.experiment.store.splits["train"].ids, **labels})
        facts = self.provenance.metadata() | {"seed": self.seed, "epoch": training.best_epoch}
        facts[EXTRACTORS] = self.experiment.store.extractors
        save_checkpoint(training.model, self.folder, facts, self.experiment.encoder.tokenizer, table)
        self.kept_epoch = training.best_epoch

    def _has_checkpoint(self, epoch: int | str | None) -> bool:
        """Whether the folder holds this run's checkpoint of an epoch, which may come from a CSV."""
        try:
            facts = read_metadata(self.folder)
        except UserError:
            return False
        return str(facts.get("epoch")) == str(epoch) and all(
            facts.get(key) == self.identity[key] for key in self.identity
        )

    def _log_changes(self, was: dict, what: str) -> None:
        now = {key: str(value) for key, value in self.provenance.conditions().items()}
        if changes := [
            f"{key} {was.get(key)}, now {now[key]}" for key in now if str(was.get(key, now[key])) != now[key]
        ]:
            self.log.info(f"seed {self.seed}  {what}: {'; '.join(changes)}")


def _in_words(result: EpochResult) -> str:
    telling = [name for name in result.valid if name in ("Loss", "Corr") or name.endswith("acc_2")]
    scores = "  ".join(f"{name} {result.valid[name]:.4f}" for name in telling)
    best = "  best so far" if result.is_best else ""
    return f"epoch {result.epoch:2d}  {result.seconds:5.1f} s  train {result.train_loss:.4f}  valid: {scores}{best}"
