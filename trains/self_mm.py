"""The training of Self-MM (Algorithm 1 of the paper): one network, four tasks, and labels that are made on the way."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from config.config_regression import Config
from data.load_data import Windows
from models.batch import Batch
from models.self_mm import Outputs
from models.ulgm import ULGM
from trains.training import Training
from utils.errors import DivergedError
from utils.metrics import lower_is_better, mean_absolute_error
from utils.progress import progress
from utils.signals import stop_if_asked

Metrics = Callable[[np.ndarray, np.ndarray], dict[str, float]]

# A score must be better than the best so far by more than this, as in the released code.
MARGIN = 1e-6
LOSS = "loss"  # beside the tasks' names


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to."""

    epoch: int  # from 1
    train_loss: float  # mean over micro-batches of the loss, summed over tasks
    valid: dict[str, float]  # metrics, and Loss: the mean absolute error of fusion
    best_epoch: int  # so far, by KeyEval on the validation split
    seconds: float

    @property
    def is_best(self) -> bool:
        return self.epoch == self.best_epoch

    def __str__(self) -> str:
        telling = [name for name in self.valid if name in ("Loss", "Corr") or name.endswith("acc_2")]
        scores = "  ".join(f"{name} {self.valid[name]:.4f}" for name in telling)
        best = "  best so far" if self.is_best else ""
        return f"epoch {self.epoch:2d}  {self.seconds:5.1f} s  train {self.train_loss:.4f}  valid: {scores}{best}"


def fit(training: Training, train: Windows, valid: Windows, config: Config, metrics: Metrics) -> Iterator[EpochResult]:
    """Trains a model from where the training stands, and yields after each epoch, until it is over.

    At each yield the model is as that epoch left it. Raises UserError where a number is none any more, or where a class has
    no clip left; and Stopped after the window in which a signal came.
    """
    sign = 1 if lower_is_better(config.KeyEval) else -1
    while not training.is_over(config):
        start = time.perf_counter()
        train_loss = train_one_epoch(training, train, config)
        valid_metrics, _ = evaluate(training.model, valid, metrics, config)
        valid_metrics = train.ranks.from_first(valid_metrics)  # ranks whose last bits differ must not decide apart
        if not np.isfinite(valid_metrics["Loss"]):
            raise DivergedError(f"epoch {training.epoch}: the validation loss is no number: try a lower learning rate")
        score = sign * valid_metrics[config.KeyEval]
        if score <= training.best_score - MARGIN or training.epoch == 1:
            training.best_epoch = training.epoch
            if np.isfinite(score):  # a correlation may be undefined
                training.best_score = score
        training.finish_epoch()
        seconds = time.perf_counter() - start
        yield EpochResult(training.epochs, train_loss, valid_metrics, training.best_epoch, seconds)


def train_one_epoch(training: Training, train: Windows, config: Config) -> float:
    """Runs the windows that are left of the epoch under way. Returns its loss, a mean over micro-batches.

    The released code runs a window's micro-batches one by one and adds their gradients up. Neither the weights nor the
    window's own labels change inside a window, so one pass over all of it, with the sum of the micro-batches' mean losses,
    has the same gradient.
    """
    model, ulgm, optimizer, ranks = training.model, training.ulgm, training.optimizer, train.ranks
    model.train()
    windows = train.of_epoch(training.epoch, training.windows)
    bar = progress(windows, f"epoch {training.epoch:3d}", "window", len(train), training.windows, ranks.is_first)
    for window in bar:
        # As in the released code, an incomplete window at an epoch's end updates labels and features, but no weights.
        learns = config.keep_last_window or len(window.microbatches) == config.update_epochs
        found = []  # by each pass: its clips' features and losses
        ranks.draw_apart(training.seed, training.epoch, training.windows)
        with torch.set_grad_enabled(learns):
            for batch in window.passes:
                output = run_model(model, batch, config)
                clip_losses = batch.weights * multitask_loss(output, ulgm, batch)
                if learns:
                    clip_losses.sum().backward()
                found.append(output.features | {LOSS: clip_losses.detach()})
        features = ranks.gather(end_to_end(found), len(window.clips))
        losses = features.pop(LOSS)
        if learns:
            ranks.sum_gradients(model.parameters())
        training.between_windows = False
        if learns:
            optimizer.step()
        ulgm.update(window.clips, window.microbatches, features, training.epoch)
        training.count(window, losses)
        optimizer.zero_grad()
        stop_if_asked(ranks.largest)
    training.watch.raise_if_broken()
    return float(training.loss) / training.microbatches


def run_model(model: nn.Module, batch: Batch, config: Config) -> Outputs:
    """Encoders and heads, in bfloat16 where the config says so; scores and features come back in float32."""
    with autocast(batch, config):
        return model(batch)


def autocast(batch: Batch, config: Config) -> torch.autocast:
    """In this context encoders and heads compute in bfloat16, if the config says so."""
    return torch.autocast(batch.clips.device.type, torch.bfloat16, enabled=config.precision == "bf16")


def end_to_end(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """task -> (B, ...) of some clips, and of some more -> of all of them."""
    parts = list(parts)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def multitask_loss(outputs: Outputs, ulgm: ULGM, batch: Batch) -> Tensor:
    """(B,) each clip's weighted absolute errors, summed over the tasks (section 3.4)."""
    errors = [
        ulgm.weights(task, batch.clips) * torch.abs(score - ulgm.targets(task, batch.clips))
        for task, score in outputs.scores.items()
    ]
    return torch.stack(errors).sum(dim=0)


def evaluate(
    model: nn.Module, windows: Windows, metrics: Metrics, config: Config
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The fusion score's metrics and Loss on a split, and each task's scores (N,) in the file's order."""
    scores = predict(model, windows, config)
    values = metrics(scores["fusion"], windows.labels)
    values["Loss"] = float(mean_absolute_error(scores["fusion"], windows.labels))
    return values, scores


@torch.no_grad()
def predict(model: nn.Module, windows: Windows, config: Config) -> dict[str, np.ndarray]:
    """Each task's scores (N,), in the file's order."""
    model.eval()
    clips, parts = [], []
    for window in windows:
        outputs = [run_model(model, batch, config) for batch in window.passes]
        clips.append(window.clips)
        parts.append(windows.ranks.gather(end_to_end(output.scores for output in outputs), len(window.clips)))
        stop_if_asked(windows.ranks.largest)
    order = torch.cat(clips).cpu().argsort()
    return {task: score.cpu()[order].numpy() for task, score in end_to_end(parts).items()}


@torch.no_grad()
def encode_texts(model: nn.Module, windows: Windows, config: Config) -> None:
    """Reads every text once, with an encoder that isn't trained, so that no epoch needs to."""
    model.eval()
    vectors = torch.empty(len(windows.labels), model.text_encoder.width)
    for window in windows:
        parts = []
        for batch in window.passes:
            with autocast(batch, config):
                parts.append({"text": model.text_encoder(batch.text).float()})
        vectors[window.clips.cpu()] = windows.ranks.gather(end_to_end(parts), len(window.clips))["text"].cpu()
        stop_if_asked(windows.ranks.largest)
    windows.clips.replace_texts(vectors)
