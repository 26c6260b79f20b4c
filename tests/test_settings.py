"""Results say what was run: in their names, rows and lines on the screen."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tiny
from run_files import SEEDS_CSV, SUMMARY_CSV, checkpoint

import run
from config.config_regression import TASK_SETS, make_config
from trains.runs.provenance import in_words


@pytest.mark.parametrize(
    "dataset, changes, others, words",
    [
        ("mosi", {}, {}, "released"),
        ("simsv2", {}, {}, "mmsa"),
        ("mosi", {"preset": "mmsa"}, {}, "mmsa"),
        ("mosi", {"preset": "mmsa", "tasks": "MTA", "precision": "bf16", "H": 2.0}, {}, "mmsa MTA bf16 H=2.0"),
        ("mosi", {"learning_rate_bert": 2e-5}, {"aligned": ""}, "learning_rate_bert=2e-05 aligned"),
        ("mosi", {}, {"features": "my own/clips", "bert": "bert-large"}, "features=my_own_clips bert=bert-large"),
        ("mosi", {"max_clips_per_pass": 7}, {}, "released"),  # does not change the experiment
    ],
)
def test_settings_in_words(dataset, changes, others, words):
    assert in_words(dataset, make_config(dataset, **changes), others) == words


@pytest.fixture
def released(workplace, monkeypatch) -> list[str]:
    """Flags of a run that differs in nothing from the released table, features and encoder: they are tiny here."""
    for key, value in {"batch_size": 4, "update_epochs": 2, "max_epochs": 1}.items():
        monkeypatch.setitem(run.parse_arguments.__globals__["PRESETS"]["released"]["mosi"], key, value)
    monkeypatch.setenv("SELF_MM_DATA", str(workplace.folder / "datasets"))
    monkeypatch.setattr("config.config_regression.REPOSITORY", workplace.folder)
    shutil.copytree(workplace.bert, "pretrained_model/bert_en")
    tiny.write_features(Path("datasets/MOSI/Processed/unaligned_50.pkl"))
    return ["--datasetName", "mosi", "--gpu_ids", "-1", "--seeds", "1", "--no_figures"]


def test_an_ablation_has_a_checkpoint_and_a_line_for_each_set_of_tasks_and_one_table(released, capsys):
    flags = [*released, "--ablate", "--seeds", "1", "2"]
    assert run.main(flags) == 0
    names = {tasks: "released" if tasks == "MTAV" else tasks for tasks in TASK_SETS}
    rows, summary = pd.read_csv(SEEDS_CSV), pd.read_csv(SUMMARY_CSV, index_col="settings")
    table = pd.read_csv(SEEDS_CSV.with_name("mosi-regression-ablation.csv"), index_col="tasks")
    assert summary.index.tolist() == [*names.values()] and table.index.tolist() == [*names] and len(rows) == 16
    for tasks, name in names.items():
        folder = "self_mm-mosi-regression-2" + f"-{tasks}" * (tasks != "MTAV")
        config = json.loads(Path("results/models", folder, "config.json").read_text())
        assert config["hyper_parameters"]["tasks"] == tasks
        assert config["trained_on"]["config_hash"] == summary["config_hash"].get(name)
        scores = rows.loc[rows["settings"] == name, "MAE"]
        assert table["MAE"][tasks] == pytest.approx(scores.mean(), abs=1e-4)
        assert table["MAE std"][tasks] == pytest.approx(scores.std(ddof=0), abs=1e-4)
    assert table["MAE paper"]["MTA"] == 0.712 and "MAE paper" in capsys.readouterr().out.splitlines()[-10]
    assert run.main([*flags, "--resume"]) == 0  # nothing is left to train
    assert len(pd.read_csv(SEEDS_CSV)) == 16 and "epoch  1" not in capsys.readouterr().out


def test_words_in_names_of_checkpoints(released, workplace):
    for flags, suffix in (
        (["--preset", "mmsa", "--set", "batch_size=4", "update_epochs=2"], "-mmsa-batch_size=4-update_epochs=2"),
        (["--set", "post_text_dim=32", "post_audio_dim=32", "post_video_dim=8", "batch_size=5"], None),
        (["--precision", "bf16", "--set", "H=2"], "-bf16-H=2.0"),
        (["--dataPath", str(workplace.features), "--bert", str(workplace.bert)], "-unaligned-bert"),
        (["--dataPath", "datasets/MOSI/Processed/unaligned_50.pkl", "--bert", "pretrained_model/bert_en"], ""),
    ):
        shutil.rmtree("results", ignore_errors=True)
        assert run.main([*released, *flags]) == 0
        if suffix is None:  # too long in words
            suffix = f"-{pd.read_csv(SEEDS_CSV)['config_hash'][0]}"
        assert checkpoint().name == f"self_mm-mosi-regression-1{suffix}"


def test_an_edited_table_leaves_the_former_checkpoint(released, monkeypatch):
    assert run.main(released) == 0
    former = checkpoint()
    weights = (former / "model.safetensors").read_bytes()
    monkeypatch.setitem(run.parse_arguments.__globals__["PRESETS"]["released"]["mosi"], "H", 2.0)
    assert run.main(released) == 0
    rows = pd.read_csv(SEEDS_CSV)
    assert rows["settings"].tolist() == ["released"] * 2
    edited = Path(f"{former}-{rows['config_hash'][1]}")
    assert json.loads((edited / "config.json").read_text())["hyper_parameters"]["H"] == 2
    assert (former / "model.safetensors").read_bytes() == weights
    assert run.main(released) == 0  # again into its own folder
    assert (former / "model.safetensors").read_bytes() == weights


def test_a_damaged_checkpoint_of_the_same_words_is_not_replaced(released, capsys):
    assert run.main(released) == 0
    (checkpoint() / "config.json").write_text("{")
    capsys.readouterr()
    assert run.main(released) == 2
    error = capsys.readouterr().err
    assert f"{checkpoint()}/config.json: cannot be read" in error and error.count("\n") == 1


def test_a_history_that_a_spreadsheet_has_changed_does_not_stop_a_resumed_run(workplace, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("trains.runs.keeper.Keeper.finish", lambda self: 1 / 0)
        assert workplace.run("--max_epochs", "2") == 1
    (history,) = Path("results/results").glob("*/1-history.csv")
    history.write_text(history.read_text().replace("\n1,", "\n1.0,") + ",,,\n")
    assert workplace.run("--max_epochs", "2", "--resume") == 0


def test_a_finished_seed_says_so_and_trains_again(workplace, capsys):
    for flags in ([], [], ["--resume"]):
        capsys.readouterr()
        assert workplace.run(*flags) == 0
        printed = capsys.readouterr().out
        trains = (
            "already finished: trains again, into results/models" in printed and "--resume would skip it" in printed
        )
        assert trains == (len(pd.read_csv(SEEDS_CSV)) == 2 and not flags)
    assert "already finished: metrics taken from" in printed


def test_lines_of_epochs_are_short_and_the_history_has_their_numbers(workplace, capsys, monkeypatch):
    assert workplace.run("--set", "early_stop=2", "--max_epochs", "12", "--seeds", "1111") == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if re.match(r"seed 1111  epoch", line)]
    assert lines and max(map(len, lines)) <= 100
    history = pd.read_csv(next(Path("results/results").glob("*/1111-history.csv")), float_precision="round_trip")
    assert history["epoch"].tolist() == list(range(1, len(lines) + 1))
    row = pd.read_csv(SEEDS_CSV, float_precision="round_trip").iloc[0]
    best = history.set_index("epoch")["valid_Loss"][row["best_epoch"]]
    assert best == row["valid_Loss"] == history["valid_Loss"].min() and len(str(best)) < 12  # float32
    for line, loss in zip(lines, history["valid_Loss"], strict=True):
        assert f"valid Loss {loss:.4f}  Corr " in line
    for waited in (1, 2):
        assert lines[row["best_epoch"] - 1 + waited].endswith(f"({waited} of 2)")
    assert any("no better Loss for 2 epochs; the best" in line and str(checkpoint(1111)) in line for line in printed)


def test_details_are_in_the_log_file_only(workplace, capsys):
    assert workplace.run() == 0
    printed, log = capsys.readouterr().out, Path("logs/self_mm-mosi.log").read_text()
    assert "learning_rate_bert=5e-05" in log and "versions python" in log
    assert "learning_rate_bert" not in printed and "versions" not in printed
    assert (
        "settings: the released table, except batch_size=4 update_epochs=2 max_epochs=2 features=unaligned bert=bert"
        in printed
    )
