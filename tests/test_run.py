"""The real entry point, end to end, on a tiny corpus with a two-layer encoder."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from run_files import SEEDS_CSV, SUMMARY_CSV, checkpoint
from safetensors.torch import load_file

from config.command_line import parse_arguments
from config.config_regression import REPOSITORY
from models.self_mm import SelfMM


def test_a_run_writes_checkpoints_rows_summary_and_log(workplace, capsys):
    assert workplace.run("--seeds", "1", "2") == 0
    printed = capsys.readouterr().out
    rows = pd.read_csv(SEEDS_CSV)
    assert rows["seed"].tolist() == [1, 2] and rows["model"].tolist() == ["self_mm"] * 2
    expected = {"dataset", "MAE", "Corr", "Non0_acc_2", "Loss", "best_epoch", "epochs", "seconds", "seconds_per_epoch"}
    assert expected | {"config_hash", "versions", "commit", "features_sha1"} <= set(rows.columns)
    summary = pd.read_csv(SUMMARY_CSV)
    assert summary["Model"].tolist() == ["self_mm"] and summary["seeds"].tolist() == ["1 2"]
    assert summary["MAE_mean"][0] == pytest.approx(rows["MAE"].mean() * 100, abs=0.00501)  # rounded to 2 digits
    assert summary["MAE_std"][0] == pytest.approx(np.std(rows["MAE"]) * 100, abs=0.00501)  # rounded to 2 digits
    for seed in (1, 2):
        assert {"config.json", "model.safetensors", "tokenizer"} <= {path.name for path in checkpoint(seed).iterdir()}
    log = Path("logs/self_mm-mosi.log").read_text()
    assert len(re.findall(r"seed [12]  epoch +[12] ", log)) == 4
    for text in (log, printed):
        assert "paper" in text and "0.7130" in text  # published beside ours
    assert not list(Path("results").rglob("*unfinished*"))


def test_seeds_run_separately_give_the_same_summary(workplace):
    assert workplace.run("--seeds", "1", "2") == 0
    together = SUMMARY_CSV.read_text()
    shutil.rmtree("results")
    for seed in ("2", "1", "2"):
        assert workplace.run("--seeds", seed) == 0
    assert len(pd.read_csv(SEEDS_CSV)) == 3
    assert SUMMARY_CSV.read_text() == together


def test_results_depend_on_the_seed_alone(workplace):
    weights = []
    for seed in ("1", "1", "2"):
        assert workplace.run("--seeds", seed) == 0
        weights.append(load_file(checkpoint(int(seed)) / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    rows = pd.read_csv(SEEDS_CSV)
    assert rows["Loss"][0] == rows["Loss"][1] != rows["Loss"][2]


def test_the_config_hash_covers_only_what_changes_results(workplace):
    for flags in ([], ["--max_clips_per_pass", "3"], ["--set", "H=2"], ["--precision", "bf16"], ["--tasks", "MT"]):
        assert workplace.run(*flags) == 0
    hashes = pd.read_csv(SEEDS_CSV)["config_hash"].tolist()
    assert hashes[0] == hashes[1] and len(set(hashes)) == 4


def test_names_in_any_case(workplace):
    flags = "--modelName SELF_MM --datasetName MOSI --preset MMSA --precision BF16 --tasks mat".split()
    import run

    assert run.main([*workplace.command(*flags), "--train_mode", "Regression", "--set", "keep_last_window=True"]) == 0
    assert SelfMM.from_pretrained(checkpoint()).hyper_parameters.tasks == "MTA"


def test_a_frozen_encoder_keeps_its_weights_and_reads_each_text_once(workplace, monkeypatch):
    from models.bert_text_encoder import BertTextEncoder

    read = []
    forward = BertTextEncoder.forward
    monkeypatch.setattr(
        BertTextEncoder, "forward", lambda self, text: read.append(len(text.first)) or forward(self, text)
    )
    assert workplace.run("--set", "use_finetune=False", "--seeds", "1", "2", "--max_epochs", "3") == 0
    assert sum(read) == sum(tiny.SIZES.values())
    pretrained = load_file(workplace.bert / "model.safetensors")
    trained = load_file(checkpoint() / "model.safetensors")
    for name, tensor in pretrained.items():
        assert torch.equal(trained[f"text_encoder.bert.{name}"], tensor)


@pytest.mark.parametrize("tasks", ["M", "mt", "MAV"])
def test_any_set_of_tasks(workplace, tasks):
    assert workplace.run("--tasks", tasks, "--max_epochs", "3") == 0
    assert SelfMM.from_pretrained(checkpoint()).hyper_parameters.tasks == tasks.upper()


def test_bf16_stays_close_to_float32(workplace):
    for precision in ("float32", "bf16"):
        assert workplace.run("--precision", precision) == 0
    losses = pd.read_csv(SEEDS_CSV)["Loss"]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], abs=0.05)


def test_float64_computes_and_saves_everything_in_float64(workplace, capsys):
    for precision in ("float32", "float64"):
        assert workplace.run("--precision", precision) == 0
    losses = pd.read_csv(SEEDS_CSV)["Loss"]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert {tensor.dtype for tensor in load_file(checkpoint() / "model.safetensors").values()} == {torch.float64}
    import run

    for flags in ([], ["--precision", "float32"], ["--precision", "bf16"]):  # a checkpoint can be tested in any
        capsys.readouterr()
        where = ["--dataPath", str(workplace.features), "--gpu_ids", "-1"]
        assert run.main(["--test_only", str(checkpoint()), *where, *flags]) == 0
        tested = float(re.search(r"Loss +([\d.]+) ", capsys.readouterr().out)[1])
        assert tested == pytest.approx(losses[1], abs=0.05 if "bf16" in flags else 1e-4)


def test_mmsas_scores_have_four_digits(workplace):
    assert workplace.run("--preset", "mmsa") == 0
    row = pd.read_csv(SEEDS_CSV).iloc[0]
    assert all(row[name] == round(row[name], 4) for name in ("Loss", "valid_Loss", "MAE", "Corr"))


def test_splits_and_batches_of_one_clip(workplace):
    features = {name: tiny.make_split(clips, 5) for name, clips in {"train": 21, "valid": 1, "test": 1}.items()}
    tiny.write_features(workplace.features, features)
    assert workplace.run("--set", "batch_size=1", "update_epochs=1") == 0
    assert workplace.run("--set", "batch_size=2", "--max_clips_per_pass", "1") == 0


def test_raw_text_and_its_token_ids_give_the_same_results(workplace):
    assert workplace.run() == 0
    features = tiny.make_features()
    for split in features.values():
        del split["text_bert"]
    tiny.write_features(workplace.features, features)
    assert workplace.run() == 0
    rows = pd.read_csv(SEEDS_CSV)
    assert rows["Loss"][0] == rows["Loss"][1]
    stores = sorted(workplace.features.parent.glob("*.store/*"))
    import run

    assert run.main(["--test_only", str(checkpoint()), "--dataPath", str(workplace.features), "--gpu_ids", "-1"]) == 0
    assert sorted(workplace.features.parent.glob("*.store/*")) == stores  # the checkpoint's vocabulary is the encoder's


def test_aligned_features_get_their_lengths_from_the_text(workplace):
    features = tiny.make_features()
    unaligned = tiny.make_features()
    for name, split in features.items():
        lengths = split["text_bert"][:, 1].sum(axis=1)
        for key in ("audio", "vision"):
            frames = np.random.default_rng(1).normal(size=(len(lengths), tiny.TEXT_LENGTH, split[key].shape[2]))
            split[key] = unaligned[name][key] = frames * (np.arange(tiny.TEXT_LENGTH) < lengths[:, None])[:, :, None]
            del split[f"{key}_lengths"]
            unaligned[name][f"{key}_lengths"] = lengths
    tiny.write_features(workplace.features, features)
    assert workplace.run("--aligned") == 0
    tiny.write_features(workplace.features, unaligned)
    assert workplace.run() == 0
    rows = pd.read_csv(SEEDS_CSV)
    assert rows["Loss"][0] == rows["Loss"][1] and rows["aligned"].tolist() == [True, False]


def test_worker_processes_do_not_change_results(workplace):
    assert workplace.run() == 0
    assert workplace.run("--num_workers", "2") == 0
    rows = pd.read_csv(SEEDS_CSV)
    assert rows["Loss"][0] == rows["Loss"][1]


def test_non_finite_features_are_counted_and_read_as_0(workplace, capsys):
    features = tiny.make_features()
    features["train"]["audio"][0, 0, 0] = -np.inf
    features["train"]["vision"][1, 0, :2] = np.nan
    tiny.write_features(workplace.features, features)
    assert workplace.run() == 0
    log = capsys.readouterr().out
    assert "train audio: 1 values" in log and "train vision: 2 values" in log


def test_a_non_finite_loss_stops_the_run_and_names_the_clip(workplace, capsys):
    assert workplace.run("--set", "learning_rate_other=1e38", "learning_rate_bert=1e38", "--max_epochs", "9") == 2
    line = capsys.readouterr().err
    assert re.search(r"epoch \d: .*loss.* video\d", line)


def test_a_full_gpu_names_the_flag_that_helps(workplace, capsys, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SelfMM, "forward", full)
    assert workplace.run() == 2
    assert "--max_clips_per_pass" in capsys.readouterr().err


def test_unimodal_labels_in_the_file_are_for_testing_only(workplace, capsys):
    assert workplace.run() == 0
    capsys.readouterr()
    features = tiny.make_features()
    for split in features.values():
        for letter in "TAV":
            split[f"regression_labels_{letter}"] = -split["regression_labels"]
    tiny.write_features(workplace.features, features)
    assert workplace.run() == 0
    assert re.search(r"audio Corr +-?0\.\d+", capsys.readouterr().out)
    rows = pd.read_csv(SEEDS_CSV)
    assert rows["Loss"][0] == rows["Loss"][1]


def test_importing_run_or_compare_has_no_side_effects_and_does_not_load_torch(tmp_path):
    programs = "import run, trains.runs.compare"
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); {programs}; assert 'torch' not in sys.modules"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_help_names_every_flag_with_its_default(capsys):
    import run

    with pytest.raises(SystemExit) as stopped:
        run.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    flags = """
        modelName datasetName preset params set tasks seeds max_epochs train_mode test_only resume is_tune tune_times storage
        sampler pruner heartbeat dataPath bert aligned cache_dir model_save_dir res_save_dir save_every jobs gpu_ids precision
        max_clips_per_pass threads num_workers deterministic log_dir ablate unimodal_labels save_labels save_predictions
        no_figures tensorboard
    """.split()
    for flag in flags:
        assert f"--{flag} " in text or f"--{flag}\n" in text
    assert text.count("\n  --") == len(flags), "a flag is missing above"


def test_is_tune_takes_an_optional_value():
    for flags, is_tune in (
        (["--is_tune"], True),
        (["--is_tune", "True"], True),
        (["--is_tune", "false"], False),
        ([], False),
    ):
        args = parse_arguments(flags)
        assert args.is_tune is is_tune and args.seeds == ([1111] if is_tune else [1111, 1112, 1113, 1114, 1115])
