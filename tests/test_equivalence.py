"""Our windowed, packed, running-centre step against the plain way, written here as the released code does it."""

import dataclasses

import pytest
import tiny
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from config.config_regression import DATASETS, make_config
from data.load_data import ClipDataset, Windows
from data.store import open_store
from models.self_mm import SelfMM
from models.ulgm import EPS, NEGATIVE, POSITIVE, ULGM
from trains.self_mm import make_optimizer, train_one_epoch

CPU = torch.device("cpu")
CONFIG = make_config(
    "mosi", batch_size=4, update_epochs=2,
    a_lstm_hidden_size=6, v_lstm_hidden_size=7, audio_out=5, video_out=6,
    post_fusion_dim=9, post_text_dim=8, post_audio_dim=5, post_video_dim=7,
    post_fusion_dropout=0.0, post_audio_dropout=0.0, post_video_dropout=0.0,
)  # fmt: skip


class PlainWay:
    """Padded BERT, packed LSTM, one micro-batch at a time, centres taken anew over all clips."""

    def __init__(self, model: SelfMM, split: dict, config):
        self.model, self.split, self.config = model, split, config
        human = torch.tensor(split["regression_labels"])
        self.labels = {task: human.clone() for task in model.tasks}
        self.features = {task: torch.zeros(len(human), config.head_sizes[task][0]) for task in model.tasks}
        self.centres = {}

    def forward(self, clips: torch.Tensor) -> tuple[dict, dict]:
        ids, mask, segments = torch.tensor(self.split["text_bert"])[clips].unbind(1)
        model = self.model
        bert = model.text_encoder.bert
        text = bert(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state[:, 0]
        audio = self.sequence(model.audio_encoder, "audio", clips)
        vision = self.sequence(model.vision_encoder, "vision", clips)
        inputs = {"fusion": torch.cat([text, audio, vision], dim=1), "text": text, "audio": audio, "vision": vision}
        scores, features = {}, {}
        for task in model.tasks:
            head = model.heads[task]
            features[task] = head.layer_1(inputs[task]).relu()
            scores[task] = head.layer_3(head.layer_2(features[task]).relu()).reshape(-1)
        return scores, features

    def sequence(self, encoder: nn.Module, key: str, clips: torch.Tensor) -> torch.Tensor:
        lengths = torch.tensor(self.split[f"{key}_lengths"])[clips]
        packed = pack_padded_sequence(
            torch.tensor(self.split[key])[clips], lengths, batch_first=True, enforce_sorted=False
        )
        _, (last, _) = encoder.lstm(packed)
        return encoder.linear(last[-1])

    def microbatch(self, clips: torch.Tensor, epoch: int) -> torch.Tensor:
        """Backward of one micro-batch, then new labels, features and centres. Returns the loss."""
        scores, features = self.forward(clips)
        loss = 0
        for task, score in scores.items():
            shift = (self.labels[task][clips] - self.labels["fusion"][clips]).abs()
            weight = torch.ones_like(shift) if task == "fusion" else shift.tanh()
            loss = loss + (weight * (score - self.labels[task][clips]).abs()).mean()
        loss.backward()
        features = {task: feature.detach() for task, feature in features.items()}
        if epoch > 1:
            self.relabel(clips, features, epoch)
        for task, labels in self.labels.items():
            self.features[task][clips] = features[task]
            positive = labels > 0 if self.config.exclude_zero else labels >= 0
            self.centres[task] = (self.features[task][positive].mean(0), self.features[task][labels < 0].mean(0))
        return loss.detach()

    def relabel(self, clips: torch.Tensor, features: dict, epoch: int) -> None:
        def relative(task: str) -> torch.Tensor:
            to_positive, to_negative = ((features[task] - centre).norm(dim=-1) for centre in self.centres[task])
            return (to_negative - to_positive) / (to_positive + EPS)

        human = self.labels["fusion"][clips]
        for task in self.labels.keys() - {"fusion"}:
            ratio, difference = relative(task) / (relative("fusion") + EPS), relative(task) - relative("fusion")
            new = (0.5 * ratio * human + 0.5 * (human + difference)).clamp(-self.config.H, self.config.H)
            old = self.labels[task][clips]
            self.labels[task][clips] = (epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * new


class FixedOrder:
    """The same micro-batches each epoch."""

    def __init__(self, microbatches: list[torch.Tensor], update_epochs: int):
        self.windows = [microbatches[i : i + update_epochs] for i in range(0, len(microbatches), update_epochs)]

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self):
        return iter(self.windows)


def make_pair(tmp_path, config):
    """The same weights and clips for our way and the plain way."""
    features = tiny.make_features(audio_width=5)
    store = open_store(tiny.write_features(tmp_path / "f.pkl", features), DATASETS["mosi"], False, None, None)
    torch.manual_seed(1)
    models = []
    for _ in range(2):
        bert = tiny.make_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        models.append(SelfMM(config, bert.config.to_dict(), store.audio_width, store.vision_width, bert))
    models[1].load_state_dict(models[0].state_dict())
    clips = ClipDataset(store.splits["train"], config.max_clips_per_pass)
    sizes = {task: config.head_sizes[task][0] for task in config.task_names}
    ulgm = ULGM(torch.from_numpy(clips.split.labels["fusion"]), sizes, config.H, config.exclude_zero)
    return models[0], ulgm, clips, PlainWay(models[1], features["train"], config)


@pytest.mark.parametrize(
    "changes",
    [{}, {"max_clips_per_pass": 3}, {"exclude_zero": True}, {"tasks": "MA"}, {"keep_last_window": True}],
    ids=lambda changes: " ".join(f"{key}={value}" for key, value in changes.items()) or "default",
)
def test_windowed_training_equals_the_plain_way(tmp_path, changes):
    """21 clips in micro-batches of 4 and windows of 2: two full windows and one of 4 + 4 and one micro-batch of 1 left."""
    config = dataclasses.replace(CONFIG, **changes)
    model, ulgm, clips, plain = make_pair(tmp_path, config)
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(3)).split(config.batch_size)
    windows = FixedOrder(list(order), config.update_epochs)
    optimizer, plain_optimizer = make_optimizer(model, config), make_optimizer(plain.model, config)
    for group in plain_optimizer.param_groups:
        group["fused"] = False
    for epoch in (1, 2, 3, 4):
        loss = train_one_epoch(model, ulgm, optimizer, Windows(clips, windows, CPU), epoch, config)
        plain_losses = []
        for window in windows:
            plain_optimizer.zero_grad()
            plain_losses += [plain.microbatch(microbatch, epoch) for microbatch in window]
            if len(window) == config.update_epochs or config.keep_last_window:
                plain_optimizer.step()
        assert loss == pytest.approx(torch.stack(plain_losses).mean().item(), abs=1e-5)
        for task, state in ulgm.tasks.items():
            torch.testing.assert_close(state.labels, plain.labels[task], atol=2e-4, rtol=0)
            for sign in (POSITIVE, NEGATIVE):
                torch.testing.assert_close(state.centres[sign], plain.centres[task][sign], atol=2e-5, rtol=0)


def test_one_window_has_the_gradient_of_its_microbatches(tmp_path):
    model, ulgm, clips, plain = make_pair(tmp_path, CONFIG)
    gradients = {}

    class Recorder(torch.optim.SGD):
        def step(self):
            gradients.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    microbatches = [torch.tensor([3, 1, 4, 15]), torch.tensor([9, 2, 6, 5])]
    for epoch in (1, 2, 3):  # in epoch 3 the unimodal tasks weigh in
        windows = Windows(clips, FixedOrder(microbatches, 2), CPU)
        train_one_epoch(model, ulgm, Recorder(model.parameters(), lr=0), windows, epoch, CONFIG)
        plain.model.zero_grad()
        for microbatch in microbatches:
            plain.microbatch(microbatch, epoch)
    compared = 0
    for name, parameter in plain.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                gradients[name], parameter.grad, atol=2e-6, rtol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
            )
            compared += 1
    assert compared == len(list(model.parameters()))
