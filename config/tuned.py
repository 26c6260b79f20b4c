"""Hyper-parameters that a sweep chose: a JSON file that --preset tuned and --params read.

    {"hyper_parameters": {...},  every field of Config
     "dataset": ..., "model": ..., "study": ..., "trial": ..., "seed": ...,
     "score": [KeyEval, its value on the validation split], "threads": ..., "device": ..., "trained_on": {...}}

Only the first is needed, so that a checkpoint's config.json will do.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError, first_line


@dataclass(frozen=True)
class Tuned:
    path: Path
    hyper_parameters: dict[str, object]
    threads: int | None  # CPU threads, by which the same seed comes to the same score to the bit
    origin: str  # in words
    trained_on: dict[str, object]  # what the sweep's trials shared: dataset, features, encoder


def sweep_file(results: Path, model: str, dataset: str, ending: str) -> Path:
    """A file that sweeps leave: tune.csv, tune.db, best.json, or a picture. results: --res_save_dir."""
    return results / "tunes" / f"{dataset}-{model}-regression-{ending}"


def read_tuned(path: Path, model: str, dataset: str) -> Tuned:
    """Raises UserError where the file isn't there, is damaged, or is another model's or dataset's."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        hyper_parameters = values["hyper_parameters"]
        if not isinstance(hyper_parameters, dict):
            raise TypeError("hyper_parameters is no object")
        threads, trained_on = values.get("threads"), values.get("trained_on", {})
        if threads is not None and (type(threads) is not int or threads < 1):
            raise TypeError(f"threads is {threads!r}")
        if not isinstance(trained_on, dict):
            raise TypeError("trained_on is no object")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no tuned hyper-parameters there; a sweep writes them (add --is_tune), or name a file with --params"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not a file of tuned hyper-parameters, or damaged ({first_line(error)})") from None
    for what, wanted in (("model", model), ("dataset", dataset)):
        if values.get(what, wanted) != wanted:
            raise UserError(f"{path}: tuned for {what} {first_line(values[what])}, not {wanted}")
    return Tuned(path, hyper_parameters, threads, _origin(values), trained_on)


def _origin(values: dict) -> str:
    try:
        key, score = values["score"]
        return (
            f"of trial {values['trial']} of {values['study']}: with seed {values['seed']}, {values['threads']} threads and "
            f"{values['device']} its validation {key} was {score}"
        )
    except (KeyError, TypeError, ValueError):
        return "of an unknown sweep"
