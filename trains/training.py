"""The state of a training run: everything that must be saved to resume it."""

import torch
from torch import Tensor, nn

from config.config_regression import Config
from data.load_data import Windows
from models.batch import Window
from models.ulgm import ULGM
from trains.finite_check import FiniteCheck


class Training:
    """A model, what trains it, and its progress."""

    def __init__(self, model: nn.Module, train: Windows, config: Config):
        sizes = {task: config.head_sizes[task][0] for task in config.task_names}
        self.model = model
        human = {task: torch.from_numpy(part).to(model.dtype) for task, part in train.clips.split.labels.items()}
        settings = (config.H, config.exclude_zero, config.unimodal_labels, human)
        self.ulgm = ULGM(human["fusion"], sizes, *settings).to(train.device)
        self.optimizer = make_optimizer(model, config)
        self.check = FiniteCheck(train.clips.split.ids, self.ulgm)
        self.epochs = 0  # finished
        self.best_epoch = 0  # from 1; 0: none yet
        self.best_score = float("inf")  # lower is better
        # Of the current epoch, so far: windows, their micro-batches, and the sum of the micro-batches' losses.
        self.windows = self.microbatches = 0
        self.loss = torch.zeros((), dtype=torch.float64, device=train.device)
        self.seconds = 0.0  # of training time
        self.between_windows = True  # False while a window changes weights and labels

    @property
    def epoch(self) -> int:
        """The current epoch, from 1."""
        return self.epochs + 1

    @property
    def at_best(self) -> bool:
        """Whether the model is that of the best epoch's end."""
        return self.epochs == self.best_epoch > 0 and self.windows == 0

    def finish_window(self, window: Window, clip_losses: Tensor) -> None:
        """Counts and checks a window. clip_losses: (B,), which add up to the sum of its micro-batches' losses."""
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
        """Whether the last `early_stop` epochs brought no improvement, or max_epochs (0: no limit) are done."""
        without_improvement = self.epochs - self.best_epoch
        return self.epochs > 0 and (without_improvement >= config.early_stop or self.epochs == config.max_epochs)

    def __str__(self) -> str:
        return f"epoch {self.epoch}, window {self.windows}" if self.windows else f"the end of epoch {self.epochs}"


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Adam:
    """Adam with the released groups: BERT's weights; its biases and LayerNorms, without decay; audio; vision; other."""
    encoders = {"text_encoder": "bert", "audio_encoder": "audio", "vision_encoder": "video"}
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        group = encoders.get(name.partition(".")[0], "other")
        rate, decay = getattr(config, f"learning_rate_{group}"), getattr(config, f"weight_decay_{group}")
        if group == "bert" and (name.endswith(".bias") or "LayerNorm" in name):
            group, decay = "bert_no_decay", 0.0
        if parameter.requires_grad:
            groups.setdefault(group, {"params": [], "name": group, "lr": rate, "weight_decay": decay})
            groups[group]["params"].append(parameter)
    # fused: one pass over the parameters, four times as fast on a CPU, equal within rounding
    return torch.optim.Adam(list(groups.values()), fused=True)
