"""The CSVs that a run leaves behind: a row for each seed, and the summary over seeds."""

import os
from pathlib import Path

import pandas as pd
from filelock import FileLock

from utils.functions import UserError, unfinished


def add_seed_row(path: Path, row: dict) -> None:
    """Adds a row to the seeds CSV. Processes that add to the same file wait for one another, and lose no row."""
    with FileLock(f"{path}.lock"):
        first = {key: row[key] for key in ("model", "dataset", "seed") if key in row}
        rows = pd.DataFrame([first | row])
        if path.exists():
            rows = pd.concat([_read(path), rows], ignore_index=True)
        _write(rows, path)


def write_summary(seeds: Path, summary: Path, metrics: list[str]) -> None:
    """Computes the summary anew from the seed rows: one line for each model and config, in percent.

    Of two rows with the same model, config and seed the later counts. std is that of the population, as released.
    """
    with FileLock(f"{seeds}.lock"):
        rows = _read(seeds).drop_duplicates(["model", "config_hash", "seed"], keep="last")
        lines = []
        for (model, config_hash), group in rows.groupby(["model", "config_hash"], sort=False):
            line = {"Model": model}
            for metric in metrics:
                values = group[metric].to_numpy(dtype=float)
                line |= {f"{metric}_mean": round(values.mean() * 100, 2), f"{metric}_std": round(values.std() * 100, 2)}
            line |= {"seeds": " ".join(str(seed) for seed in sorted(group["seed"])), "config_hash": config_hash}
            lines.append(line)
        _write(pd.DataFrame(lines), summary)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"config_hash": str, "commit": str})  # a hash may look like a number


def _write(table: pd.DataFrame, path: Path) -> None:
    """Under a temporary name first: the file is the old one or the new one, never half of either."""
    work = unfinished(path)
    try:
        table.to_csv(work, index=False, encoding="utf-8")
        os.replace(work, path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise UserError(
            f"{path}: can't be written ({error.strerror}); is the disk full, or the file open in another program? What was "
            "there still is, the checkpoint too: --test_only gives the scores again"
        ) from None
