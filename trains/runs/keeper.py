"""Trains a seed and keeps its files: checkpoint, record, CSV row, and the state of its training until that is finished."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from config.command_line import RunOptions
from config.config_regression import Config
from data.schema import EXTRACTORS
from models.hub import LABELS
from trains.runs.checkpoint import add_test_scores, load_checkpoint, read_metadata, save_checkpoint
from trains.runs.experiment import Experiment
from trains.runs.figures.quality import label_quality
from trains.runs.figures.run_data import EPOCH_LABELS, FEATURES, HISTORY, PREDICTIONS, read_labels
from trains.runs.figures.tensorboard import Board
from trains.runs.provenance import MACHINE
from trains.runs.record import predictions, record_folder, with_epoch, write_arrays
from trains.runs.report import brief
from trains.runs.results import add_seed_row, finished_rows, read_rows, write_rows
from trains.runs.training_state import State, capture, load_state, restore, save_state
from trains.self_mm import EpochResult
from trains.training import Training
from utils.errors import GPU_IS_FULL, DivergedError, UserError, printable, translate
from utils.files import clear_leftovers, current_folder, exclusive_lock, remove
from utils.metrics import lower_is_better
from utils.signals import Stopped, deferred_signals

STATE = "training.safetensors"
OTHERWISE = "or choose another --model_save_dir, or remove the file to train from the start"
FINISHED = "finished"  # instead of a state: nothing is left to train


def train_seed(experiment: Experiment, seed: int, keeper: "Keeper | None") -> dict[str, float]:
    """Trains a seed, or the rest of it. Returns its best epoch's test metrics. On ranks other than 0: no keeper, {}."""
    with deferred_signals(), keeper.session() if keeper else contextlib.nullcontext():
        state = experiment.ranks.broadcast_object(keeper.find_state() if keeper else None)
        if state == FINISHED:
            return keeper.finished_test() if keeper else {}
        training, train, valid = experiment.new_training(seed)
        if state is not None:
            restore(training, *state)
        del state  # frees its memory
        if keeper:
            keeper.begin(training)
        for result in experiment.fit(training, train, valid, experiment.config, experiment.metrics):
            if keeper:
                keeper.after_epoch(result)
        return keeper.finish() if keeper else {}


