"""Hyper-parameters that a sweep chose: a JSON file that --preset tuned and --params read.

Its format: trains/sweep/report.py. Only "hyper_parameters" is required, so a checkpoint's config.json works too.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError, first_line


@dataclass(frozen=True)
class Tuned:
    path: Path
    hyper_parameters: dict[str, object]
    threads: int | None  # CPU threads; the same seed gives the same score to the last bit only with as many
    origin: str  # study, trial, seed, score and device, for the log
    trained_on: dict[str, object]  # dataset, features and encoder of the sweep


def sweep_file(results: Path, model: str, dataset: str, ending: str) -> Path:
    """The path of a sweep's tune.csv, tune.db, best.json or plot. results: --res_save_dir."""
    return results / "tunes" / f"{dataset}-{model}-regression-{ending}"


def read_tuned(path: Path, model: str, dataset: str) -> Tuned:
    """Raises UserError if the file is missing, damaged, or belongs to another model or dataset."""
    try:
        values = {"model": model, "dataset": dataset, "threads": None} | json.loads(path.read_text(encoding="utf-8"))
        tuned_for = values["model"], values["dataset"]
        threads = values["threads"] and max(1, int(values["threads"]))
        hyper_parameters, trained_on = dict(values["hyper_parameters"]), dict(values.get("trained_on", {}))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a sweep (--is_tune) writes one, or name one with --params") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not a readable file of hyper-parameters ({first_line(error)})") from None
    if tuned_for != (model, dataset):
        raise UserError(f"{path}: tuned for {first_line(' on '.join(map(str, tuned_for)))}, not {model} on {dataset}")
    origin = "; ".join(f"{key} {values[key]}" for key in ("study", "trial", "seed", "score", "device") if key in values)
    return Tuned(path, hyper_parameters, threads, origin or "origin unknown", trained_on)
