"""A training under way: all that it is made of, and so all that must be kept for going on with it another day."""

import torch
from torch import Tensor, nn

from config.config_regression import Config
from data.load_data import Windows
from models.batch import Window
from models.ulgm import ULGM
from trains.finite_check import Watch
from utils.random_state import random_streams, set_random_streams

PROGRESS = ("epochs", "best_epoch", "best_score", "windows", "microbatches", "seconds")


class Training:
    """The model with what trains it, and how far it has come."""

    def __init__(self, model: nn.Module, train: Windows, config: Config, seed: int = 0):
        """seed: what the ranks of a run draw their own random numbers by."""
        sizes = {task: config.head_sizes[task][0] for task in config.task_names}
        self.model = model
        self.seed = seed
        self.ulgm = ULGM(torch.from_numpy(train.labels), sizes, config.H, config.exclude_zero).to(train.device)
        self.optimizer = make_optimizer(model, config)
        self.watch = Watch(train.ids, self.ulgm)
        self.epochs = 0  # finished
        self.best_epoch = 0  # from 1
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

    def count(self, window: Window, clip_losses: Tensor) -> None:
        """Closes a window that was learned from. clip_losses: (B,), weighted: they add up to its micro-batches' losses.

        Raises UserError where it has broken the training: see Watch.
        """
        self.windows += 1
        self.microbatches += len(window.microbatches)
        self.loss += clip_losses.double().sum()
        self.between_windows = True
        self.watch.look(self.epoch, window.clips, clip_losses, self.model)

    def finish_epoch(self) -> None:
        self.epochs += 1
        self.windows = self.microbatches = 0
        self.loss.zero_()

    def is_over(self, config: Config) -> bool:
        """Whether `early_stop` epochs in a row were no better, or there were max_epochs."""
        without_better = self.epochs - self.best_epoch
        return self.epochs > 0 and (without_better >= config.early_stop or self.epochs == config.max_epochs)

    def __str__(self) -> str:
        return f"epoch {self.epoch}, window {self.windows}" if self.windows else f"the end of epoch {self.epochs}"

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Tensors, on the CPU, and plain values: with these, `restore` makes an equal training of a new one.

        Raises UserError where the training is broken: see Watch.
        """
        self.watch.raise_if_broken()
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"ulgm.{name}": tensor for name, tensor in self.ulgm.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
        streams, values = random_streams(self.loss.device)
        tensors |= {"loss": self.loss, **{f"random.{name}": stream for name, stream in streams.items()}}
        progress = {name: getattr(self, name) for name in PROGRESS}
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {**progress, "random": values}

    def restore(self, tensors: dict[str, Tensor], values: dict) -> None:
        """Takes over what `state` gave, and with it the random streams. The config must be the same.

        Raises KeyError, TypeError, ValueError or RuntimeError where it is the state of something else.
        """
        for name in PROGRESS:
            if type(values[name]) is not type(getattr(self, name)):
                raise TypeError(f"{name} is {values[name]!r}")
            setattr(self, name, values[name])
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "ulgm": {}, "optimizer": {}, "random": {}}
        for name, tensor in tensors.items():
            if name != "loss":
                part, _, name = name.partition(".")
                parts[part][name] = tensor
        self.model.load_state_dict(parts["model"])
        self.ulgm.load_state_dict(parts["ulgm"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            number, _, name = name.partition(".")
            moments.setdefault(int(number), {})[name] = tensor.clone()  # a file's memory is no place to step in
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.loss.copy_(tensors["loss"])
        set_random_streams(parts["random"], values["random"], self.loss.device)


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