class Keeper:
    def __init__(self, experiment: Experiment, seed: int, options: RunOptions, seeds_csv: Path, log: logging.Logger):
        self.experiment, self.seed, self.options, self.seeds_csv, self.log = experiment, seed, options, seeds_csv, log
        self.provenance = experiment.provenance
        self.default = options.model_save_dir / f"{self.provenance.model}-{self.provenance.dataset}-regression-{seed}"
        self.named = self.default.with_name(self.default.name + self.provenance.suffix)
        self.training: Training | None = None
        self.tasks = experiment.config.tasks
        self.name = f"seed {seed}" + f" {self.tasks}" * (self.tasks != Config.tasks)
        self._choose_folder()

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Locks the seed, or raises UserError. Saves the state on a signal; notes on an error what is saved."""
        in_use = "another run is training this seed; wait for it, or choose another --model_save_dir"
        with exclusive_lock(self.named, in_use):
            self._choose_folder()  # again: another run may just have finished
            clear_leftovers(self.state)
            try:
                yield
            except Stopped as stop:
                if self.training and stop.deferred:
                    self._save_state()
                    self._log(f"{stop.name}: stopped after {self.training}; the state is saved")
                raise
            except Exception as error:
                if self.training and (note := self._note(error)):
                    error.add_note(f"{self.name}: {note}")
                raise

    def _choose_folder(self) -> None:
        own, self.folder = self.provenance.config_hash, self.named
        if current_folder(self.named).exists() and read_metadata(self.named).get("config_hash") != own:
            self.folder = self.named.with_name(f"{self.named.name}-{own}")  # words do not tell the two apart
        self.state = self.folder.with_name(f"{self.folder.name}-{STATE}")
        if self.state.exists() and not self.options.resume:
            raise UserError(f"{self.state}: an unfinished training; add --resume to continue it, {OTHERWISE}")

    def find_state(self) -> State | str | None:
        """The state to resume, FINISHED or None. Raises UserError for a bad CSV, or a state of another training."""
        # Even without --resume, a damaged CSV is reported before training, not after.
        rows = finished_rows(self.seeds_csv, self.provenance.model, self.seed)
        is_finished = self.provenance.config_hash in rows and self.options.resume
        if self.state.exists():
            tensors, values = load_state(self.state)
            old, new = values["provenance"], asdict(self.provenance)
            changes = [f"{key} {old.get(key)}, now {new[key]}" for key in new if old.get(key, new[key]) != new[key]]
            if old["config_hash"] == new["config_hash"]:
                if changes:
                    self._log(f"results may differ in the last bits from an uninterrupted run's: {'; '.join(changes)}")
                return tensors, values
            if not is_finished:
                what = f"a training with other settings or data ({'; '.join(changes)})"
                raise UserError(f"--resume: {self.state}: {what}; repeat its flags, {OTHERWISE}")
        if is_finished:
            self._log(f"already finished: metrics taken from {self.seeds_csv}; without --resume it would train again")
        elif self.provenance.config_hash in rows:
            self._log(f"already finished: trains again, into {self.folder}; --resume would skip it")
        elif self.options.resume and (states := sorted(self.default.parent.glob(f"{self.default.name}-*{STATE}"))):
            self._log(f"nothing to resume with these settings; unfinished: {', '.join(path.name for path in states)}")
        return FINISHED if is_finished else None

    def finished_test(self) -> dict[str, float]:
        """The test's metrics, from the seed's row. Raises UserError if the row is missing or damaged."""
        try:
            row = finished_rows(self.seeds_csv, self.provenance.model, self.seed)[self.provenance.config_hash]
            names = dict.fromkeys([*self.experiment.metric_names, *self.experiment.mean_guess])
            return {name: float(row[name] or "nan") for name in names}
        except (KeyError, ValueError) as error:
            problem = f"no row of seed {self.seed}, or a damaged one ({error})"
            raise UserError(f"{self.seeds_csv}: {problem}; train it again") from None

    def begin(self, training: Training) -> None:
        """Call before the first epoch, with a new or restored training. Raises UserError if its best epoch is gone."""
        if training.at_best:
            self._save_checkpoint(training)
        elif epoch := training.best_epoch:
            expected = {"config_hash": self.provenance.config_hash, "seed": self.seed, "epoch": epoch}
            if not current_folder(self.folder).exists() or not expected.items() <= read_metadata(self.folder).items():
                problem = f"the checkpoint of the best epoch so far, {epoch}, is gone"
                raise UserError(f"--resume: {self.folder}: {problem}; remove {self.state} to train from the start")
        if training.epochs or training.windows:
            self._log(f"resumes after {training}")
        self.record = record_folder(self.experiment, self.options.res_save_dir)
        for name in () if training.epochs else (HISTORY, PREDICTIONS, EPOCH_LABELS, FEATURES):
            remove(self._file(name))
        rows = read_rows(self._file(HISTORY), ["epoch"]) if training.epochs else pd.DataFrame({"epoch": []})
        self.epochs = rows[pd.to_numeric(rows["epoch"], errors="coerce") <= training.epochs]  # the rows of history.csv
        kept = self.options.save_labels and training.epochs and self._file(EPOCH_LABELS).exists()
        self.labels = read_labels(self._file(EPOCH_LABELS), training.epochs) if kept else {}  # the arrays of labels.npz
        self.board = Board(self.options, self.folder.name, training.epochs) if self.options.tensorboard else None
        self._start = time.perf_counter() - training.seconds
        self._last_save = time.monotonic()
        self.training = training

    def after_epoch(self, result: EpochResult) -> None:
        """Adds a row to history.csv; saves the best epoch so far, and the state then and every `save_every` minutes."""
        waited = f"({result.epoch - result.best_epoch} of {self.experiment.config.early_stop})"
        text = f"epoch {result.epoch:2d} {result.seconds:4.1f} s train {result.train_loss:.4f}"
        scores = brief(result.valid, self.experiment.config.KeyEval)
        self._log(f"{text}  valid {scores}  {'best' if self.training.at_best else waited}")
        row = {"epoch": result.epoch, "seconds": round(result.seconds, 3), "train_loss": result.train_loss}
        row |= {f"valid_{name}": value for name, value in result.valid.items()}
        labels, train = self._labels(self.training), self.experiment.store.splits["train"]
        if self.experiment.config.unimodal_labels == "generated":
            row |= label_quality(labels, train.labels, self.experiment.config.H, [self.seed, result.epoch])
        self.epochs = pd.concat([self.epochs, pd.DataFrame([row]).astype(object)], ignore_index=True)
        self._keep(HISTORY, lambda path: write_rows(self.epochs, path))
        if self.options.save_labels:
            self.labels = with_epoch(self.labels, result.epoch, train.ids, labels)
            self._keep(EPOCH_LABELS, lambda path: write_arrays(path, self.labels))
        if self.board:
            self.board.add_epoch(row, labels)
        if self.training.at_best or time.monotonic() - self._last_save >= 60 * self.options.save_every:
            self._save_state()
        # After the state: at any moment, the best epoch is in the checkpoint or in the state.
        if self.training.at_best:
            self._save_checkpoint(self.training)

    def finish(self) -> dict[str, float]:
        """Tests the best epoch, writes the row, and removes the state. Returns the test's metrics."""
        training, config, key = self.training, self.experiment.config, self.experiment.config.KeyEval
        lasted = training.epochs - training.best_epoch
        reason = f"no better {key} for {lasted} epochs" if lasted >= config.early_stop else "that was max_epochs"
        self._log(f"ends after epoch {training.epochs}: {reason}; the best, {training.best_epoch}, is in {self.folder}")
        seconds = time.perf_counter() - self._start
        model = load_checkpoint(self.folder, self.experiment.network)
        test, scores = self.experiment.test(model)
        add_test_scores(self.folder, test)
        labels = pd.read_csv(current_folder(self.folder) / LABELS)
        clips, features = predictions(self.experiment, model, labels, scores, self.options.save_predictions)
        self._keep(PREDICTIONS, lambda path: write_rows(clips, path))
        if features:
            self._keep(FEATURES, lambda path: write_arrays(path, features))
        if self.board:
            self.board.close(asdict(config), test)
        row = {key: getattr(self.provenance, key) for key in ("model", "dataset", "settings")}
        row |= {"seed": self.seed} | test
        row[f"valid_{key}"] = training.best_score if lower_is_better(key) else -training.best_score
        row |= {"best_epoch": training.best_epoch, "epochs": training.epochs}
        row |= {"seconds": round(seconds, 2), "seconds_per_epoch": round(seconds / training.epochs, 2)}
        add_seed_row(self.seeds_csv, row | asdict(self.provenance), replace=self.options.resume)
        remove(self.state)
        self._log(f"test {brief(test, key)}")
        return test

    def _note(self, error: Exception) -> str:
        """What is saved, and how to resume. If a GPU is full, saves the state first, unless a window is half done."""
        if isinstance(error, DivergedError):
            epoch = self.training.best_epoch
            return f"last good checkpoint: {f'epoch {epoch}, in {self.folder}' if epoch else 'none yet'}"
        resume, fault = "--resume continues from the last saved state", translate(error)
        if fault is None or isinstance(error, UserError):
            return ""
        if GPU_IS_FULL not in str(fault):
            return resume
        if self.training.between_windows:
            self._save_state()
            resume = f"--resume continues after {self.training}"
        window = self.experiment.config.batch_size * self.experiment.config.update_epochs
        clips = min(self.experiment.config.max_clips_per_pass or window, window)
        if clips == 1:
            return f"choose another GPU with --gpu_ids; {resume}"
        return f"add --max_clips_per_pass {clips // 2} (now {clips}; the gradient stays the same); {resume}"

    def _save_state(self) -> None:
        self.training.seconds = time.perf_counter() - self._start
        tensors, values = capture(self.training)
        save_state(self.state, tensors, values | {"provenance": asdict(self.provenance)})
        self._last_save = time.monotonic()

    def _file(self, name: str) -> Path:
        return self.record / f"{self.seed}-{name}"

    def _keep(self, name: str, write: Callable[[Path], None]) -> None:
        """Writes a file of the record. One that a spreadsheet has open, for example, does not stop the training."""
        try:
            write(self._file(name))
        except UserError as error:
            self._log(f"continues without it: {error}")

    def _labels(self, training: Training) -> dict[str, np.ndarray]:
        return {task: state.labels.numpy(force=True).copy() for task, state in training.ulgm.tasks.items()}

    def _save_checkpoint(self, training: Training) -> None:
        table = pd.DataFrame({"id": self.experiment.store.splits["train"].ids, **self._labels(training)})
        metadata = {key: value for key, value in asdict(self.provenance).items() if key not in MACHINE}
        metadata |= {"seed": self.seed, "epoch": training.best_epoch, EXTRACTORS: self.experiment.store.extractors}
        metadata["clips"] = {name: len(clips) for name, clips in self.experiment.clips.items()}
        save_checkpoint(training.model, self.folder, metadata, self.experiment.encoder.tokenizer, table)

    def _log(self, text: str) -> None:
        self.log.info(printable(f"{self.name}  {text}"))
