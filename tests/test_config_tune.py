"""The search space is the released one; a bad space, database or file of hyper-parameters is reported in one line."""

import pytest

from config import config_tune
from config.config_regression import make_config
from config.config_tune import SEARCH_SPACE, SPACES, Range, count, space_of
from utils.errors import UserError


@pytest.mark.parametrize(
    ("key", "values", "complaint"),
    [
        ("learning_rate_berd", [1e-5], "learning_rate_bert"),
        ("batch_size", [16, 32.5], "expected a whole number"),
        ("batch_size", 16, "a list"),
        ("batch_size", [], "a list"),
        ("post_text_dropout", [0.0, 1.5], "out of range"),
        ("post_text_dropout", Range(0.0, 1.5), "out of range"),
        ("batch_size", Range(1.5, 4), "expected a whole number"),
        ("tasks", Range(1, 4), "tasks = 1"),
        ("learning_rate_bert", Range(0.0, 1.0, log=True), "Range"),
        ("learning_rate_bert", Range(1e-3, 1e-5), "Range"),
        ("precision", ["float32", "bf16"], "cannot be searched"),
        ("use_finetune", [True, False], "cannot be searched"),
    ],
)
def test_space_is_checked_against_the_config(monkeypatch, key, values, complaint):
    monkeypatch.setitem(config_tune.SPACES, "mosi", {**SEARCH_SPACE, key: values})
    with pytest.raises(UserError, match=f"config/config_tune.py: mosi: {key}: .*{complaint}"):
        space_of("mosi", {})


def test_space_is_the_released_one():
    published = {
        "batch_size": [16, 32], "learning_rate_bert": [5e-5],
        "learning_rate_audio": [1e-4, 1e-3, 5e-3], "learning_rate_video": [1e-4, 1e-3, 5e-3],
        "learning_rate_other": [1e-4, 1e-3], "weight_decay_bert": [0.001, 0.01],
        "weight_decay_audio": [0.0, 0.001, 0.01], "weight_decay_video": [0.0, 0.001, 0.01],
        "weight_decay_other": [0.001, 0.01], "a_lstm_hidden_size": [16, 32], "v_lstm_hidden_size": [32, 64],
        "audio_out": [16], "video_out": [32], "a_lstm_dropout": [0.0], "v_lstm_dropout": [0.0],
        "post_fusion_dim": [64, 128], "post_text_dim": [32, 64], "post_audio_dim": [16, 32],
        "post_video_dim": [16, 32], **{f"post_{part}_dropout": [0.0, 0.1] for part in ("fusion", "text", "audio", "video")},
    }  # fmt: skip
    assert published == SEARCH_SPACE == space_of("mosi", {})
    assert count(SEARCH_SPACE) == 3**4 * 2**14 and count(SPACES["demo"]) == float("inf")
    assert make_config("mosi").H == 3.0 and make_config("sims").H == 1.0  # from the dataset's table


def test_database_of_another_program(fails, workplace):
    import sqlite3

    with sqlite3.connect(workplace.folder / "other.db") as other:
        other.execute("CREATE TABLE studies (title TEXT)")
    other.close()
    line = fails("--is_tune", "--seeds", "1", "--storage", f"sqlite:///{workplace.folder / 'other.db'}")
    assert "other.db" in line and "studies" in line and "--storage" in line


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "params.json"),
        ("[]", "params.json"),
        ("[" * 100_000, "params.json"),
        ('{"hyper_parameters": []}', "params.json"),
        ('{"hyper_parameters": {}, "threads": 0}', "threads"),
        ('{"hyper_parameters": {"batch_sise": 16}}', "unknown key 'batch_sise'"),
        ('{"hyper_parameters": {"post_text_dim": "16"}}', "expected a whole number"),
        ('{"hyper_parameters": {}, "dataset": "sims"}', "sims"),
    ],
)
def test_bad_file_of_hyper_parameters(fails, workplace, content, complaint):
    (workplace.folder / "params.json").write_text(content)
    assert complaint in fails("--params", "params.json")
