"""A training under way: all that it is made of, and so all that must be kept for going on with it another day."""

import torch
from torch import Tensor, nn

from config.config_regression import Config
from data.load_data import Windows
from models.batch import Window
from models.ulgm import ULGM
from trains.finite_check import FiniteCheck


class Training:
    """The model with what trains it, and how far it has come."""

    def __init__(self, model: nn.Module, train: Windows, config: Config):
        if model.hyper_parameters != config:  # it computes by its own
            raise ValueError("the model was made with another config")
        sizes = {task: config.head_sizes[task][0] for task in config.task_names}
        self.model = model
        self.ulgm = ULGM(torch.from_numpy(train.labels), sizes, config.H, config.exclude_zero).to(train.device)
        self.optimizer = make_optimizer(model, config)
        self.check = FiniteCheck(train.ids, self.ulgm)
        self.epochs = 0  # finished
        self.best_epoch = 0  # counted from 1; 0: none yet
        self.best_score = float("inf")  # less is better
        # Of the epoch under way, so far: windows, their micro-batches, and the sum of these' losses.
        self.windows = self.microbatches = 0
        self.loss = torch.zeros((), dtype=torch.float64, device=train.device)
        self.seconds = 0.0  # spent so far
        self.between_windows = True  # False while a window changes weights and labels

    @property
    def epoch(self) -> int:
        """The number of the epoch under way, from 1."""
        return self.epochs + 1

    @property
    def at_best(self) -> bool:
        """Whether it stands at the end of its best epoch."""
        return self.epochs == self.best_epoch > 0 and self.windows == 0

    def finish_window(self, window: Window, clip_losses: Tensor) -> None:
        """Closes a window that was learned from. clip_losses: (B,), weighted: they add up to its micro-batches' losses.

        Raises UserError where it has broken the training: see FiniteCheck.
        """
        self.windows += 1
        self.microbatches += len(window.microbatches)
        self.loss += clip_losses.double().sum()
        self.between_windows = True
        self.check.inspect(self.epoch, window.clips, clip_losses, self.model)

    def finish_epoch(self) -> None:
        self.epochs += 1
        self.windows = self.microbatches = 0
        self.loss.zero_()

    def is_over(self, config: Config) -> bool:
        """Whether `early_stop` epochs in a row were no better, or max_epochs are done (0: no limit)."""
        without_better = self.epochs - self.best_epoch
        return self.epochs > 0 and (without_better >= config.early_stop or self.epochs == config.max_epochs)

    def __str__(self) -> str:
        return f"epoch {self.epoch}, window {self.windows}" if self.windows else f"the end of epoch {self.epochs}"


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
