"""The files that a sweep leaves: a CSV of its trials, the best trial's hyper-parameters, and plots; and a closing table."""

import json
import logging
import warnings

import pandas as pd
from optuna.trial import FrozenTrial

from config.config_tune import varied
from trains.runs.results import read_rows, write_rows
from trains.sweep.storage import storage_errors
from trains.sweep.study import RESULT, Sweep, short
from utils.errors import UserError, csv_text, first_line
from utils.files import exclusive_lock, replacing
from utils.metrics import lower_is_better

SHOWN = 5  # trials in the closing table


class SweepReport:
    """Writes a sweep's files from its study alone: any worker may do so, at any time."""

    def __init__(self, sweep: Sweep, log: logging.Logger):
        self.sweep, self.study, self.log = sweep, sweep.study, log
        self.shared = sweep.experiment.provenance.data_and_encoder()
        self.csv, self.best = sweep.path("tune.csv"), sweep.path("best.json")

    def write(self) -> None:
        """Writes the CSV and the best trial's hyper-parameters, and logs the sweep's progress."""
        with exclusive_lock(self.csv):
            rows = self._rows()
            others = read_rows(self.csv, ["study", "trial"])
            others = others[others["study"] != self.study.study_name]
            write_rows(pd.concat([others, rows], ignore_index=True), self.csv)
            progress = f"{len(rows)} of {self.sweep.budget} trials finished"
            if "complete" in rows["state"].to_numpy():
                best = self.study.best_trial
                self._write_best(best)
                progress += f", best {self.sweep.key} {short(best.value)} by trial {best.number}"
        self.log.info(progress)

    def close(self) -> None:
        """Writes the files at the end of a sweep, with plots, and logs the table."""
        with storage_errors(self.sweep.storage):
            self.write()
            self.log.info(self._table())
            self.draw()
        self.log.info(f"trials in {self.csv}, plots beside it; the best trial, for --preset tuned, in {self.best}")

    def _rows(self) -> pd.DataFrame:
        """The study's rows of the CSV, one per finished trial."""
        rows = []
        for trial in self.sweep.finished():
            result = {key: value for key, value in trial.user_attrs[RESULT].items() if key != "config"}
            row = {"study": self.study.study_name, "trial": trial.number, "state": result.pop("state")}
            scores = {f"valid_{name}": value for name, value in result.pop("valid").items()}
            row |= trial.params | scores | result  # workers elsewhere wrote the texts
            rows.append({key: csv_text(cell) if isinstance(cell, str) else cell for key, cell in row.items()})
        return pd.DataFrame(rows).astype(object)

    def _write_best(self, trial: FrozenTrial) -> None:
        """Writes best.json, which config/tuned.py reads."""
        result = trial.user_attrs[RESULT]
        content = {key: self.shared[key] for key in ("dataset", "model")}
        content |= {"study": self.study.study_name, "trial": trial.number, "score": [self.sweep.key, trial.value]}
        content |= {key: result[key] for key in ("seed", "threads", "device")}
        content |= {"trained_on": self.shared, "hyper_parameters": result["config"]}
        with replacing(self.best) as work:
            work.write_text(json.dumps(content, indent=2), encoding="utf-8")

    def _table(self) -> str:
        """The best trials side by side: their scores, and the values that differ."""
        rows = self._rows()
        title = f"{len(rows)} trials finished, {self.sweep.budget} requested"
        if (best := rows[rows["state"] == "complete"].set_index("trial")).empty:
            return f"{title}; none is complete"
        best = best.sort_values(f"valid_{self.sweep.key}", ascending=lower_is_better(self.sweep.key), kind="stable")
        scores = [column for column in best if column.startswith("valid_")]
        shown = best[[*scores, "best_epoch", "epochs", "seconds", *varied(self.sweep.space)]].head(SHOWN)
        return f"{title}; the best of {self.study.study_name}:\n{shown.map(short).T.to_string()}"

    def draw(self) -> None:
        """Plots the study's history, the importance of its hyper-parameters, and slices through the space, as PNG files."""
        import matplotlib.pyplot as plt
        from optuna.visualization import matplotlib as plots

        plt.switch_backend("Agg")  # needs no display
        warnings.simplefilter("ignore")  # Optuna's and Matplotlib's advice on plots
        params = varied(self.sweep.space)
        of_params = {"importances": plots.plot_param_importances, "slices": plots.plot_slice}
        for name, plot in ({"history": plots.plot_optimization_history} | of_params).items():
            settings = {"params": params} if name in of_params else {}
            try:
                plot(self.study, target_name=f"validation {self.sweep.key}", **settings)
                if name == "slices" and params:
                    *slices, colour_bar = plt.gcf().axes
                    for axes in slices:
                        axes.tick_params("x", which="both", rotation=45)  # side by side, a logarithm's labels overlap
                    # Optuna leaves a share of the width before the bar: some inches beside many slices.
                    last = slices[-1].get_position()
                    colour_bar.set_position(last.translated(last.width + 0.3 / plt.gcf().get_figwidth(), 0))
                with exclusive_lock(self.csv), replacing(self.sweep.path(f"{name}.png")) as work:
                    plt.savefig(work, format="png", dpi=120, bbox_inches="tight")
            # Too few trials, equal scores or a full disk: the trials are safe all the same.
            except (ValueError, RuntimeError, UserError) as error:
                self.log.info(f"no {name}.png ({first_line(error)})")
            plt.close("all")
