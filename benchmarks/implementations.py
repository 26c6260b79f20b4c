"""The released code's training and ours behind one interface, for benchmarks.throughput to time.

Each implementation has its own model. All start from the same weights.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from benchmarks.plain_baseline import PlainWay, plain_adam
from benchmarks.tables import RELEASED
from config.config_regression import Config
from data.load_data import ClipDataset, Windows, evaluation_windows
from data.store import FeatureStore
from models.batch import send
from models.self_mm import SelfMM
from trains.self_mm import evaluate, train_one_epoch
from trains.training import Training, make_optimizer
from utils.metrics import METRICS

EPOCH = 3  # any epoch in which ULGM relabels


class Released:
    """The baseline, as the released code trains."""

    def __init__(self, model: SelfMM, features: dict, config: Config, device: torch.device):
        self.model, self.config = model, config
        self.train = PlainWay(model, features["train"], config, device)
        self.valid = PlainWay(model, features["valid"], config, device)
        self.optimizer = plain_adam(make_optimizer(model, config))

    def batches(self, microbatches: list[Tensor]) -> list:
        return [self.train.batch(clips) for clips in microbatches]

    def text(self, batch) -> Tensor:
        return self.train.text(batch)

    def sequences(self, batch) -> list[Tensor]:
        return self.train.sequences(batch)

    def relabel(self, microbatches: list[Tensor], features: dict[str, Tensor]) -> None:
        parts = {task: values.split([len(clips) for clips in microbatches]) for task, values in features.items()}
        for number, clips in enumerate(microbatches):
            features = {task: part[number] for task, part in parts.items()}
            self.train.update(features, clips.to(self.train.device), EPOCH)

    def run(self, windows: list[list[Tensor]], epoch: int = EPOCH) -> float:
        """Trains on windows of micro-batches. Returns the mean loss."""
        self.model.train()
        losses = [self.train.step(window, self.optimizer, epoch) for window in windows]
        return float(np.mean(sum(losses, [])))  # the last window may have fewer micro-batches

    def labels(self) -> dict[str, Tensor]:
        return self.train.labels

    def scores(self) -> np.ndarray:
        return self.valid.score(torch.arange(len(self.valid.text_bert)), self.config.batch_size).numpy()


class Ours:
    """Training as run.py does it."""

    def __init__(self, model: SelfMM, store: FeatureStore, device: torch.device, num_workers: int = 0):
        self.model, self.config = model, model.hyper_parameters
        self.train, self.valid = (ClipDataset(store.splits[name], device) for name in ("train", "valid"))
        plan: list[list[Tensor]] = []
        self._plan = plan
        self._windows = Windows(self.train, lambda epoch: plan, num_workers)  # made once: so are its workers
        self.training = Training(model, evaluation_windows(self.train), self.config)
        self.ulgm, self.optimizer = self.training.ulgm, self.training.optimizer

    def batches(self, microbatches: list[Tensor]) -> list:
        return send(self.train[microbatches], self.train.device).passes

    def text(self, batch) -> Tensor:
        with self.model.autocast(batch):
            return self.model.text_encoder(batch.text)

    def sequences(self, batch) -> list[Tensor]:
        with self.model.autocast(batch):
            return [self.model.audio_encoder(batch.audio), self.model.vision_encoder(batch.vision)]

    def relabel(self, microbatches: list[Tensor], features: dict[str, Tensor]) -> None:
        clips = torch.cat(microbatches).to(self.train.device)
        self.ulgm.update(clips, [len(part) for part in microbatches], features, EPOCH)

    def run(self, windows: list[list[Tensor]], epoch: int = EPOCH) -> float:
        """Trains on windows of micro-batches. Returns the mean loss."""
        self.training.epochs, self._plan[:] = epoch - 1, windows
        loss = train_one_epoch(self.training, self._windows, self.config)
        self.training.finish_epoch()
        return loss

    def labels(self) -> dict[str, Tensor]:
        return {task: state.labels for task, state in self.ulgm.tasks.items()}

    def scores(self) -> np.ndarray:
        return evaluate(self.model, evaluation_windows(self.valid), METRICS["mosi"])[1]["fusion"]


def make_implementations(
    features: dict, store: FeatureStore, bert: BertConfig, config: Config, device: torch.device
) -> dict[str, Released | Ours]:
    """The baseline, ours in float32 and ours in bfloat16, with equal weights. features: what the store was made from."""
    torch.manual_seed(0)
    widths = store.audio_width, store.vision_width
    model = SelfMM(config, bert.to_dict(), *widths, BertModel(bert, add_pooling_layer=False)).to(device)
    implementations: dict[str, Released | Ours] = {RELEASED: Released(model, features, config, device)}
    for precision in ("float32", "bf16"):
        copy = SelfMM(dataclasses.replace(config, precision=precision), bert.to_dict(), *widths).to(device)
        copy.load_state_dict(model.state_dict())
        implementations[precision] = Ours(copy, store, device)
    return implementations
