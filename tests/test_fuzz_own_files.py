"""Damaged files that this program has written itself: checkpoints, states and CSVs."""

import functools
import json
import tempfile
from pathlib import Path

import fuzzing
import numpy as np
import pandas as pd
import tiny
import torch
from hypothesis import given, strategies
from safetensors.torch import load

from config.config_regression import make_config
from models.pretrained_bert import load_tokenizer
from models.self_mm import SelfMM
from trains.runs.checkpoint import load_checkpoint, read_metadata, save_checkpoint
from trains.runs.results import add_seed_row, finished_rows
from trains.runs.training_state import load_state, save_state


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@strategies.composite
def one_damaged(draw, make) -> tuple[str, dict[str, bytes]]:
    """The name of a damaged or missing file, and all files that `make` returns, with it."""
    files = dict(make())
    name = draw(strategies.sampled_from(sorted(files)))
    if draw(strategies.integers(0, 19)) == 0:
        del files[name]
    elif name.endswith(".json"):
        files[name] = draw(fuzzing.mutated_json(json.loads(files[name])))
    else:
        files[name] = draw(fuzzing.mutated_bytes(files[name]))
    return name, files


@functools.cache
def checkpoint_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        bert = tiny.make_bert()
        model = SelfMM(make_config("mosi"), bert.config.to_dict(), 5, 4, bert)
        tokenizer = load_tokenizer(str(tiny.write_bert(Path(name) / "bert")))
        save_checkpoint(model, Path(name) / "c", {"dataset": "mosi"}, tokenizer, pd.DataFrame({"id": ["a"]}))
        return contents(Path(name) / "c")


@fuzzing.SETTINGS
@given(damaged=one_damaged(checkpoint_files))
def test_a_damaged_checkpoint_is_loaded_as_it_says_or_refused(damaged):
    name, files = damaged

    def read(folder: Path) -> tuple[dict, SelfMM]:
        load_tokenizer(str(folder / "tokenizer"))
        return read_metadata(folder), load_checkpoint(folder, SelfMM)

    with fuzzing.fresh_folder() as folder:
        write(files, folder / "c")
        found = fuzzing.loaded(lambda: read(folder / "c"), folder)
    if found is not None:
        facts, model = found
        settings = json.loads(files["config.json"])
        assert facts == settings.get("trained_on", {})
        written = settings["hyper_parameters"]
        assert all(getattr(model.hyper_parameters, key) == value for key, value in written.items() if key != "tasks")
        weights = load(checkpoint_files()["model.safetensors"])
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@functools.cache
def state_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        save_state(
            Path(name) / "s.safetensors", {"a": torch.randn(3, 5), "b": torch.zeros(2)}, {"epochs": 3, "random": [1, 2]}
        )
        return contents(Path(name))


@fuzzing.SETTINGS
@given(damaged=one_damaged(state_files))
def test_a_damaged_state_is_refused(damaged):
    _, files = damaged
    with fuzzing.fresh_folder() as folder:
        write(files, folder)
        found = fuzzing.loaded(lambda: load_state(folder / "s.safetensors"), folder)
        if found is not None:
            tensors, state = found
            expected = load(state_files()["s.safetensors"])
            assert all(torch.equal(tensors[name], expected[name]) for name in expected)
            assert {"epochs": 3, "random": [1, 2]}.items() <= state.items()


@functools.cache
def csv_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        for seed in range(3):
            row = {"model": "self_mm", "dataset": "mosi", "seed": seed, "MAE": 0.7, "config_hash": "0123456789"}
            add_seed_row(Path(name) / "seeds.csv", row)
        return (Path(name) / "seeds.csv").read_bytes()


@fuzzing.SETTINGS
@given(data=strategies.data())
def test_a_damaged_csv_is_read_or_refused(data):
    with fuzzing.fresh_folder() as folder:
        (folder / "seeds.csv").write_bytes(data.draw(fuzzing.mutated_bytes(csv_bytes())))
        fuzzing.loaded(lambda: finished_rows(folder / "seeds.csv", "self_mm", 1), folder)


def test_the_undamaged_files_load(tmp_path):
    write(checkpoint_files(), tmp_path / "c")
    write(state_files(), tmp_path)
    assert np.isfinite(load_checkpoint(tmp_path / "c", SelfMM).heads["fusion"].layer_1.weight.detach().numpy()).all()
    assert load_state(tmp_path / "s.safetensors")[1]["epochs"] == 3
