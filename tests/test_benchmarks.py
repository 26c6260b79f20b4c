"""The benchmarks measure what they say, on corpora small enough for a test."""

import dataclasses
import json
import math

import pytest
import torch
from transformers import BertConfig

from benchmarks import start, throughput, ulgm_cost
from benchmarks.corpora import SHAPES, make_features
from benchmarks.machine import describe, needed_flops, peak_memory
from benchmarks.speed_figure import draw
from benchmarks.tables import as_table

CPU = torch.device("cpu")
SMALL_BERT = BertConfig(
    vocab_size=300, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
)
SMALL = dataclasses.replace(SHAPES["mosi"], clips={"train": 40, "valid": 6, "test": 5}, audio=(30, 5), vision=(40, 20))


@pytest.fixture(scope="module")
def figures():
    return throughput.measure(SMALL, SMALL_BERT, CPU, repeats=2, batch_size=4)


def test_both_ways_are_timed_on_the_same_windows_and_agree(figures):
    assert figures["clips"] == 16 and len(figures["tokens"]) == 2 * throughput.TURN
    assert figures["agreement"]["scores"] < 1e-5 and figures["agreement"]["loss"] < 1e-5
    assert list(figures["ways"]) == ["released way", "float32", "bf16"]
    for way in figures["ways"].values():
        timed = [way[key] for key in way if key != "memory"]
        assert all(len(times) == 2 and min(times) > 0 for times in timed)


def test_two_ways_that_do_different_things_are_not_compared(monkeypatch):
    monkeypatch.setattr(throughput.OurWay, "run", lambda self, windows, epoch: 0.0)
    with pytest.raises(SystemExit, match="don't do the same"):
        throughput.measure(SMALL, SMALL_BERT, CPU, repeats=1, batch_size=4)


def test_the_table_and_the_picture_tell_the_ratio_of_the_json(figures):
    for way, times in zip(figures["ways"].values(), ([8.0, 4.0], [2.0, 1.0], [1.0, 0.5]), strict=True):
        way["seconds"] = times
    result = json.loads(json.dumps({"machine": describe(CPU), "datasets": {"mosi": figures}}))
    assert "| **times as fast** | **1.0** | **4.0** | **8.0** |" in as_table("mosi", result["datasets"]["mosi"])
    picture = draw(result)
    assert "4.0 times as fast" in picture and "8.0 times as fast" in picture and "MOSI" in picture


def test_the_limit_counts_the_products_that_real_tokens_need():
    """By hand, for one layer of width 16: keys and values of both tokens, the rest of the first one only."""
    encoder = BertConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1)
    lengths = torch.tensor([2]).numpy()
    forward = 2 * 2 * (2 * 16 * 16) + 2 * (2 * 16 * 16) + 2 * (2 * 16 * 32) + 2 * (2 * 2 * 16)
    assert needed_flops(lengths, encoder) == 3 * forward


def test_peak_memory_is_that_of_the_call():
    peak = peak_memory(lambda: torch.ones(50_000_000).sum(), CPU)
    assert peak is None or 190e6 < peak < 260e6


def test_made_up_files_have_the_published_sizes():
    assert {name: shape.clips["train"] for name, shape in SHAPES.items()} == {
        "mosi": 1284,
        "mosei": 16326,
        "sims": 1368,
    }
    split = make_features(SMALL, vocabulary=300)["train"]
    assert split["audio"].shape == (40, 30, 5) and split["vision"].shape == (40, 40, 20)
    real = make_features(dataclasses.replace(SHAPES["mosi"], clips={"train": 2000}, audio=(1, 1), vision=(1, 1)), 300)
    tokens = real["train"]["text_bert"][:, 1].sum(axis=1)
    assert math.isclose(tokens.mean(), SHAPES["mosi"].mean_tokens, rel_tol=0.05) and tokens.max() <= 50


def test_label_generation_is_timed_for_each_size():
    took = ulgm_cost.measure(CPU, corpora=(200, 400), repeats=3)
    assert {clips: len(times) for clips, times in took.items()} == {200: 3, 400: 3}


def test_starts_are_measured_from_the_file_to_the_first_window(tmp_path, monkeypatch):
    path = tmp_path / "mosi.pkl"
    monkeypatch.setitem(SHAPES, "mosi", SMALL)
    start.write("mosi", str(path))
    for way in start.WAYS:
        figures = start.run_way(way, "mosi", path)
        assert figures["seconds"] > 0 and figures["peak"] > 0
