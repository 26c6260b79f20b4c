"""A GPU arrives where the CPU does. Skipped where there is none."""

import pytest
import tiny
import torch

from config.config_regression import DATASETS, make_config
from data.load_data import ClipDataset, evaluation_windows, training_windows
from data.store import open_store
from models.self_mm import SelfMM
from trains.self_mm import fit
from utils.metrics import METRICS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-3), ("bf16", 5e-2)])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_on_a_gpu_equals_training_on_the_cpu(tmp_path, precision, tolerance, num_workers):
    dropouts = {f"post_{name}_dropout": 0.0 for name in ("fusion", "audio", "video")}
    config = make_config("mosi", batch_size=4, update_epochs=2, max_epochs=4, precision=precision, **dropouts)
    store = open_store(tiny.write_features(tmp_path / "f.pkl"), DATASETS["mosi"], False, None, None)
    clips = {name: ClipDataset(split) for name, split in store.splits.items()}
    results = []
    for device in (torch.device("cpu"), torch.device("cuda", 0)):
        torch.manual_seed(1)
        bert = tiny.make_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        model = SelfMM(config, bert.config.to_dict(), store.audio_width, store.vision_width, bert).to(device)
        train = training_windows(clips["train"], config, seed=1, device=device, num_workers=num_workers)
        *_, last = fit(model, train, evaluation_windows(clips["valid"]), config, METRICS["mosi"])
        results.append(last)
    on_cpu, on_gpu = results
    assert on_gpu.train_loss == pytest.approx(on_cpu.train_loss, abs=tolerance)
    assert on_gpu.valid["Loss"] == pytest.approx(on_cpu.valid["Loss"], abs=tolerance)
    for task, state in on_cpu.ulgm.tasks.items():
        torch.testing.assert_close(on_gpu.ulgm.tasks[task].centres.cpu(), state.centres, atol=10 * tolerance, rtol=0)
