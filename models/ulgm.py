"""The unimodal label generation module, ULGM (section 3.3 of the paper).

A clip has one human label for all modalities together. But each modality's feature is nearer to the centre of the positive
clips or to that of the negative clips. How much nearer, relative to the clip's fused feature, shifts the human label up or
down, which yields a label for each modality:

    centres        C+ , C-    mean feature of the clips with a positive, negative current label               Eq. 1-2
    distances      D+ , D-    from the feature F_s to the two centres                                         Eq. 3-4
    relative       a_s = (D- - D+) / (D+ + eps)                                                               Eq. 5
    ratio          y = a_s / (a_m + eps) * y_m                                                                Eq. 6
    difference     y = y_m + a_s - a_m                                                                        Eq. 7
    new label      the mean of both                                                                           Eq. 8
    momentum       y(i) = (i - 1)/(i + 1) y(i - 1) + 2/(i + 1) new label, in epoch i > 1; y(1) = y_m          Eq. 9
    weight         W_s = tanh(|y_s - y_m|)                                                                    Eq. 10

This follows the released code, which differs from the paper: a distance is the L2 norm, not its square over sqrt(d); a
neutral label counts as positive (`exclude_zero` gives the paper's classes); a clip not yet seen in epoch 1 has a zero
feature, which counts; and a new label is clamped to [-H, H] before the momentum.
"""

import torch
from torch import Tensor, nn

from utils.errors import DivergedError

EPS = 1e-8
POSITIVE, NEGATIVE = 0, 1


class TaskState(nn.Module):
    """One task's labels, features and class centres, over all N training clips.

    The centres are kept as running sums and counts in float64, so an update costs the same for any number of clips.
    """

    def __init__(self, labels: Tensor, feature_size: int, exclude_zero: bool):
        super().__init__()
        self.exclude_zero = exclude_zero
        self.register_buffer("labels", labels.clone())  # (N,)
        self.register_buffer("features", labels.new_zeros(len(labels), feature_size))  # (N, D); zero until seen
        self.register_buffer("sums", torch.zeros(2, feature_size, dtype=torch.float64))
        self.register_buffer("counts", self._membership(self.labels).sum(dim=1))  # (2,) float64

    @property
    def centres(self) -> Tensor:
        """(2, D): the mean feature of the positive and of the negative clips (Eq. 1-2)."""
        return (self.sums / self.counts[:, None]).to(self.features.dtype)

    def relative_distance(self, features: Tensor) -> Tensor:
        """(B, D) features -> (B,): how much nearer they are to the positive centre than to the negative (Eq. 3-5)."""
        centres = self.centres
        to_positive = torch.linalg.vector_norm(features - centres[POSITIVE], dim=-1)
        to_negative = torch.linalg.vector_norm(features - centres[NEGATIVE], dim=-1)
        return (to_negative - to_positive) / (to_positive + EPS)

    def write(self, clips: Tensor, labels: Tensor, features: Tensor) -> None:
        """Sets labels (B,) and features (B, D) of clips (B,), and moves the clips to their new classes."""
        self._add_to_sums(clips, sign=-1)
        self.labels[clips] = labels
        self.features[clips] = features
        self._add_to_sums(clips, sign=+1)

    def _add_to_sums(self, clips: Tensor, sign: int) -> None:
        members = self._membership(self.labels[clips])
        self.sums += sign * (members @ self.features[clips].double())
        self.counts += sign * members.sum(dim=1)

    def _membership(self, labels: Tensor) -> Tensor:
        """(B,) labels -> (2, B) float64, 1 where a clip belongs to the class. Needs no GPU synchronisation."""
        positive = labels > 0 if self.exclude_zero else labels >= 0
        return torch.stack([positive, labels < 0]).double()  # Eq. 1-2


