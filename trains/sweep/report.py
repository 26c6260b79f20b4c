"""What a sweep leaves: a CSV of its trials, the best one's hyper-parameters, a closing table, and pictures."""

import contextlib
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from config.config_tune import varied
from config.tuned import sweep_file
from trains.runs.results import read_rows, write_rows
from trains.sweep.budget import RESULT
from trains.sweep.study import Sweep
from utils.errors import UserError, first_line
from utils.files import exclusive_lock, replacing
from utils.metrics import lower_is_better

SHOWN = 5  # trials in the closing table
COLUMNS = 5  # of slices
KEY = ["study", "trial"]  # of a row


class SweepReport:
    """The files of a sweep. They are made of the study alone, as often as anyone likes, by any worker."""

    def __init__(self, sweep: Sweep, results: Path, log: logging.Logger):
        """results: --res_save_dir."""
        shared = sweep.experiment.provenance.data_and_encoder()
        files = results, shared["model"], shared["dataset"]
        self.sweep, self.study, self.log = sweep, sweep.study, log
        self.sign = 1 if lower_is_better(sweep.key) else -1
        self.csv, self.best_file = sweep_file(*files, "tune.csv"), sweep_file(*files, "best.json")
        self.pictures = {name: sweep_file(*files, f"{name}.png") for name in ("history", "importances", "slices")}

    def finished(self) -> list[FrozenTrial]:
        """In order; those that hold the budget's slots."""
        counted = self.sweep.slots()[: self.sweep.budget]
        return [slot.holder for slot in counted if slot.is_finished and RESULT in slot.holder.user_attrs]

    def best(self, finished: list[FrozenTrial]) -> list[FrozenTrial]:
        """The complete ones, the best first."""
        complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
        return sorted(complete, key=lambda trial: self.sign * trial.value)

    def write(self) -> None:
        """Writes CSV and best trial, and logs how far the sweep is. Rows of other studies in the CSV stay."""
        with exclusive_lock(self.csv):
            finished = self.finished()
            best = self.best(finished)
            others = read_rows(self.csv, KEY)
            others = others[others["study"] != self.study.study_name]
            rows = pd.DataFrame([self._row(trial) for trial in finished]).astype(object)
            if len(rows):
                write_rows(pd.concat([others, rows], ignore_index=True) if len(others) else rows, self.csv)
            if best:
                self._write_best(best[0])
        score = f", best {self.sweep.key} {best[0].value:.4f} by trial {best[0].number}" if best else ""
        self.log.info(f"{len(finished)} of {self.sweep.budget} trials finished{score}")

    def _write_best(self, trial: FrozenTrial) -> None:
        """Writes a trial's hyper-parameters, unless those of a better trial are there, of another study on the same data."""
        new = self._tuned(trial)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none there, or damaged
            old = json.loads(self.best_file.read_text(encoding="utf-8"))
            shared = [name for name in ("trained_on", "seed", "study") if old[name] == new[name]]
            better = (old["score"][1] - trial.value) * self.sign < 0
            if shared == ["trained_on", "seed"] and old["score"][0] == self.sweep.key and better:
                self.log.info(
                    f"{self.best_file} keeps a better trial of another sweep ({old['study']}, {old['score'][1]:.4f})"
                )
                return
        with replacing(self.best_file) as work:
            work.write_text(json.dumps(new, indent=2), encoding="utf-8")

    def close(self) -> None:
        """At a sweep's end: the files, a table and pictures."""
        self.write()
        self.log.info(self.table())
        drawn = self.draw()
        words = f"trials in {self.csv}, pictures in {', '.join(path.name for path in drawn)} beside it"
        self.log.info(f"{words}; the best one's hyper-parameters, for --preset tuned, in {self.best_file}")

    def _row(self, trial: FrozenTrial) -> dict[str, object]:
        found = trial.user_attrs[RESULT]
        row = {"study": self.study.study_name, "trial": trial.number, "state": found["state"], **trial.params}
        row |= {f"valid_{name}": value for name, value in found["valid"].items()}
        names = ("best_epoch", "epochs", "seconds", "seed", "device", "threads", "worker", "note")
        return row | {name: found[name] for name in names}

    def _tuned(self, trial: FrozenTrial) -> dict[str, object]:
        found, shared = trial.user_attrs[RESULT], self.sweep.experiment.provenance.data_and_encoder()
        return {
            "dataset": shared["dataset"],
            "model": shared["model"],
            "study": self.study.study_name,
            "trial": trial.number,
            "score": [self.sweep.key, trial.value],
            **{name: found[name] for name in ("seed", "threads", "device")},
            "trained_on": shared,
            "hyper_parameters": found["config"],
        }

    def table(self) -> str:
        """The best trials side by side: what they came to, and where they differ from the others."""
        best = self.best(self.finished())[:SHOWN]
        columns = {}
        for trial in best:
            found = trial.user_attrs[RESULT]
            scores = {f"valid {name}": f"{value:.4f}" for name, value in found["valid"].items()}
            course = {"best epoch": found["best_epoch"], "epochs": found["epochs"], "seconds": found["seconds"]}
            params = {key: trial.params[key] for key in varied(self.sweep.space)}
            columns[f"trial {trial.number}"] = {**scores, **course, **params}
        if not columns:
            return "no trial is complete"
        return f"the best of {self.study.study_name}\n{pd.DataFrame(columns).to_string()}"

    def draw(self) -> list[Path]:
        """The study's history, the importances of its hyper-parameters, and slices through it, as PNG files."""
        import matplotlib

        matplotlib.use("Agg")  # needs no screen
        import matplotlib.pyplot as plt
        from optuna.visualization import matplotlib as pictures

        score = f"validation {self.sweep.key}"
        chosen = {"params": varied(self.sweep.space), "target_name": score}
        plots = {
            "history": lambda: pictures.plot_optimization_history(self.study, target_name=score).figure,
            "importances": lambda: pictures.plot_param_importances(self.study, **chosen).figure,
            "slices": lambda: _in_rows(pictures.plot_slice(self.study, **chosen)),
        }
        files = []
        for name, plot in plots.items():
            path = self.pictures[name]
            with warnings.catch_warnings(), exclusive_lock(self.csv):
                warnings.simplefilter("ignore")  # that this part of Optuna may change
                try:
                    figure = plot()
                except (ValueError, RuntimeError) as error:  # too few trials, or all of one score, say nothing
                    self.log.info(f"no picture of the {name} ({first_line(error)})")
                    continue
                try:
                    with replacing(path) as work:
                        figure.savefig(work, format="png", dpi=120, bbox_inches="tight")
                except UserError as error:  # the trials are there all the same
                    self.log.info(f"no picture of the {name}: {error}")
                    continue
            plt.close("all")
            files.append(path)
        return files


def _in_rows(axes: np.ndarray) -> Figure:
    """Optuna's slices stand in one long line."""
    slices = np.atleast_1d(axes)
    figure = slices[0].figure
    rows = -(-len(slices) // COLUMNS)
    figure.set_size_inches(3 * COLUMNS, 2.6 * rows)
    grid = figure.add_gridspec(rows, COLUMNS, hspace=0.5)
    for one, slot in zip(slices, grid, strict=False):
        one.set_subplotspec(slot)
    return figure
