"""The CSVs, and checkpoints read back from disk."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file, save_file

from config.config_regression import DATASETS, REPOSITORY, make_config
from data.load_data import ClipDataset, evaluation_windows
from data.store import open_store
from models.self_mm import SelfMM
from trains.runs.checkpoint import load_checkpoint, read_metadata, save_checkpoint
from trains.runs.results import add_seed_row, write_summary
from trains.self_mm import evaluate
from trains.training import make_optimizer
from utils.errors import UserError
from utils.metrics import METRICS

CPU = torch.device("cpu")
LABELS = pd.DataFrame({"id": ["clip1"], "fusion": [0.5]})


def row(seed: int, mae: float, config_hash: str = "0123456789") -> dict:
    return {"model": "self_mm", "dataset": "mosi", "seed": seed, "MAE": mae, "Corr": 0.5, "config_hash": config_hash}


def test_the_summary_is_mean_and_population_std_in_percent(tmp_path):
    seeds, summary = tmp_path / "a" / "seeds.csv", tmp_path / "a" / "summary.csv"
    for seed, mae in ((3, 0.9), (1, 0.7), (2, 0.8), (1, 0.6)):  # seed 1 ran twice: the last row counts
        add_seed_row(seeds, row(seed, mae))
    add_seed_row(seeds, row(1, 0.5, "1e10000000"))  # another config, whose hash looks like a number
    write_summary(seeds, summary, ["MAE", "Corr"])
    lines = pd.read_csv(summary, dtype={"config_hash": str})
    assert lines.columns.tolist()[:6] == ["Model", "settings", "MAE_mean", "MAE_std", "Corr_mean", "Corr_std"]
    assert lines["seeds"].tolist() == ["1 2 3", "1"] and lines["config_hash"].tolist() == ["0123456789", "1e10000000"]
    assert lines["MAE_mean"][0] == pytest.approx(100 * np.mean([0.6, 0.8, 0.9]), abs=0.005)
    assert lines["MAE_std"][0] == pytest.approx(100 * np.std([0.6, 0.8, 0.9]), abs=0.005)
    assert len(pd.read_csv(seeds)) == 5


def test_rows_with_new_columns_keep_the_old_ones(tmp_path):
    seeds = tmp_path / "seeds.csv"
    add_seed_row(seeds, row(1, 0.7))
    add_seed_row(seeds, row(2, 0.8) | {"new": 1})
    table = pd.read_csv(seeds)
    assert table["MAE"].tolist() == [0.7, 0.8] and table["new"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    "cell, damage",
    [("0.7", "abc"), ("0.7", "x" * 1000), ("0.7", "0.7\x00"), ("mosi", "mosi\x00"), ("mosi", "mosi,mosi")],
)
def test_a_damaged_row_is_one_clear_error(tmp_path, cell, damage):
    seeds = tmp_path / "seeds.csv"
    add_seed_row(seeds, row(1, 0.7))
    seeds.write_text(seeds.read_text().replace(cell, damage))
    with pytest.raises(UserError, match="seeds.csv: "):
        write_summary(seeds, tmp_path / "summary.csv", ["MAE", "Corr"])


def test_concurrent_processes_lose_no_row(tmp_path):
    code = (
        "import sys; from pathlib import Path; from trains.runs.results import add_seed_row\n"
        "for seed in range(8): add_seed_row(Path(sys.argv[1]), {'model': 'm', 'seed': seed, 'worker': sys.argv[2], 'config_hash': 'x'})"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "seeds.csv")]
    workers = [subprocess.Popen([*command, str(number)], cwd=REPOSITORY) for number in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    table = pd.read_csv(tmp_path / "seeds.csv")
    assert sorted(zip(table["worker"], table["seed"], strict=True)) == [(w, s) for w in range(3) for s in range(8)]


@pytest.fixture
def trained(tmp_path):
    """A model with every weight moved, and test clips."""
    store = open_store(tiny.write_features(tmp_path / "f.pkl"), DATASETS["mosi"], False, None, None)
    config = make_config("mosi", tasks="MAV", a_lstm_layers=2)
    bert = tiny.make_bert(seed=5)
    return SelfMM(config, bert.config.to_dict(), 5, 4, bert), ClipDataset(store.splits["test"])


def scores_of(model: SelfMM, clips: ClipDataset) -> dict[str, np.ndarray]:
    return evaluate(model, evaluation_windows(clips), METRICS["mosi"])[1]


def test_from_pretrained_predicts_the_same_to_the_bit(trained, tmp_path):
    model, clips = trained
    expected = scores_of(model, clips)
    (tmp_path / "models").mkdir()
    save_checkpoint(model, tmp_path / "models" / "one", {"dataset": "mosi"}, None, LABELS)
    for loaded in (
        SelfMM.from_pretrained(tmp_path / "models" / "one"),
        load_checkpoint(tmp_path / "models" / "one", SelfMM),
    ):
        assert loaded.hyper_parameters == model.hyper_parameters and not loaded.training
        scores = scores_of(loaded, clips)
        assert scores.keys() == expected.keys() == {"fusion", "audio", "vision"}
        assert all(np.array_equal(scores[task], expected[task]) for task in expected)
    assert read_metadata(tmp_path / "models" / "one")["dataset"] == "mosi"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["one"]


def test_loading_draws_no_random_weights(trained, tmp_path):
    save_checkpoint(trained[0], tmp_path / "one", {}, None, LABELS)
    before = torch.get_rng_state()
    SelfMM.from_pretrained(tmp_path / "one")
    assert torch.equal(torch.get_rng_state(), before)


def test_from_pretrained_leaves_no_dropout_on_whatever_the_hub_library_does(trained, tmp_path, monkeypatch):
    """Before 1.9, huggingface_hub returned a model in training mode."""
    load = PyTorchModelHubMixin._from_pretrained.__func__
    in_training = classmethod(lambda model_class, **settings: load(model_class, **settings).train())
    monkeypatch.setattr(PyTorchModelHubMixin, "_from_pretrained", in_training)
    trained[0].save_pretrained(tmp_path)
    assert not any(module.training for module in SelfMM.from_pretrained(tmp_path).modules())


def test_from_pretrained_refuses_a_file_that_lacks_weights(trained, tmp_path):
    trained[0].save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["audio_encoder.linear.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="audio_encoder.linear.weight"):
        SelfMM.from_pretrained(tmp_path)


def test_a_model_whose_weights_share_memory_is_saved(trained, tmp_path):
    """As on a GPU, where cuDNN lays all weights of an LSTM into one block."""
    model, _ = trained
    weights = list(model.audio_encoder.lstm.parameters())
    block = torch.cat([weight.detach().flatten() for weight in weights])
    for weight, part in zip(weights, block.split([weight.numel() for weight in weights]), strict=True):
        weight.data = part.view_as(weight)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(SelfMM.from_pretrained(tmp_path).state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "damage", ["no config", "no weights", "half the weights", "text for weights", "H = -1", "a list"]
)
def test_a_damaged_checkpoint_is_one_clear_error(trained, tmp_path, damage):
    model, _ = trained
    folder = tmp_path / "models" / "one"
    folder.parent.mkdir()
    save_checkpoint(model, folder, {}, None, LABELS)
    config, weights = folder / "config.json", folder / "model.safetensors"
    if damage == "no config":
        config.unlink()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "half the weights":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "text for weights":
        weights.write_text("no weights here")
    elif damage == "a list":
        config.write_text("[]")
    else:
        content = json.loads(config.read_text())
        content["hyper_parameters"]["H"] = -1.0
        config.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        load_checkpoint(folder, SelfMM)
    assert "one" in str(error.value) and "\n" not in str(error.value)


def test_every_parameter_is_in_exactly_one_group_with_its_rate_and_decay(trained):
    model, _ = trained
    config = model.hyper_parameters
    groups = {group["name"]: group for group in make_optimizer(model, config).param_groups}
    members = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())
    assert list(groups) == ["bert", "bert_no_decay", "audio", "video", "other"]
    rates = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
    assert rates["bert"] == (5e-5, 0.001) and rates["bert_no_decay"] == (5e-5, 0.0)
    assert rates["audio"] == (1e-3, 0.01) and rates["video"] == (1e-4, 0.001) and rates["other"] == (1e-3, 0.001)
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    no_decay = [named[id(parameter)] for parameter in groups["bert_no_decay"]["params"]]
    assert all(name.endswith("bias") or "LayerNorm" in name for name in no_decay)
    assert not any("LayerNorm" in named[id(parameter)] for parameter in groups["bert"]["params"])
