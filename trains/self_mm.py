"""The training of Self-MM (Algorithm 1 of the paper): one network, four tasks, and labels that are made on the way."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from config.config_regression import Config
from data.load_data import Windows
from models.self_mm import Outputs
from models.ulgm import ULGM
from utils.batch import Batch
from utils.functions import UserError
from utils.metrics import lower_is_better, mean_absolute_error
from utils.progress import progress

Metrics = Callable[[np.ndarray, np.ndarray], dict[str, float]]

# A score must be better than the best so far by more than this, as in the released code.
MARGIN = 1e-6


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to."""

    epoch: int  # from 1
    train_loss: float  # mean over micro-batches of the loss, summed over tasks
    valid: dict[str, float]  # metrics, and Loss: the mean absolute error of fusion
    best_epoch: int  # so far, by KeyEval on the validation split
    seconds: float
    ulgm: ULGM  # labels and centres as the epoch left them

    @property
    def is_best(self) -> bool:
        return self.epoch == self.best_epoch

    def __str__(self) -> str:
        telling = [name for name in self.valid if name in ("Loss", "Corr") or name.endswith("acc_2")]
        scores = "  ".join(f"{name} {self.valid[name]:.4f}" for name in telling)
        best = "  best so far" if self.is_best else ""
        return f"epoch {self.epoch:2d}  {self.seconds:5.1f} s  train {self.train_loss:.4f}  valid: {scores}{best}"


def fit(model: nn.Module, train: Windows, valid: Windows, config: Config, metrics: Metrics) -> Iterator[EpochResult]:
    """Trains a model, and yields after each epoch, until `early_stop` epochs in a row were no better.

    At each yield the model is as that epoch left it. Raises UserError where the loss is no number any more, or where a
    class has no clip left.
    """
    feature_sizes = {task: config.head_sizes[task][0] for task in config.task_names}
    ulgm = ULGM(torch.from_numpy(train.labels), feature_sizes, config.H, config.exclude_zero).to(train.device)
    optimizer = make_optimizer(model, config)
    sign = 1 if lower_is_better(config.KeyEval) else -1
    best, best_epoch = float("inf"), 0
    for epoch in itertools.count(1):
        start = time.perf_counter()
        train_loss = train_one_epoch(model, ulgm, optimizer, train, epoch, config)
        valid_metrics, _ = evaluate(model, valid, metrics, config)
        if not np.isfinite(valid_metrics["Loss"]):
            raise UserError(f"epoch {epoch}: the validation loss is no number any more: try a lower learning rate")
        score = sign * valid_metrics[config.KeyEval]
        if score <= best - MARGIN or epoch == 1:
            best, best_epoch = (score if np.isfinite(score) else best), epoch  # a correlation may be undefined
        yield EpochResult(epoch, train_loss, valid_metrics, best_epoch, time.perf_counter() - start, ulgm)
        if epoch - best_epoch >= config.early_stop or epoch == config.max_epochs:
            return


def train_one_epoch(
    model: nn.Module, ulgm: ULGM, optimizer: torch.optim.Optimizer, train: Windows, epoch: int, config: Config
) -> float:
    """Runs all windows once. Returns the loss, a mean over micro-batches.

    The released code runs a window's micro-batches one by one and adds their gradients up. Neither the weights nor the
    window's own labels change inside a window, so one pass over all of it, with the sum of the micro-batches' mean losses,
    has the same gradient.
    """
    model.train()
    seen = []  # of each pass: the clips, their weights and losses; read only at the end, as reading waits for a GPU
    microbatches = 0
    for window in progress(train, f"epoch {epoch:3d}", unit="window"):
        # As in the released code, an incomplete window at an epoch's end updates labels and features, but no weights.
        learns = config.keep_last_window or len(window.microbatches) == config.update_epochs
        outputs = []
        with torch.set_grad_enabled(learns):
            for batch in window.passes:
                output = run_model(model, batch, config)
                clip_losses = multitask_loss(output, ulgm, batch)
                if learns:
                    (clip_losses * batch.weights).sum().backward()
                seen.append((batch.clips, batch.weights, clip_losses.detach()))
                outputs.append(output)
        if learns:
            optimizer.step()
            optimizer.zero_grad()
        ulgm.update(window.clips, window.microbatches, Outputs.join(outputs), epoch)
        microbatches += len(window.microbatches)
    clips, weights, clip_losses = (torch.cat(column).cpu() for column in zip(*seen, strict=True))
    if not torch.isfinite(clip_losses).all():
        names = ", ".join(train.ids[clip] for clip in clips[~torch.isfinite(clip_losses)][:3].tolist())
        raise UserError(f"epoch {epoch}: the loss is no number any more, first at {names}: try a lower learning rate")
    ulgm.check()
    return float((clip_losses * weights).double().sum()) / microbatches


