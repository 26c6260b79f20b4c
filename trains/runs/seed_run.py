"""One seed's training with its files: started or resumed, saved on the way, stopped by a signal, broken off by a fault."""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from data.load_data import Windows
from data.schema import EXTRACTORS
from trains.runs.checkpoint import (
    checkpoint_folder,
    has_state,
    load_checkpoint,
    load_state,
    read_facts,
    read_state,
    save_checkpoint,
    save_state,
    state_folder,
)
from trains.runs.experiment import Experiment
from trains.runs.model_names import model_kind
from trains.runs.results import add_seed_row, finished_rows
from trains.training import Training
from utils.errors import UserError, brief
from utils.files import clear_leftovers, discard, only_writer
from utils.metrics import lower_is_better
from utils.signals import Stopped, held_back

State = tuple[dict[str, Tensor], dict]  # see Training.state
NOTHING_TO_DO = "finished"


class SeedRun:
    """One seed of an experiment: its checkpoint folder, its row in the seeds CSV, and its state until both are there."""

    def __init__(
        self, experiment: Experiment, seed: int, models: Path, seeds_csv: Path, log: logging.Logger, save_every: float
    ):
        """models: where checkpoint folders go. save_every: minutes between two savings of the state; see `_save`."""
        self.experiment, self.seed, self.seeds_csv = experiment, seed, seeds_csv
        self.log, self.save_every = log, save_every
        self.folder = checkpoint_folder(models, experiment.model_name, experiment.dataset.name, seed)
        self.state = state_folder(self.folder)
        self.identity = {"config_hash": experiment.config_hash, "seed": seed}
        self.conditions = experiment.conditions | {key: experiment.facts[key] for key in ("versions", "commit")}
        self.kept_epoch = 0  # whose checkpoint is in the folder

    def run(self, resume: bool) -> dict[str, float]:
        """Trains, tests the best epoch, and writes the row. Returns the test's metrics.

        resume: take a finished seed from its row, and go on with an unfinished one.
        """
        with only_writer(
            self.folder, "another run is training this seed; wait for it, or name another --model_save_dir"
        ):
            clear_leftovers(self.folder)
            clear_leftovers(self.state)
            rows = finished_rows(self.seeds_csv, self.experiment.model_name, self.seed)
            if resume and (row := self._finished_row(rows)):
                self.experiment.ranks.from_first(NOTHING_TO_DO)
                return self.experiment.tested(row)
            state = self._unfinished(resume)
            with held_back():
                self.experiment.ranks.from_first(state)
                training, train, valid = self.experiment.new_training(self.seed)
                self._start = time.perf_counter()
                if state is not None:
                    self._go_on(training, state)
                    del state  # its memory
                with self._faults_told(training):
                    course = self._train(training, train, valid)
                    test = self.experiment.test(
                        load_checkpoint(self.folder, model_kind(self.experiment.model_name).network)
                    )
                row = {"seed": self.seed} | test | course | self.experiment.facts | self.experiment.conditions
                add_seed_row(self.seeds_csv, row, replace=resume)
                discard(self.state)
            self.log.info(f"seed {self.seed}  test: {'  '.join(f'{name} {value:.4f}' for name, value in test.items())}")
            return test

    def finished_test(self) -> dict[str, float]:
        """What `run` returned to another process, which wrote it into the seeds CSV."""
        rows = finished_rows(self.seeds_csv, self.experiment.model_name, self.seed)
        if self.experiment.config_hash not in rows:
            raise UserError(
                f"{self.seeds_csv}: has no row of seed {self.seed} with these settings; have files changed meanwhile?"
            )
        return self.experiment.tested(rows[self.experiment.config_hash])

    def _finished_row(self, rows: dict[str, dict[str, str]]) -> dict[str, str] | None:
        """rows: the seed's, by config hash."""
        row = rows.pop(self.experiment.config_hash, None)
        if rows:
            others = ", ".join(rows)
            self.log.info(f"seed {self.seed}  rows of other settings or data are left alone (config {others})")
        if row is None or (has_state(self.state) and read_state(self.state).get("identity") == self.identity):
            return None
        there = "" if self._has_checkpoint(row.get("best_epoch")) else f"; its checkpoint isn't in {self.folder}"
        self.log.info(f"seed {self.seed}  is finished: taken from {self.seeds_csv}{there}")
        self._tell_changes(row, "the row may not be the same to the bit as today's")
        return row

    def _has_checkpoint(self, epoch: int | str | None) -> bool:
        """Whether the folder holds this run's checkpoint of an epoch, which may come from a CSV."""
        try:
            facts = read_facts(self.folder)
        except UserError:
            return False
        return str(facts.get("epoch")) == str(epoch) and all(
            facts.get(key) == self.identity[key] for key in self.identity
        )

    def _train(self, training: Training, train: Windows, valid: Windows) -> dict[str, float]:
        """Trains until it is over, and keeps the best epoch's checkpoint. Returns its validation score, and how long it took."""
        self._saved = time.monotonic()
        fit = model_kind(self.experiment.model_name).fit
        for result in fit(training, train, valid, self.experiment.config, self.experiment.metrics):
            self.log.info(f"seed {self.seed}  {result}")
            self._save(training)
        seconds = time.perf_counter() - self._start
        key = self.experiment.config.KeyEval
        return {
            f"valid_{key}": training.best_score if lower_is_better(key) else -training.best_score,
            "best_epoch": training.best_epoch,
            "epochs": training.epochs,
            "seconds": round(seconds, 2),
            "seconds_per_epoch": round(seconds / training.epochs, 2),
        }

    @contextlib.contextmanager
    def _faults_told(self, training: Training) -> Iterator[None]:
        """Where the training breaks off in this context, it is saved if it can be, and the user told what is there."""
        try:
            yield
        except Stopped as stop:
            if stop.held_back:
                self._save_state(training)
                self.log.info(f"seed {self.seed}  {stop.name}: stopped after {training}; all of it is saved")
            else:
                self.log.info(
                    f"seed {self.seed}  {stop.name}: stopped at once; what was learned since the last saving is lost"
                )
            raise
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error):
                raise UserError(self._out_of_memory(training)) from None
            if "DataLoader worker" in str(error):  # heard of by a signal, amid anything
                raise UserError(
                    f"seed {self.seed}: {brief(error)}; if it was for want of memory, --num_workers 0 needs less; --resume "
                    "goes on from the last saving"
                ) from None
            raise
        except UserError as error:
            kept = f"that of epoch {self.kept_epoch}, in {self.folder}" if self.kept_epoch else "none yet"
            raise UserError(f"seed {self.seed}, {error}; last good checkpoint: {kept}") from None

    def _save(self, training: Training) -> None:
        """At an epoch's end: its checkpoint, if it is the best so far, and the state, then or after `save_every` minutes.

        The state comes first: whenever a kill comes, the best epoch's checkpoint is there, or is the state's own model.
        """
        if training.at_best or time.monotonic() - self._saved >= 60 * self.save_every:
            self._save_state(training)
        if training.at_best:
            self._save_checkpoint(training)

    def _save_state(self, training: Training) -> None:
        training.seconds = time.perf_counter() - self._start
        tensors, values = training.state()
        save_state(self.state, tensors, values | {"identity": self.identity, "conditions": self.conditions})
        self._saved = time.monotonic()

    def _save_checkpoint(self, training: Training) -> None:
        labels = {task: state.labels.tolist() for task, state in training.ulgm.tasks.items()}
        table = pd.DataFrame({"id": self.experiment.store.splits["train"].ids, **labels})
        facts = self.experiment.facts | {"seed": self.seed, "epoch": training.best_epoch}
        facts[EXTRACTORS] = self.experiment.store.extractors
        save_checkpoint(training.model, self.folder, facts, self.experiment.encoder.tokenizer, table)
        self.kept_epoch = training.best_epoch

    def _unfinished(self, resume: bool) -> State | None:
        """The state to go on from; None where there is none. Raises UserError where it isn't this training's."""
        if not has_state(self.state):
            return None
        if not resume:
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

    def _go_on(self, training: Training, state: State) -> None:
        """Takes over a state, and sees to it that the best epoch's checkpoint is there. Raises UserError where it can't."""
        _, values = state
        try:
            training.restore(*state)
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
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
        self._tell_changes(values.get("conditions", {}), "may not be the same to the bit as without the stop")

    def _tell_changes(self, was: dict, what: str) -> None:
        now = {key: str(value) for key, value in self.conditions.items()}
        if changes := [
            f"{key} {was.get(key)}, now {now[key]}" for key in now if str(was.get(key, now[key])) != now[key]
        ]:
            self.log.info(f"seed {self.seed}  {what}: {'; '.join(changes)}")

    def _out_of_memory(self, training: Training) -> str:
        config = self.experiment.config
        window = config.batch_size * config.update_epochs
        clips = min(config.max_clips_per_pass or window, window)
        saved = "what was saved last stays" if has_state(self.state) else "nothing was learned yet"
        if training.between_windows:
            self._save_state(training)
            saved = f"all is saved that was learned up to {training}"
        advice = f"add --max_clips_per_pass {max(1, clips // 2)} (now {clips} go through at once; the gradient stays the same)"
        if clips == 1:
            advice = "choose another GPU with --gpu_ids"
        return f"seed {self.seed}: the GPU's memory is full: {advice}; {saved}: --resume goes on"


def train_along(experiment: Experiment, seed: int) -> None:
    """The part of all ranks but the first in a seed's training: they learn what it learns, and leave files and words to it."""
    with held_back():
        state = experiment.ranks.from_first()
        if state == NOTHING_TO_DO:
            return
        try:
            training, train, valid = experiment.new_training(seed)
            if state is not None:
                training.restore(*state)
                del state
            for _ in model_kind(experiment.model_name).fit(
                training, train, valid, experiment.config, experiment.metrics
            ):
                pass
        except torch.OutOfMemoryError:
            raise UserError(
                f"seed {seed}: the memory of rank {experiment.ranks.rank}'s GPU is full: lower --max_clips_per_pass (the "
                "gradient stays the same); --resume goes on from the last saving"
            ) from None
