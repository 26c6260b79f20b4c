"""The checkpoint of a run: its content, and --test_only, which repeats its test."""

import json
import re
import shutil

import pandas as pd
import pytest
import tiny
import torch
from run_files import SEEDS_CSV, checkpoint
from safetensors.torch import load_file


def test_test_only_repeats_the_test_of_a_checkpoint(workplace, capsys):
    assert workplace.run() == 0
    row = pd.read_csv(SEEDS_CSV).iloc[0]
    shutil.rmtree(workplace.bert)  # the checkpoint needs no pretrained encoder
    capsys.readouterr()
    import run

    flags = ["--test_only", str(checkpoint()), "--dataPath", str(workplace.features), "--gpu_ids", "-1"]
    assert run.main(flags) == 0
    printed = capsys.readouterr().out
    for metric in ("MAE", "Corr", "Loss"):
        assert re.search(rf"{metric} +{row[metric]:.4f} ", printed), printed
    assert len(pd.read_csv(SEEDS_CSV)) == 1  # a test writes no row


def test_test_only_refuses_features_of_another_width(workplace, capsys):
    assert workplace.run() == 0
    tiny.write_features(workplace.features, tiny.make_features(audio_width=3))
    import run

    assert run.main(["--test_only", str(checkpoint()), "--dataPath", str(workplace.features)]) == 2
    assert "audio is 3 wide" in capsys.readouterr().err


def test_test_only_reads_a_pth_of_the_released_code(workplace, capsys):
    from models.weights_file import PREFIXES

    assert workplace.run() == 0
    row = pd.read_csv(SEEDS_CSV).iloc[0]
    released = {}
    for name, tensor in load_file(checkpoint() / "model.safetensors").items():
        theirs, ours = next((theirs, ours) for theirs, ours in PREFIXES.items() if name.startswith(ours))
        released[theirs + name.removeprefix(ours)] = tensor
    width = tiny.make_bert_config().hidden_size
    released["Model.text_model.model.pooler.dense.weight"] = torch.zeros(width, width)
    released["Model.text_model.model.embeddings.position_ids"] = torch.arange(64)[None]
    torch.save(released, "self_mm-mosi.pth")
    capsys.readouterr()
    assert workplace.run("--test_only", "self_mm-mosi.pth") == 0
    assert re.search(rf"Loss +{row['Loss']:.4f} ", capsys.readouterr().out)
    for change in (["--preset", "mmsa"], ["--set", "post_text_dim=8"]):  # other sizes than it was trained with
        assert workplace.run("--test_only", "self_mm-mosi.pth", *change) == 2
        error = capsys.readouterr().err
        assert "self_mm-mosi.pth: " in error and "--preset" in error and error.count("\n") == 1
    del released["Model.post_text_layer_1.weight"]
    torch.save(released, "self_mm-mosi.pth")
    assert workplace.run("--test_only", "self_mm-mosi.pth") == 2
    error = capsys.readouterr().err
    assert "Missing key" in error and "heads.text.layer_1.weight" in error


def test_a_checkpoint_without_vocabulary_is_tested_by_its_token_ids(workplace):
    assert workplace.run() == 0
    shutil.rmtree(checkpoint() / "tokenizer")
    import run

    assert run.main(["--test_only", str(checkpoint()), "--dataPath", str(workplace.features), "--gpu_ids", "-1"]) == 0


def test_a_checkpoint_keeps_no_vocabulary_of_an_earlier_run(workplace):
    assert workplace.run() == 0
    (workplace.bert / "vocab.txt").unlink()
    assert workplace.run() == 0
    assert not (checkpoint() / "tokenizer").exists()


def test_the_checkpoint_says_what_it_was_trained_on(workplace):
    assert workplace.run() == 0
    facts = json.loads((checkpoint() / "config.json").read_text())["trained_on"]
    assert str(workplace.folder) not in (checkpoint() / "config.json").read_text()  # it may be published
    assert facts["dataset"] == "mosi" and facts["seed"] == 1 and len(facts["features_sha1"]) == 40
    row = pd.read_csv(SEEDS_CSV, dtype=str).iloc[0]
    for key in ("config_hash", "versions", "commit", "features_sha1", "bert"):
        assert facts[key] == row[key] or not facts[key]  # there is no commit outside a git checkout
    assert facts["epoch"] == int(row["best_epoch"]) and "torch 2" in facts["versions"]
    labels = pd.read_csv(checkpoint() / "labels.csv")
    assert labels.columns.tolist() == ["id", "fusion", "text", "audio", "vision"]
    assert labels["id"].tolist() == tiny.make_features()["train"]["id"].tolist()
    assert labels["fusion"].tolist() == pytest.approx(tiny.make_features()["train"]["regression_labels"])
