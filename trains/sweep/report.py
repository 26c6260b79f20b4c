"""The files that a sweep leaves: a CSV of its trials, the best trial's hyper-parameters, and plots; and a closing table."""

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
from trains.sweep.storage import storage_errors
from trains.sweep.study import RESULT, Sweep
from utils.errors import UserError, first_line
from utils.files import exclusive_lock, replacing
from utils.metrics import lower_is_better

SHOWN = 5  # trials in the closing table
PLOTS_PER_ROW = 5


class SweepReport:
    """Writes a sweep's files from its study alone: any worker may do so, at any time."""

    def __init__(self, sweep: Sweep, results: Path, log: logging.Logger):
        """results: --res_save_dir."""
        self.sweep, self.log = sweep, log
        self.shared = sweep.experiment.provenance.data_and_encoder()
        self.files = {
            ending: sweep_file(results, self.shared["model"], self.shared["dataset"], ending)
            for ending in ("tune.csv", "best.json", "history.png", "importances.png", "slices.png")
        }

    def best(self) -> list[FrozenTrial]:
        """The complete trials, best first."""
        complete = [trial for trial in self.sweep.finished() if trial.state == TrialState.COMPLETE]
        return sorted(complete, key=lambda trial: trial.value, reverse=not lower_is_better(self.sweep.key))

    def write(self) -> None:
        """Writes the CSV and the best trial, and logs the sweep's progress. Keeps the CSV's rows of other studies."""
        path, study = self.files["tune.csv"], self.sweep.study.study_name
        with exclusive_lock(path):
            finished, best = self.sweep.finished(), self.best()
            others = read_rows(path, ["study", "trial"])
            others = others[others["study"] != study]
            rows = pd.DataFrame([self._row(trial) for trial in finished]).astype(object)
            if len(rows):
                write_rows(pd.concat([others, rows], ignore_index=True) if len(others) else rows, path)
            if best:
                with replacing(self.files["best.json"]) as work:
                    work.write_text(json.dumps(self._tuned(best[0]), indent=2), encoding="utf-8")
        score = f", best {self.sweep.key} {best[0].value:.4f} by trial {best[0].number}" if best else ""
        self.log.info(f"{len(finished)} of {self.sweep.budget} trials finished{score}")

    def close(self) -> None:
        """Writes the files at the end of a sweep, with plots, and logs the table."""
        with storage_errors(self.sweep.storage):
            self.write()
            self.log.info(self.table())
            self.draw()
        self.log.info(
            f"trials in {self.files['tune.csv']}, plots beside it; the best trial's hyper-parameters, for --preset tuned, in "
            f"{self.files['best.json']}"
        )

    def _row(self, trial: FrozenTrial) -> dict[str, object]:
        result = dict(trial.user_attrs[RESULT])
        del result["config"]
        row = {"study": self.sweep.study.study_name, "trial": trial.number, "state": result.pop("state")}
        scores = {f"valid_{name}": value for name, value in result.pop("valid").items()}
        return {**row, **trial.params, **scores, **result}

    def _tuned(self, trial: FrozenTrial) -> dict[str, object]:
        """The content of best.json: see config/tuned.py."""
        result = trial.user_attrs[RESULT]
        return {
            "dataset": self.shared["dataset"],
            "model": self.shared["model"],
            "study": self.sweep.study.study_name,
            "trial": trial.number,
            "score": [self.sweep.key, trial.value],
            **{name: result[name] for name in ("seed", "threads", "device")},
            "trained_on": self.shared,
            "hyper_parameters": result["config"],
        }

    def table(self) -> str:
        """The best trials side by side: their scores, and the values that differ."""
        best, title = (
            self.best()[:SHOWN],
            f"{len(self.sweep.finished())} trials finished, {self.sweep.budget} requested",
        )
        if not best:
            return f"{title}; none is complete"
        rows = pd.DataFrame([self._row(trial) for trial in best]).set_index("trial")
        scores = [column for column in rows if column.startswith("valid_")]
        rows[scores] = rows[scores].round(4)
        shown = rows[[*scores, "best_epoch", "epochs", "seconds", *varied(self.sweep.space)]]
        return f"{title}; the best of {self.sweep.study.study_name}:\n{shown.astype(object).T.to_string()}"

    def draw(self) -> None:
        """Plots the study's history, the importance of its hyper-parameters, and slices through the space, as PNG files."""
        import matplotlib

        matplotlib.use("Agg")  # needs no display
        import matplotlib.pyplot as plt
        from optuna.visualization import matplotlib as plots

        score = f"validation {self.sweep.key}"
        chosen = {"params": varied(self.sweep.space), "target_name": score}
        figures = {
            "history.png": lambda: plots.plot_optimization_history(self.sweep.study, target_name=score).figure,
            "importances.png": lambda: plots.plot_param_importances(self.sweep.study, **chosen).figure,
            "slices.png": lambda: _in_rows(plots.plot_slice(self.sweep.study, **chosen)),
        }
        for name, plot in figures.items():
            with warnings.catch_warnings(), exclusive_lock(self.files["tune.csv"]):
                warnings.simplefilter("ignore")  # these functions are experimental
                try:
                    figure = plot()
                    with replacing(self.files[name]) as work:
                        figure.savefig(work, format="png", dpi=120, bbox_inches="tight")
                # Too few trials, equal scores or a full disk: the trials are safe all the same.
                except (ValueError, RuntimeError, UserError) as error:
                    self.log.info(f"no {name} ({first_line(error)})")
            plt.close("all")


def _in_rows(axes: np.ndarray) -> Figure:
    """Optuna draws all slices in one long row."""
    slices = np.atleast_1d(axes)
    figure = slices[0].figure
    rows = -(-len(slices) // PLOTS_PER_ROW)
    figure.set_size_inches(3 * PLOTS_PER_ROW, 2.6 * rows)
    for one, cell in zip(slices, figure.add_gridspec(rows, PLOTS_PER_ROW, hspace=0.5), strict=False):
        one.set_subplotspec(cell)
    return figure
