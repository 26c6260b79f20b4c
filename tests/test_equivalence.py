"""A step on a packed window with running centres equals the plain algorithm of the released code."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from benchmarks.plain_baseline import PlainWay, plain_adam
from config.config_regression import DATASETS, make_config
from data.load_data import ClipDataset, Windows
from data.store import open_store
from models.self_mm import SelfMM
from models.ulgm import NEGATIVE, POSITIVE
from trains.self_mm import train_one_epoch
from trains.training import Training, make_optimizer

CONFIG = make_config(
    "mosi", batch_size=4, update_epochs=2,
    a_lstm_hidden_size=6, v_lstm_hidden_size=7, audio_out=5, video_out=6,
    post_fusion_dim=9, post_text_dim=8, post_audio_dim=5, post_video_dim=7,
    post_fusion_dropout=0.0, post_audio_dropout=0.0, post_video_dropout=0.0,
)  # fmt: skip


def into_windows(microbatches: list[torch.Tensor], update_epochs: int) -> list[list[torch.Tensor]]:
    return [microbatches[i : i + update_epochs] for i in range(0, len(microbatches), update_epochs)]


def make_pair(tmp_path, config):
    """The same weights and clips for our step and the plain one."""
    features = tiny.make_features(audio_width=5)
    store = open_store(tiny.write_features(tmp_path / "f.pkl", features), DATASETS["mosi"], False, None, None)
    torch.manual_seed(1)
    models = []
    for _ in range(2):
        bert = tiny.make_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        models.append(SelfMM(config, bert.config.to_dict(), store.audio_width, store.vision_width, bert))
    models[1].load_state_dict(models[0].state_dict())
    clips = ClipDataset(store.splits["train"], max_clips_per_pass=config.max_clips_per_pass)
    return models[0], clips, PlainWay(models[1], features["train"], config)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float32"},
        {},
        {"max_clips_per_pass": 3},
        {"exclude_zero": True},
        {"tasks": "MA"},
        {"keep_last_window": True},
    ],
    ids=lambda changes: " ".join(f"{key}={value}" for key, value in changes.items()) or "default",
)
def test_windowed_training_equals_the_plain_way(tmp_path, changes):
    """21 clips in micro-batches of 4 and windows of 2: the last window is incomplete."""
    config = dataclasses.replace(CONFIG, **{"precision": "float64", **changes})
    exact = config.precision == "float64"
    model, clips, plain = make_pair(tmp_path, config)
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(3)).split(config.batch_size)
    windows = into_windows(list(order), config.update_epochs)
    ours = Windows(clips, lambda epoch: windows)
    training, plain_optimizer = Training(model, ours, config), plain_adam(make_optimizer(plain.model, config))
    for epoch in (1, 2, 3, 4):
        loss = train_one_epoch(training, ours, config)
        training.finish_epoch()
        plain_losses = []
        for window in windows:
            plain_losses += plain.step(window, plain_optimizer, epoch)
        assert loss == pytest.approx(np.mean(plain_losses), abs=1e-9 if exact else 1e-5)
        for task, state in training.ulgm.tasks.items():
            torch.testing.assert_close(state.labels, plain.labels[task], atol=1e-9 if exact else 2e-4, rtol=0)
            for sign in (POSITIVE, NEGATIVE):
                torch.testing.assert_close(
                    state.centres[sign], plain.centres[task][sign], atol=1e-9 if exact else 2e-5, rtol=0
                )


def test_one_window_has_the_gradient_of_its_microbatches(tmp_path):
    model, clips, plain = make_pair(tmp_path, CONFIG)
    gradients = {}

    class Recorder(torch.optim.SGD):
        def step(self):
            gradients.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    microbatches = [torch.tensor([3, 1, 4, 15]), torch.tensor([9, 2, 6, 5])]
    windows = Windows(clips, lambda epoch: [microbatches])
    training = Training(model, windows, CONFIG)
    training.optimizer = Recorder(model.parameters(), lr=0)
    for epoch in (1, 2, 3):  # in epoch 3 the unimodal tasks weigh in
        train_one_epoch(training, windows, CONFIG)
        training.finish_epoch()
        plain.model.zero_grad()
        for microbatch in microbatches:
            plain.microbatch(plain.batch(microbatch), epoch)
    compared = 0
    for name, parameter in plain.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                gradients[name], parameter.grad, atol=2e-6, rtol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
            )
            compared += 1
    assert compared == len(list(model.parameters()))


@pytest.mark.parametrize("decay", [1e-3, 0.0])
def test_weight_decay_alone_moves_the_unimodal_heads_in_the_first_two_epochs(tmp_path, decay):
    """Their errors have weight 0, so decay is Adam's whole gradient, and a step is the learning rate, however small it is."""
    config = dataclasses.replace(CONFIG, precision="float64", weight_decay_other=decay)
    model, clips, _ = make_pair(tmp_path, config)
    windows = into_windows(list(torch.arange(16).split(config.batch_size)), config.update_epochs)  # two
    before = {task: head.layer_2.weight.detach().clone() for task, head in model.heads.items()}
    ours = Windows(clips, lambda epoch: windows)
    training = Training(model, ours, config)
    for _ in (1, 2):
        train_one_epoch(training, ours, config)
        training.finish_epoch()
    for task in ("text", "audio", "vision"):
        moved = (model.heads[task].layer_2.weight - before[task]).detach().abs()
        assert moved.median() == pytest.approx(4 * config.learning_rate_other if decay else 0.0, rel=0.01)
