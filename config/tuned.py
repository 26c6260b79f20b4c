"""Reads the hyper-parameters of a sweep's best.json (from trains/sweep/report.py) or a checkpoint's config.json."""

import json
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError, first_line


@dataclass(frozen=True)
class Tuned:
    path: Path
    hyper_parameters: dict[str, object]
    threads: int | None  # CPU threads; the same seed gives the same score to the last bit only with as many
    origin: str  # study, trial and score, for the log
    trained_on: dict[str, object]  # dataset, features and encoder of the sweep


def sweep_file(results: Path, model: str, dataset: str, ending: str) -> Path:
    """The path of a sweep's tune.csv, tune.db, best.json or plot. results: --res_save_dir."""
    return results / "tunes" / f"{dataset}-{model}-regression-{ending}"


def read_tuned(path: Path, model: str, dataset: str) -> Tuned:
    """Raises UserError if the file is missing, damaged, or belongs to another model or dataset."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if "hyper_parameters" not in values:
            raise ValueError("no hyper_parameters, as best.json has them; MMSA's own config is --preset mmsa")
        hyper_parameters, trained_on = {**values["hyper_parameters"]}, {**values.get("trained_on", {})}
        threads = values.get("threads")
        if threads is not None and (type(threads) is not int or not 1 <= threads <= 1024):
            raise ValueError(f"threads is {threads!r}")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a sweep (--is_tune) writes one, or name one with --params") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a readable file of hyper-parameters ({first_line(error)})") from None
    for key, expected in (("model", model), ("dataset", dataset)):
        if values.get(key, expected) != expected:
            raise UserError(f"{path}: tuned for {key} {first_line(values[key])}, not {expected}")
    facts = [key for key in ("study", "trial", "seed", "threads", "device", "score") if key in values]
    origin = ", ".join(f"{key} {values[key]}" for key in facts) or "origin unknown"
    return Tuned(path, hyper_parameters, threads, first_line(origin), trained_on)