def run_model(model: nn.Module, batch: Batch, config: Config) -> Outputs:
    """Encoders and heads, in bfloat16 where the config says so; scores and features come back in float32."""
    with autocast(batch, config):
        return model(batch)


def autocast(batch: Batch, config: Config) -> torch.autocast:
    """In this context encoders and heads compute in bfloat16, if the config says so."""
    return torch.autocast(batch.clips.device.type, torch.bfloat16, enabled=config.precision == "bf16")


def multitask_loss(outputs: Outputs, ulgm: ULGM, batch: Batch) -> Tensor:
    """(B,) each clip's weighted absolute errors, summed over the tasks (section 3.4)."""
    errors = [
        ulgm.weights(task, batch.clips) * torch.abs(score - ulgm.targets(task, batch.clips))
        for task, score in outputs.scores.items()
    ]
    return torch.stack(errors).sum(dim=0)


@torch.no_grad()
def evaluate(
    model: nn.Module, windows: Windows, metrics: Metrics, config: Config
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The fusion score's metrics and Loss on a split, and each task's scores (N,) in the file's order."""
    model.eval()
    clips, parts = [], []
    for window in windows:
        for batch in window.passes:
            clips.append(batch.clips)
            parts.append(run_model(model, batch, config))
    order = torch.cat(clips).cpu().argsort()
    scores = {task: score.cpu()[order].numpy() for task, score in Outputs.join(parts).scores.items()}
    values = metrics(scores["fusion"], windows.labels)
    values["Loss"] = float(mean_absolute_error(scores["fusion"], windows.labels))
    return values, scores


@torch.no_grad()
def encode_texts(model: nn.Module, windows: Windows, config: Config) -> None:
    """Reads every text once, with an encoder that isn't trained, so that no epoch needs to."""
    model.eval()
    vectors = torch.empty(len(windows.labels), model.text_encoder.width)
    for window in windows:
        for batch in window.passes:
            with autocast(batch, config):
                vectors[batch.clips.cpu()] = model.text_encoder(batch.text).float().cpu()
    windows.clips.replace_texts(vectors)


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Adam:
    """Adam with the released groups: BERT's weights; its biases and LayerNorms, without decay; audio; vision; the rest."""
    groups: dict[str, list] = {"bert": [], "bert_no_decay": [], "audio": [], "video": [], "other": []}
    prefixes = {"text_encoder.": "bert", "audio_encoder.": "audio", "vision_encoder.": "video"}
    for name, parameter in model.named_parameters():
        group = next((group for prefix, group in prefixes.items() if name.startswith(prefix)), "other")
        if group == "bert" and (name.endswith(".bias") or "LayerNorm" in name):
            group = "bert_no_decay"
        if parameter.requires_grad:
            groups[group].append(parameter)

    def settings(group: str) -> dict[str, float]:
        source = group.removesuffix("_no_decay")
        decay = 0.0 if group.endswith("_no_decay") else getattr(config, f"weight_decay_{source}")
        return {"lr": getattr(config, f"learning_rate_{source}"), "weight_decay": decay}

    # fused: one pass over the parameters, four times as fast on a CPU, and equal to the plain one within rounding
    return torch.optim.Adam(
        [{"params": members, "name": group, **settings(group)} for group, members in groups.items() if members],
        fused=True,
    )
