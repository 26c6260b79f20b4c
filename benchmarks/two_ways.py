"""The two ways to train that benchmarks.throughput times: the released code's and ours, under the same names.

Each way has its own model; all start from the same weights.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from benchmarks.plain_baseline import PlainWay, plain_adam
from config.config_regression import Config
from data.load_data import ClipDataset, Windows, evaluation_windows
from data.store import FeatureStore
from models.self_mm import SelfMM
from trains.self_mm import evaluate, train_one_epoch
from trains.training import Training, make_optimizer
from utils.metrics import METRICS

RELEASED = "released way"


class ReleasedWay:
    """The baseline, under the names that are timed."""

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
            self.train.update(
                {task: part[number] for task, part in parts.items()}, clips.to(self.train.device), epoch=3
            )

    def run(self, windows: list[list[Tensor]], epoch: int) -> float:
        self.model.train()
        return float(np.mean([self.train.step(window, self.optimizer, epoch) for window in windows]))

    def labels(self) -> dict[str, Tensor]:
        return self.train.labels

    def scores(self) -> np.ndarray:
        return self.valid.score(torch.arange(len(self.valid.text_bert)), self.config.batch_size).numpy()


class OurWay:
    def __init__(self, model: SelfMM, store: FeatureStore, device: torch.device):
        self.model, self.config = model, model.hyper_parameters
        self.train, self.valid = (ClipDataset(store.splits[name], device) for name in ("train", "valid"))
        self.training = Training(model, evaluation_windows(self.train), self.config)
        self.ulgm, self.optimizer = self.training.ulgm, self.training.optimizer

    def batches(self, microbatches: list[Tensor]) -> list:
        return self.train[microbatches].to(self.train.device).passes

    def text(self, batch) -> Tensor:
        with self.model.autocast(batch):
            return self.model.text_encoder(batch.text)

    def sequences(self, batch) -> list[Tensor]:
        with self.model.autocast(batch):
            return [self.model.audio_encoder(batch.audio), self.model.vision_encoder(batch.vision)]

    def relabel(self, microbatches: list[Tensor], features: dict[str, Tensor]) -> None:
        clips = torch.cat(microbatches).to(self.train.device)
        self.ulgm.update(clips, [len(part) for part in microbatches], features, epoch=3)

    def run(self, windows: list[list[Tensor]], epoch: int) -> float:
        self.training.epochs = epoch - 1
        loss = train_one_epoch(self.training, Windows(self.train, lambda epoch: windows), self.config)
        self.training.finish_epoch()
        return loss

    def labels(self) -> dict[str, Tensor]:
        return {task: state.labels for task, state in self.ulgm.tasks.items()}

    def scores(self) -> np.ndarray:
        return evaluate(self.model, evaluation_windows(self.valid), METRICS["mosi"])[1]["fusion"]


def make_ways(
    features: dict, store: FeatureStore, encoder: BertConfig, config: Config, device: torch.device
) -> dict[str, ReleasedWay | OurWay]:
    """The baseline, ours in float32, and ours in bfloat16, each with a model of its own, all with the same weights."""
    torch.manual_seed(0)
    bert = BertModel(encoder, add_pooling_layer=False)
    first = SelfMM(config, encoder.to_dict(), store.audio_width, store.vision_width, bert)
    models = [first]
    for precision in ("float32", "bf16"):
        mine = dataclasses.replace(config, precision=precision)
        models.append(SelfMM(mine, encoder.to_dict(), store.audio_width, store.vision_width))
        models[-1].load_state_dict(first.state_dict())
    released, ours, in_bf16 = (model.to(device) for model in models)
    return {
        RELEASED: ReleasedWay(released, features, config, device),
        "float32": OurWay(ours, store, device),
        "bf16": OurWay(in_bf16, store, device),
    }
