"""Every hyper-parameter matches the published tables; the config is typed and checked."""

import dataclasses
import re
import subprocess
import sys

import pytest

from config.command_line import parse_arguments, parse_setting
from config.config_regression import DATASETS, PRESETS, REPOSITORY, Config, make_config
from config.inputs import find_features
from trains.runs.report import published_scores
from utils.errors import UserError

# As published, one column per dataset and preset. {a/b} in a key stands for several keys.
COLUMNS = [("mosi", "released"), ("mosei", "released"), ("sims", "released")]
COLUMNS += [("mosi", "mmsa"), ("mosei", "mmsa"), ("simsv2", "mmsa")]
TABLE = """
| batch_size | 32 | 32 | 32 | 16 | 32 | 16 |
| learning_rate_bert | 5e-5 | 5e-5 | 5e-5 | 5e-5 | 5e-5 | 5e-5 |
| learning_rate_{audio/video/other} | 1e-3 / 1e-4 / 1e-3 | 5e-3 / 1e-4 / 1e-3 | 5e-3 / 5e-3 / 1e-3 | 5e-3 / 5e-3 / 1e-3 \
| 5e-3 / 1e-4 / 1e-3 | 1e-3 / 1e-3 / 1e-3 |
| weight_decay_{bert/audio/video/other} | .001 / .01 / .001 / .001 | .001 / 0 / 0 / .01 | .001 / .01 / .01 / .001 \
| .001 / .001 / .001 / .001 | .001 / 0 / 0 / .01 | .01 / 0 / 0 / .001 |
| {a/v}_lstm_hidden_size | 32 / 64 | 32 / 32 | 16 / 64 | 16 / 32 | 16 / 32 | 16 / 64 |
| {audio/video}_out | 16 / 32 | 16 / 32 | 16 / 32 | 16 / 32 | 16 / 32 | 16 / 32 |
| post_{fusion/text/audio/video}_dim | 128 / 64 / 16 / 32 | 128 / 32 / 16 / 16 | 128 / 64 / 16 / 32 | 128 / 32 / 16 / 32 \
| 128 / 32 / 16 / 32 | 128 / 64 / 32 / 32 |
| post_{fusion/text/audio/video}_dropout | .1 / 0 / .1 / .1 | 0 / .1 / 0 / .1 | 0 / .1 / .1 / 0 | 0 / .1 / .1 / 0 \
| .1 / 0 / 0 / 0 | 0 / 0 / .1 / 0 |
| H | 3.0 | 3.0 | 1.0 | 3.0 | 3.0 | 1.0 |
| exclude_zero | 0 | 0 | 0 | 1 | 1 | 1 |
| round_scores | 0 | 0 | 0 | 1 | 1 | 1 |
| early_stop | 8 | 8 | 8 | 8 | 8 | 8 |
| update_epochs | 4 | 4 | 4 | 4 | 4 | 4 |
| {a/v}_lstm_layers | 1 / 1 | 1 / 1 | 1 / 1 | 1 / 1 | 1 / 1 | 1 / 1 |
| {a/v}_lstm_dropout | 0 / 0 | 0 / 0 | 0 / 0 | 0 / 0 | 0 / 0 | 0 / 0 |
"""
# Our additional keys, with the values that reproduce the released code.
OURS = {
    "unimodal_labels": "generated",
    "max_epochs": 0,
    "KeyEval": "Loss",
    "keep_last_window": False,
    "use_finetune": True,
    "tasks": "MTAV",
    "precision": "float32",
    "max_clips_per_pass": 0,
    "text_length": 0,
}


def published_values() -> list[dict[str, float]]:
    columns: list[dict[str, float]] = [{} for _ in COLUMNS]
    for line in TABLE.strip().splitlines():
        keys, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        before, _, rest = keys.partition("{")
        names, _, after = rest.partition("}")
        keys = [f"{before}{name}{after}" for name in names.split("/")] if rest else [keys]
        for column, cell in zip(columns, cells, strict=True):
            column |= dict(zip(keys, (float(value) for value in cell.split("/")), strict=True))
    return columns


@pytest.mark.parametrize(
    ("where", "published"), list(zip(COLUMNS, published_values(), strict=True)), ids=lambda c: str(c)[:24]
)
def test_every_key_has_the_published_value(where, published):
    config = dataclasses.asdict(make_config(*where))
    assert config.keys() == published.keys() | OURS.keys()
    for key, value in (published | OURS).items():
        assert config[key] == value, key


