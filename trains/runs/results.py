"""The CSVs that a run leaves behind: a row for each seed, and the summary over seeds."""

from pathlib import Path

import pandas as pd

from utils.errors import UserError, first_line
from utils.files import exclusive_lock, replacing

RUN = ["model", "config_hash", "seed"]  # rows that agree in these are of the same run, done again


def add_seed_row(path: Path, row: dict, replace: bool = False) -> None:
    """Adds a row to the seeds CSV. Processes that add to the same file wait for one another, and lose no row.

    replace: let it take the place of the last row of the same run, where there is one.
    """
    first = {key: row[key] for key in ("model", "dataset", "seed") if key in row}
    added = pd.DataFrame([first | row]).astype(object)
    with exclusive_lock(path):
        rows = read_rows(path, RUN)
        same = rows.index[(rows[RUN] == [str(row.get(key)) for key in RUN]).all(axis=1)] if replace else []
        table = pd.concat([rows, added], ignore_index=True) if len(rows) else added
        if len(same):
            table.loc[same[-1]] = table.iloc[-1]
            table = table.iloc[:-1]
        write_rows(table, path)


def finished_rows(path: Path, model: str, seed: int) -> dict[str, dict[str, str]]:
    """config_hash -> the seed's last row with it, as the CSV has it."""
    rows = read_rows(path, RUN)
    same = rows[(rows["model"] == model) & (rows["seed"] == str(seed))]
    return {row["config_hash"]: row for row in same.to_dict("records")}


def write_summary(seeds: Path, summary: Path, metrics: list[str]) -> None:
    """Computes the summary anew from the seed rows: one line for each model and config, in percent.

    Of two rows of the same run the later counts. std is that of the population, as released.
    """
    with exclusive_lock(seeds):
        rows = read_rows(seeds, RUN).drop_duplicates(RUN, keep="last")
        try:
            lines = [_summarise(group, metrics) for _, group in rows.groupby(["model", "config_hash"], sort=False)]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{seeds}: a row is damaged ({first_line(error)}); mend it, or move the file away"
            ) from None
        write_rows(pd.DataFrame(lines), summary)


def _summarise(rows: pd.DataFrame, metrics: list[str]) -> dict[str, object]:
    """One line of the summary, from the rows of one model and config."""
    rows = rows.iloc[rows["seed"].astype(int).argsort()]  # a sum's last bit depends on the order
    line = {"Model": rows["model"].iloc[0]}
    for metric in metrics:
        values = pd.to_numeric(rows[metric]).to_numpy(dtype=float)
        line |= {f"{metric}_mean": round(values.mean() * 100, 2), f"{metric}_std": round(values.std() * 100, 2)}
    return line | {"seeds": " ".join(rows["seed"]), "config_hash": rows["config_hash"].iloc[0]}


def read_rows(path: Path, key: list[str]) -> pd.DataFrame:
    """The rows, each cell as it is written there, so that what is written again is the same; none where there is no file.

    key: columns that must be there.
    """
    if not path.exists():
        return pd.DataFrame(columns=key)
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path}: can't be read ({first_line(error)}); mend it, or move it away") from None
    if missing := [column for column in key if column not in rows]:
        raise UserError(f"{path}: has no column {missing[0]}; mend it, or move it away")
    return rows


def write_rows(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as work:
        table.to_csv(work, index=False, encoding="utf-8")
