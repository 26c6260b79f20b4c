"""python -m trains.runs.compare: two lines of a summary side by side, paired by seed."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trains.runs import compare
from trains.runs.results import add_seed_row, write_rows
from utils.metrics import METRICS, metric_names

SEEDS_CSV = Path("results/results/normals/mosi-regression-seeds.csv")
LINES = {"released": "0123456789", "MT": "1e10000000", "mmsa bf16": "1f20000000"}  # settings -> config_hash
METRIC_NAMES = metric_names(METRICS["mosi"])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def add(settings: str, seed: int, **scores: object) -> None:
    row = {"model": "self_mm", "dataset": "mosi", "seed": seed, **dict.fromkeys(METRIC_NAMES, 0.5), **scores}
    add_seed_row(SEEDS_CSV, row | {"config_hash": LINES[settings], "settings": settings})


def table(output: str) -> dict[str, list[str]]:
    """Metric -> A, B, B - A, from, to, p, better."""
    return {line.split()[0]: line.split()[1:] for line in output.splitlines()}


def test_means_differences_interval_and_p_are_those_of_the_seeds_in_common(capsys):
    rng = np.random.default_rng(1)
    mae = {"released": rng.normal(0.71, 0.01, 5).round(4), "MT": rng.normal(0.73, 0.01, 5).round(4)}
    for seed in range(5):
        add("released", 1111 + seed, MAE=9)  # trained again below: the last row counts
    for settings, values in mae.items():
        for seed, value in enumerate(values):
            add(settings, 1111 + seed, MAE=value, Non0_acc_2=0.86 if settings == "MT" else 0.85 + 0.001 * seed)
    add("MT", 1120, MAE=9)
    assert compare.main(["released", "MT"]) == 0
    output = capsys.readouterr().out
    assert "A: released (0123456789)\nB: MT (1e10000000)\n5 seeds: 1111 1112 1113 1114 1115\n" in output
    assert "left out" in output and "1120" in output and "5 seeds give 0.0625 at least" in output
    shown = table(output)
    differences = mae["MT"] - mae["released"]
    signs = np.array(list(itertools.product([1, -1], repeat=5)))
    p = np.mean(np.abs(signs @ differences) >= np.abs(differences.sum()) * (1 - 1e-9))
    margin = 2.7764451052 * differences.std(ddof=1) / 5**0.5  # Student's t for 4 degrees of freedom
    expected = [mae["released"].mean(), mae["MT"].mean(), differences.mean()]
    expected += [differences.mean() - margin, differences.mean() + margin, p]
    assert shown["MAE"] == [*(f"{value:.4f}" for value in expected), "A"]
    assert shown["Non0_acc_2"] == ["85.20", "86.00", "0.80", "0.60", "1.00", "0.0625", "B"]


def test_equal_and_undefined_scores_are_shown_as_such(capsys):
    for seed in (1, 2):
        add("released", seed, MAE=0.5, Corr="")
        add("MT", seed, MAE=0.75, Corr=0.5)
    assert compare.main(["0123", "1e1"]) == 0  # beginnings of the config hashes
    rows = table(capsys.readouterr().out)
    assert rows["MAE"] == ["0.5000", "0.7500", "0.2500", "0.2500", "0.2500", "0.5000", "A"]
    assert rows["Loss"] == ["0.5000", "0.5000", "0.0000", "0.0000", "0.0000", "1.0000"]
    assert rows["Corr"] == ["-", "0.5000", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    "argv, parts",
    [
        (["released", "released"], "the same line"),
        (["released", "0123456789"], "the same line"),
        (["released", "MTA"], "MTA: names no line, MT (1e10000000)"),
        (["1", "released"], "1: names several lines, MT (1e10000000), mmsa bf16 (1f20000000)"),
        (["released", "mmsa bf16"], "two seeds in common, have 1"),
        (["MT", "mmsa bf16"], "two seeds in common, have none"),
        (["released", "MT", "--datasetName", "sims"], "sims-regression-seeds.csv, run.py"),
        (["released"], "arguments are required: B, --help"),
    ],
)
def test_names_that_cannot_be_compared_are_one_line(capsys, argv, parts):
    for settings, seeds in {"released": (1, 2), "MT": (2, 3), "mmsa bf16": (1, 4)}.items():
        for seed in seeds:
            add(settings, seed)
    assert compare.main(argv) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and output.err.startswith("error: ")
    assert all(part in output.err for part in parts.split(", "))


@pytest.mark.parametrize("damage", [{"MAE": "abc"}, {"Corr": None}])
def test_a_damaged_row_is_one_line(capsys, damage):
    for settings in ("released", "MT"):
        for seed in (1, 2):
            add(settings, seed, **{key: value for key, value in damage.items() if value})
    if None in damage.values():
        write_rows(pd.read_csv(SEEDS_CSV, dtype=str).drop(columns=damage.keys()), SEEDS_CSV)
    assert compare.main(["released", "MT"]) == 2
    assert capsys.readouterr().err.count("damaged row") == 1


def test_rows_from_before_the_settings_were_recorded_are_found_by_their_hash(capsys):
    for seed in (1, 2):
        add("released", seed)
        add("MT", seed)
    write_rows(pd.read_csv(SEEDS_CSV, dtype=str).drop(columns="settings"), SEEDS_CSV)
    assert compare.main(["01", "1e"]) == 0
    assert "A: 0123456789" in capsys.readouterr().out


def test_settings_from_a_foreign_table_move_no_terminal(capsys):
    for seed in (1, 2):
        add("released", seed)
        add("MT", seed)
    SEEDS_CSV.write_text(SEEDS_CSV.read_text().replace("MT", "M\x1b[2JT"))
    assert compare.main(["01", "1e"]) == 0
    assert "B: M?[2JT" in capsys.readouterr().out