@pytest.mark.parametrize("dataset", ["sims", "demo"])
def test_presets_of_the_same_table_differ_only_in_neutral_clips_and_rounding(dataset):
    released, mmsa = make_config(dataset, "released"), make_config(dataset, "mmsa")
    assert dataclasses.replace(released, exclude_zero=True, round_scores=True) == mmsa


def test_released_is_the_default_preset_where_it_exists():
    assert make_config("mosi") == make_config("mosi", "released")
    assert make_config("simsv2") == make_config("simsv2", "mmsa")
    with pytest.raises(UserError, match="mmsa"):
        make_config("simsv2", "released")
    assert make_config("demo") == make_config("demo", "released")


def test_h_equals_the_datasets_label_bound():
    for tables in PRESETS.values():
        for dataset, table in tables.items():
            assert table["H"] == DATASETS[dataset].label_bound


def test_a_config_is_frozen_typed_and_checked():
    config = make_config("mosi", H=2)
    assert type(config.H) is float and config.H == 2.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.H = 1.0
    for bad in ({"batch_size": 1.5}, {"batch_size": True}, {"H": "3"}, {"exclude_zero": 1}, {"tasks": "MM"}):
        with pytest.raises(UserError, match=next(iter(bad))):
            make_config("mosi", **bad)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("batch_size=16", "batch_size", 16),
        ("learning_rate_bert=2e-5", "learning_rate_bert", 2e-5),
        ("H = 2", "H", 2.0),
        ("exclude_zero=true", "exclude_zero", True),
        ("use_finetune=False", "use_finetune", False),
        ("KeyEval=MAE", "KeyEval", "MAE"),
    ],
)
def test_set_converts_values_to_the_type_of_their_key(text, key, value):
    parsed_key, parsed = parse_setting(text)
    assert (parsed_key, parsed, type(parsed)) == (key, value, type(value))
    assert getattr(make_config("mosi", **{key: parsed}), key) == value


def test_every_field_is_read_somewhere():
    """A hyper-parameter without effect would mislead."""
    code = "".join(
        path.read_text()
        for folder in ("models", "trains", "data")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
    )
    built = ("learning_rate_", "weight_decay_", "post_")  # read by composed names
    for field in dataclasses.fields(Config):
        if not field.name.startswith(built) and field.name != "tasks":
            assert f".{field.name}" in code, field.name


def test_an_environment_variable_sets_the_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("SELF_MM_DATA", str(tmp_path))
    for name, aligned, place in (("simsv2", False, "sims_unaligned.pkl"), ("mosei", True, "aligned_50.pkl")):
        file = tmp_path / ("SIMSv2" if name == "simsv2" else "MOSEI") / "Processed" / place
        with pytest.raises(UserError, match=re.escape(str(file))):
            find_features(None, DATASETS[name], aligned)


def test_sims_is_found_where_self_mm_or_mmsa_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SELF_MM_DATA", str(tmp_path))
    of_mmsa = tmp_path / "SIMS" / "Processed" / "unaligned_39.pkl"
    of_self_mm = of_mmsa.parent / "features" / of_mmsa.name
    with pytest.raises(UserError, match="no such feature file") as caught:
        find_features(None, DATASETS["sims"], aligned=False)
    assert str(of_mmsa) in str(caught.value) and str(of_self_mm) in str(caught.value)
    of_self_mm.parent.mkdir(parents=True)
    for file in (of_mmsa, of_self_mm):  # with both, the released code's
        file.touch()
        assert find_features(None, DATASETS["sims"], aligned=False) == file


def test_published_scores_depend_on_the_tasks():
    assert published_scores("mosi", "MTAV")["paper"]["MAE"] == 0.713
    assert published_scores("mosi", "MTA") == {"paper": {"MAE": 0.712, "Corr": 0.797}}
    assert published_scores("demo", "MTAV") == published_scores("sims", "M") == {}


def test_the_config_imports_neither_torch_nor_numpy():
    code = "import config.config_regression, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_a_bad_hyper_parameter_is_reported_before_torch_is_imported():
    command = [sys.executable, "-X", "importtime", "run.py", "--set", "batchsize=8"]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert finished.returncode == 2 and "'batch_size'" in finished.stderr and "| torch" not in finished.stderr


def test_duplicate_seeds_are_rejected():
    with pytest.raises(UserError, match="--seeds 1 2 1"):
        parse_arguments(["--seeds", "1", "2", "1"])
