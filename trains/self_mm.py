"""Self-MM's training (Algorithm 1 of the paper): one network, four tasks, and labels generated along the way."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from config.config_regression import Config
from data.load_data import Windows
from models.batch import Batch, Window
from models.self_mm import Outputs
from models.ulgm import ULGM
from trains.training import Training
from utils.errors import DivergedError
from utils.metrics import lower_is_better, mean_absolute_error, rounded

Metrics = Callable[[np.ndarray, np.ndarray], dict[str, float]]
MARGIN = 1e-6  # as released, a score must beat the best so far by at least this


class EpochResult(NamedTuple):
    epoch: int  # from 1
    train_loss: float  # summed over tasks, mean over micro-batches
    valid: dict[str, float]  # metrics, and Loss, the fusion task's mean absolute error
    best_epoch: int  # so far, by the validation split's KeyEval
    seconds: float


def fit(training: Training, train: Windows, valid: Windows, config: Config, metrics: Metrics) -> Iterator[EpochResult]:
    """Continues a training run to its end, and yields after each epoch, with the model as that epoch left it.

    Raises DivergedError (see FiniteCheck), and Stopped at the end of the window during which a signal arrived.
    """
    sign = 1 if lower_is_better(config.KeyEval) else -1
    while not training.is_over(config):
        start = time.perf_counter()
        train_loss = train_one_epoch(training, train, config)
        valid_metrics, _ = evaluate(training.model, valid, metrics)
        if not np.isfinite(valid_metrics["Loss"]):
            raise DivergedError(f"epoch {training.epoch}: non-finite validation loss: try a lower learning rate")
        score = sign * valid_metrics[config.KeyEval]
        if score <= training.best_score - MARGIN or training.epoch == 1:
            training.best_epoch = training.epoch
            if np.isfinite(score):  # a correlation can be undefined
                training.best_score = score
        training.finish_epoch()
        yield EpochResult(training.epochs, train_loss, valid_metrics, training.best_epoch, time.perf_counter() - start)


def train_one_epoch(training: Training, train: Windows, config: Config) -> float:
    """Runs the remaining windows of the current epoch. Returns the epoch's loss, a mean over micro-batches."""
    model, ulgm, optimizer = training.model, training.ulgm, training.optimizer
    model.train()
    for window in train.of_epoch(training.epoch, done=training.windows):  # one optimizer step
        # As released, an epoch's incomplete last window updates labels and features, but no weights.
        updates_weights = config.keep_last_window or len(window.microbatches) == config.update_epochs
        with torch.set_grad_enabled(updates_weights):
            features, losses = forward_backward(model, ulgm, window)
        features, losses = train.ranks.combine(features, losses, model.parameters(), len(window.clips))
        training.between_windows = False
        if updates_weights:
            optimizer.step()
        ulgm.update(window.clips, window.microbatches, features, training.epoch)
        training.finish_window(window, losses)
        optimizer.zero_grad()
    training.check.raise_if_broken()
    return float(training.loss) / training.microbatches


def forward_backward(model: nn.Module, ulgm: ULGM, window: Window) -> tuple[dict[str, Tensor], Tensor]:
    """Runs a window, and accumulates the gradient of its loss if gradients are enabled.

    The released code runs the micro-batches one by one and accumulates their gradients. Neither the weights nor the window's
    labels change within a window, so a single pass over it, with the sum of the micro-batches' mean losses, has the same
    gradient. Returns task -> (B, D) features, and (B,) each clip's part of that sum.
    """
    features, losses = [], []  # one item per pass
    for batch in window.passes:
        output = model(batch)
        clip_losses = batch.shares.to(model.dtype) * multitask_loss(output, ulgm, batch)
        if torch.is_grad_enabled():
            clip_losses.sum().backward()
        features.append(output.features)
        losses.append(clip_losses.detach())
    return concatenate(features), torch.cat(losses)


def multitask_loss(outputs: Outputs, ulgm: ULGM, batch: Batch) -> Tensor:
    """(B,) each clip's weighted absolute error, summed over tasks (section 3.4). `Batch.shares` turn the sum into a mean."""
    errors = [
        ulgm.weights(task, batch.clips) * torch.abs(score - ulgm.targets(task, batch.clips))
        for task, score in outputs.scores.items()
    ]
    return torch.stack(errors).sum(dim=0)


def evaluate(model: nn.Module, windows: Windows, metrics: Metrics) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The fusion task's metrics and Loss on a split, and each task's scores (N,) in file order."""
    scores = predict(model, windows)
    values = metrics(scores["fusion"], windows.labels)
    loss = float(str(mean_absolute_error(scores["fusion"], windows.labels)))  # 0.8, not 0.800000011920929
    values["Loss"] = rounded(loss) if model.hyper_parameters.round_scores else loss
    return windows.ranks.broadcast_object(values), scores  # the last bits differ between ranks, and they must agree


def predict(model: nn.Module, windows: Windows) -> dict[str, np.ndarray]:
    """Each task's scores (N,), in file order."""
    scores = for_all_clips(model, windows, lambda batch: model(batch).scores)
    return {task: values.numpy() for task, values in scores.items()}


def encode_texts(model: nn.Module, windows: Windows) -> None:
    """Encodes every text once, for an encoder that isn't trained."""

    def encode(batch: Batch) -> dict[str, Tensor]:
        with model.autocast(batch):
            return {"text": model.text_encoder(batch.text).to(model.dtype)}

    windows.clips.text_vectors = for_all_clips(model, windows, encode)["text"].to(windows.clips.home)


@torch.no_grad()
def for_all_clips(model: nn.Module, windows: Windows, call: Callable[[Batch], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Applies a function to all clips, with the model in evaluation mode: name -> (N, ...) on the CPU, in file order."""
    model.eval()
    clips, results = [], []
    for window in windows.of_epoch(1):  # all epochs of an evaluation are equal
        clips.append(window.clips)
        results.append(windows.ranks.gather(concatenate(list(map(call, window.passes))), len(window.clips)))
    order = torch.cat(clips).cpu().argsort()
    return {name: values.cpu()[order] for name, values in concatenate(results).items()}


def concatenate(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenates the results of several batches, name by name."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
