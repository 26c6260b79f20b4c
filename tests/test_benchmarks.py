"""The benchmarks run on tiny corpora and measure what their tables name."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from transformers import BertConfig

from benchmarks import distribution, epoch, kernels, start, throughput, ulgm_cost
from benchmarks.corpora import SHAPES, make_features
from benchmarks.machine import describe, needed_flops, peak_memory
from benchmarks.speed_figure import draw
from benchmarks.tables import as_table, evaluation_share
from config.config_regression import DATASETS
from data.store import open_store

CPU = torch.device("cpu")
SMALL_BERT = BertConfig(
    vocab_size=300, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
)
SMALL = dataclasses.replace(SHAPES["mosi"], clips={"train": 40, "valid": 6, "test": 5}, audio=(30, 5), vision=(40, 20))


@pytest.fixture(scope="module")
def figures():
    return throughput.measure(SMALL, SMALL_BERT, CPU, repeats=2, batch_size=4)


def test_implementations_agree_and_are_timed_every_turn(figures):
    assert figures["clips"] == 16 and len(figures["tokens"]) == 2 * throughput.TURN
    assert figures["agreement"]["scores"] < 1e-5 and figures["agreement"]["loss"] < 1e-5
    assert list(figures["ways"]) == ["released way", "float32", "bf16"]
    for way in figures["ways"].values():
        assert all(len(values) == 2 and min(values) > 0 for key, values in way.items() if key != "memory")


def test_implementations_that_disagree_are_not_timed(monkeypatch):
    monkeypatch.setattr(throughput.Ours, "run", lambda self, windows, epoch: 0.0)
    with pytest.raises(SystemExit, match="disagree"):
        throughput.measure(SMALL, SMALL_BERT, CPU, repeats=1, batch_size=4)


def test_table_and_figure_show_the_median_ratio(figures):
    for way, seconds in zip(figures["ways"].values(), ([8.0, 4.0], [2.0, 1.0], [1.0, 0.5]), strict=True):
        way["seconds"] = seconds
    result = json.loads(json.dumps({"machine": describe(CPU), "datasets": {"mosi": figures}}))
    assert "| **times as fast** | **1.0** | **4.0** | **8.0** |" in as_table("mosi", result["datasets"]["mosi"])
    svg = draw(result)
    assert "4.0 times as fast" in svg and "8.0 times as fast" in svg and "MOSI" in svg


def test_the_share_of_an_evaluation_is_that_of_its_forward_pass(figures):
    way = figures["ways"]["float32"] | {"evaluation_seconds": [2.0], "rate: fastest": [figures["evaluation_flops"]]}
    assert evaluation_share(figures, way) == 0.5
    lengths = make_features(dataclasses.replace(SMALL, clips=SMALL.clips | {"test": 2}), 300)["valid"]["text_bert"][
        :, 1
    ].sum(axis=1)
    assert 3 * figures["evaluation_flops"] == needed_flops(lengths.astype(int), SMALL_BERT)


def test_an_epoch_has_all_windows_and_the_validation_split(figures):
    for way in figures["ways"].values():  # 16 clips a window, 6 evaluated
        way["seconds"], way["evaluation_seconds"] = [1.6] * 2, [0.06] * 2
    clips = SHAPES["mosi"].clips
    expected = f"{clips['train'] * 0.1 + clips['valid'] * 0.01:.0f}"
    assert f"| seconds for an epoch with validation | {expected} | {expected} | {expected} |" in as_table(
        "mosi", figures
    )


def test_needed_flops_of_one_layer_by_hand():
    """Two tokens, width 16: keys and values of both tokens, everything else of the first token only."""
    encoder = BertConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1)
    lengths = torch.tensor([2]).numpy()
    forward = 2 * 2 * (2 * 16 * 16) + 2 * (2 * 16 * 16) + 2 * (2 * 16 * 32) + 2 * (2 * 2 * 16)
    assert needed_flops(lengths, encoder) == 3 * forward


def test_peak_memory_of_an_allocation_is_its_size():
    peak = peak_memory(lambda: torch.ones(50_000_000).sum(), CPU)
    assert peak is None or 190e6 < peak < 260e6


def test_synthetic_features_have_the_sizes_of_their_shape():
    split = make_features(SMALL, vocabulary=300)["train"]
    assert split["audio"].shape == (40, 30, 5) and split["vision"].shape == (40, 40, 20)
    shape = dataclasses.replace(SHAPES["mosi"], clips={"train": 2000}, audio=(1, 1), vision=(1, 1))
    tokens = make_features(shape, vocabulary=300)["train"]["text_bert"][:, 1].sum(axis=1)
    assert math.isclose(tokens.mean(), SHAPES["mosi"].mean_tokens, rel_tol=0.05) and tokens.max() <= 50


def test_label_generation_is_timed_for_each_corpus_size():
    times = ulgm_cost.measure(CPU, corpora=(200, 400), repeats=3)
    assert {clips: len(values) for clips, values in times.items()} == {200: 3, 400: 3}


def test_every_cpu_kernel_is_timed_with_and_without():
    times = kernels.measure(SMALL, SMALL_BERT, turns=1, batch_size=4)
    assert {"all kernels", "PyTorch's dropout", "PyTorch's attention", "denormal numbers"} < times.keys()
    assert "its linear layers alone" in times
    assert all(len(values) == 1 and values[0] > 0 for values in times.values())
    table = kernels.as_table({"all kernels": [2.0, 4.0], "PyTorch's dropout": [3.0, 5.0]})
    assert "| all kernels | 3.00 | +0.0% |\n| PyTorch's dropout | 4.00 | +37.5% |" in table


def test_epochs_of_a_feature_file_are_timed_in_every_way(tmp_path):
    dataset = DATASETS["mosi"]
    features = tiny.make_features()
    store = open_store(tiny.write_features(tmp_path / "f.pkl", features), dataset, False, None, None)
    for key, values in epoch.padded(store.splits["train"], dataset.text_length).items():
        given = np.asarray(features["train"][key], np.float32)
        values = np.asarray(values)
        assert values.shape[1:2] >= given.shape[1:2]
        if values.ndim == 3 and key != "text_bert":
            np.testing.assert_array_equal(values, given[:, : values.shape[1]])
        assert values.sum() == given.sum()
    times = epoch.measure(store, tiny.make_bert().config, dataset, epochs=2)
    assert [len(values) for values in times.values()] == [2, 2, 2]
    assert "| float32 | 2.0 | 4.0 |" in epoch.as_table({"released way": [8.0, 8.0], "float32": [2.0, 2.0]})


def test_start_is_measured_in_every_case(tmp_path, monkeypatch):
    path = tmp_path / "mosi.pkl"
    monkeypatch.setitem(SHAPES, "mosi", SMALL)
    start.write("mosi", str(path))
    for case in start.CASES:
        figures = start.measure(case, "mosi", path)
        assert figures["seconds"] > 0 and figures["peak"] > 0


def test_samples_of_one_distribution_pass_and_of_another_fail():
    released = pd.read_json(distribution.RELEASED_RUNS)
    assert len(released) == 12 and f"{released['MAE'].mean():.4f}" == "0.2693"
    table, similar = distribution.compare(released.iloc[::-1], released)
    assert similar and "| MAE | 0.2693 ± 0.0182 | 0.2693 ± 0.0182 | 1.00 |" in table
    table, similar = distribution.compare(released.assign(MAE=released["MAE"] + 0.05), released)
    assert not similar and "| MAE | 0.2693 ± 0.0182 | 0.3193 ± 0.0182 | 0.00 |" in table
    one_undefined = released["Corr"].where(released.index > 0)
    assert not distribution.compare(released.assign(Corr=one_undefined), released)[1]
