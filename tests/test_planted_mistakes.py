"""Small mistakes planted in the program, each of which the float64 replay must notice.

The subtlest, such as another epsilon, would pass a replay in float32, whose tolerances must be wide.
"""

from collections.abc import Callable

import pytest
import torch
from recorded import IN_REPOSITORY, replay
from torch import nn
from transformers import BertModel

import models.ulgm
import trains.self_mm
import trains.training
from data.load_data import ClipDataset
from models.bert_text_encoder import BertTextEncoder
from models.ulgm import ULGM, TaskState

Plant = Callable[[pytest.MonkeyPatch], None]
MISTAKES: dict[str, Plant] = {}


def mistake(plant: Plant) -> Plant:
    MISTAKES[plant.__name__] = plant
    return plant


@mistake
def eps_of_ulgm_1e_6(monkeypatch):
    monkeypatch.setattr(models.ulgm, "EPS", 1e-6)


def change_optimizer(monkeypatch, change: Callable[[torch.optim.Adam], None]) -> None:
    make_optimizer = trains.training.make_optimizer

    def changed(*arguments):
        optimizer = make_optimizer(*arguments)
        change(optimizer)
        return optimizer

    monkeypatch.setattr(trains.training, "make_optimizer", changed)


def group(optimizer: torch.optim.Adam, name: str) -> dict:
    return next(group for group in optimizer.param_groups if group["name"] == name)


@mistake
def eps_of_adam_1e_9(monkeypatch):
    def change(optimizer):
        for each in optimizer.param_groups:
            each["eps"] = 1e-9

    change_optimizer(monkeypatch, change)


@mistake
def a_learning_rate_larger_by_one_in_ten_thousand(monkeypatch):
    def change(optimizer):
        group(optimizer, "video")["lr"] *= 1 + 1e-4

    change_optimizer(monkeypatch, change)


@mistake
def weight_decay_for_biases_of_bert(monkeypatch):
    def change(optimizer):
        group(optimizer, "bert_no_decay")["weight_decay"] = group(optimizer, "bert")["weight_decay"]

    change_optimizer(monkeypatch, change)


@mistake
def decoupled_weight_decay(monkeypatch):
    def change(optimizer):
        for each in optimizer.param_groups:
            each["decoupled_weight_decay"] = True

    change_optimizer(monkeypatch, change)


@mistake
def gradients_averaged_over_micro_batches(monkeypatch):
    """Adam's steps are nearly the same for gradients of any scale."""

    def average(optimizer, *_):
        for each in optimizer.param_groups:
            for parameter in each["params"]:
                if parameter.grad is not None:
                    parameter.grad /= 4

    change_optimizer(monkeypatch, lambda optimizer: optimizer.register_step_pre_hook(average))


def change_bert(monkeypatch, change: Callable[[BertModel], None]) -> None:
    original = BertTextEncoder.__init__

    def changed(self, bert):
        change(bert)
        original(self, bert)

    monkeypatch.setattr(BertTextEncoder, "__init__", changed)


@mistake
def gelu_by_tanh(monkeypatch):
    def change(bert):
        for layer in bert.encoder.layer:
            layer.intermediate.intermediate_act_fn = nn.GELU(approximate="tanh")

    change_bert(monkeypatch, change)


@mistake
def eps_of_layer_norms_1e_9(monkeypatch):
    def change(bert):
        for module in bert.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-9

    change_bert(monkeypatch, change)


@mistake
def features_written_before_the_labels_are_generated(monkeypatch):
    def update(self, clips, microbatches, features, epoch):
        start = 0
        for microbatch in clips.split(microbatches):
            own = {task: features[task].detach()[start : start + len(microbatch)] for task in self.tasks}
            start += len(microbatch)
            for task, state in self.tasks.items():
                state.write(microbatch, state.labels[microbatch], own[task])
            for task, labels in self._relabel(microbatch, own, epoch).items():
                self.tasks[task].write(microbatch, labels, own[task])

    monkeypatch.setattr(ULGM, "update", torch.no_grad()(update))


@mistake
def centres_one_micro_batch_late(monkeypatch):
    write, relative_distance, centres = TaskState.write, TaskState.relative_distance, TaskState.centres.fget

    def remember_and_write(self, *arguments):
        self.late_centres = centres(self)
        write(self, *arguments)

    def to_late_centres(self, features):
        with pytest.MonkeyPatch.context() as within:
            within.setattr(TaskState, "centres", self.late_centres)
            return relative_distance(self, features)

    monkeypatch.setattr(TaskState, "write", remember_and_write)
    monkeypatch.setattr(TaskState, "relative_distance", to_late_centres)


@mistake
def momentum_of_the_next_epoch(monkeypatch):
    original = ULGM._relabel

    def relabel(self, clips, features, epoch):
        return original(self, clips, features, epoch + (epoch > 1))

    monkeypatch.setattr(ULGM, "_relabel", relabel)


@mistake
def shares_in_float32(monkeypatch):
    batch = ClipDataset._batch
    monkeypatch.setattr(ClipDataset, "_batch", lambda self, clips, shares: batch(self, clips, shares.float()))


class Unrounded(float):
    """Reported as rounded, but compared as it was."""

    def __rmul__(self, sign: int) -> float:
        return sign * self.exact


@mistake
def epochs_compared_by_the_unrounded_loss(monkeypatch):
    def rounded(value):
        loss = Unrounded(round(value, 4))
        loss.exact = value
        return loss

    monkeypatch.setattr(trains.self_mm, "rounded", rounded)


@mistake
def an_equal_loss_counts_as_better(monkeypatch):
    monkeypatch.setattr(trains.self_mm, "MARGIN", 0.0)


# Micro-batches of 6, because 1/6 is inexact in binary, unlike 1/8.
RECORDS = {name: IN_REPOSITORY / "mosei_odd64" for name in MISTAKES}
# A rounded validation loss ended this one.
RECORDS |= dict.fromkeys(
    ("epochs_compared_by_the_unrounded_loss", "an_equal_loss_counts_as_better"), IN_REPOSITORY / "mmsa_rounded64"
)


@pytest.mark.parametrize("name", MISTAKES)
def test_the_replay_notices(name, monkeypatch, tmp_path):
    MISTAKES[name](monkeypatch)
    with pytest.raises(AssertionError) as noticed:
        replay(RECORDS[name], tmp_path)
    print(f"{name}: {noticed.value}")
