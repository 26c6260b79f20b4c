"""The CSVs of a run: one row per seed, and the summary over seeds."""

from pathlib import Path

import pandas as pd

from utils.errors import UserError, first_line
from utils.files import exclusive_lock, replacing

RUN = ["model", "config_hash", "seed"]  # rows that share these repeat the same run


def add_seed_row(path: Path, row: dict, replace: bool = False) -> None:
    """Adds a row, or replaces the same run's last one if `replace`. Concurrent processes lose no row."""
    with exclusive_lock(path):
        rows = read_rows(path, RUN)
        if replace:
            same = rows.index[(rows[RUN] == [str(row[key]) for key in RUN]).all(axis=1)]
            rows = rows.drop(same[-1:])
        added = pd.DataFrame([row]).astype(object)
        write_rows(pd.concat([rows, added], ignore_index=True) if len(rows) else added, path)


def finished_rows(path: Path, model: str, seed: int) -> dict[str, dict[str, str]]:
    """config_hash -> the seed's last row with it, each cell as written."""
    rows = read_rows(path, RUN)
    same = rows[(rows["model"] == model) & (rows["seed"] == str(seed))]
    return {row["config_hash"]: row for row in same.to_dict("records")}


def write_summary(seeds: Path, summary: Path, metrics: list[str]) -> None:
    """One line per model and config, in percent: mean and population std over the last row of each seed."""
    with exclusive_lock(seeds):
        rows = read_rows(seeds, RUN).drop_duplicates(RUN, keep="last")
        lines = []
        try:
            for (model, config_hash), group in rows.groupby(["model", "config_hash"], sort=False):
                group = group.iloc[group["seed"].astype(int).argsort()]  # the last bit of a sum depends on the order
                line = {"Model": model, "settings": group["settings"].iloc[-1] if "settings" in group else ""}
                for metric in metrics:
                    values = pd.to_numeric(group[metric]).to_numpy(dtype=float) * 100
                    line |= {f"{metric}_mean": round(values.mean(), 2), f"{metric}_std": round(values.std(), 2)}
                lines.append(line | {"seeds": " ".join(group["seed"]), "config_hash": config_hash})
        except (KeyError, ValueError) as error:
            raise UserError(f"{seeds}: damaged row ({first_line(error)}); repair the file, or move it away") from None
        write_rows(pd.DataFrame(lines), summary)


def read_rows(path: Path, key: list[str]) -> pd.DataFrame:
    """A CSV's rows as strings, to write back unchanged; none without a file. Raises UserError if it lacks a column."""
    if not path.exists():
        return pd.DataFrame(columns=key)
    try:
        if b"\0" in path.read_bytes():  # pandas before 3.1 drops them, and what follows in the cell
            raise ValueError("it holds NUL bytes")
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        if missing := [column for column in key if column not in rows]:
            raise ValueError(f"no column {missing[0]}")
        if not isinstance(rows.index, pd.RangeIndex):  # pandas takes the first cells for names of the rows
            raise ValueError("its rows have more cells than its first line")
        return rows
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path}: cannot be read ({first_line(error)}); repair the file, or move it away") from None


def write_rows(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as work:
        table.to_csv(work, index=False, encoding="utf-8")