class ULGM(nn.Module):
    """Holds and updates the labels of all tasks."""

    def __init__(
        self, labels: Tensor, feature_sizes: dict[str, int], bound: float, exclude_zero: bool = False,
        source: str = "generated", human: dict[str, Tensor] | None = None,
    ):  # fmt: skip
        """labels: (N,), human; their dtype is that of all labels. feature_sizes: task -> D, including fusion. bound: H.

        source: of the unimodal labels, as in Config.unimodal_labels. human: task -> (N,), if they are the source.
        """
        super().__init__()
        self.bound, self.source = bound, source
        self.fewest = int(source == "generated")  # clips of a class: only labels that are generated need its centre
        given = human if source == "human" else {}
        states = {task: TaskState(given.get(task, labels), size, exclude_zero) for task, size in feature_sizes.items()}
        self.tasks = nn.ModuleDict(states)

    def targets(self, task: str, clips: Tensor) -> Tensor:
        """(B,) a task's current labels for these clips."""
        return self.tasks[task].labels[clips]

    def weights(self, task: str, clips: Tensor) -> Tensor:
        """(B,) of a task's errors: 1 for fusion and copies of it, else by the labels' distance from the human ones (Eq. 10)."""
        human = self.targets("fusion", clips)
        if task == "fusion" or self.source == "copied":
            return torch.ones_like(human)
        return torch.tanh(torch.abs(self.targets(task, clips) - human))

    @torch.no_grad()
    def update(self, clips: Tensor, microbatches: list[int], features: dict[str, Tensor], epoch: int) -> None:
        """Processes a window's features by micro-batch: each one moves the centres that relabel the next.

        clips: (B,), B the sum of the micro-batches' sizes. features: task -> (B, D). epoch: from 1.
        """
        parts = {task: values.detach().split(microbatches) for task, values in features.items()}
        for index, microbatch in enumerate(clips.split(microbatches)):
            batch_features = {task: parts[task][index] for task in self.tasks}
            labels = self._relabel(microbatch, batch_features, epoch)
            for task, state in self.tasks.items():
                state.write(microbatch, labels[task], batch_features[task])

    def _relabel(self, clips: Tensor, features: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """New labels of a micro-batch by the current centres; unchanged in epoch 1, before there are any."""
        labels = {task: self.targets(task, clips) for task in self.tasks}
        if epoch == 1 or self.source != "generated":
            return labels
        human = labels["fusion"]
        relative = {task: state.relative_distance(features[task]) for task, state in self.tasks.items()}  # a_s, a_m
        for task in self.tasks:
            if task != "fusion":
                by_ratio = relative[task] / (relative["fusion"] + EPS) * human  # Eq. 6
                by_difference = human + relative[task] - relative["fusion"]  # Eq. 7
                new = (0.5 * by_ratio + 0.5 * by_difference).clamp(-self.bound, self.bound)  # Eq. 8
                labels[task] = (epoch - 1) / (epoch + 1) * labels[task] + 2 / (epoch + 1) * new  # Eq. 9
        return labels

    def is_intact(self, clips: Tensor) -> Tensor:
        """() bool: whether every class has clips and these clips' labels are finite. Needs no GPU synchronisation.

        A class that was empty for part of a window only is detected by the NaN labels it leaves.
        """
        states = self.tasks.values()
        intact = [(state.counts >= self.fewest).all() & torch.isfinite(state.labels[clips]).all() for state in states]
        return torch.stack(intact).all()

    def check(self, epoch: int = 0) -> None:
        """Raises DivergedError if a task has lost a class: its centre would be 0 / 0. epoch: 0 before training."""
        for task, state in self.tasks.items():
            if (state.counts < self.fewest).any() or not torch.isfinite(state.labels).all():
                positive, negative = (int(count) for count in state.counts)
                when = f"epoch {epoch}: " if epoch else ""
                now = f"now {positive} positive and {negative} negative clips"
                problem = f"ULGM: all {task} labels had the same sign ({now}), so a class had no centre"
                raise DivergedError(f"{when}{problem}; add clips of the rarer sign, or lower the learning rate")
