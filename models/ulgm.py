"""The unimodal label generation module, ULGM (section 3.3 of the paper).

A clip has one human label. Its text, sound and face have no labels of their own, but their features lie nearer to the centre
of the positive clips, or to that of the negative ones. How much nearer, compared with the clip's fused
feature, offsets the human label up or down, and gives a label for each modality:

    centres        C+ , C-    mean feature of the clips whose current label is positive, negative             Eq. 1-2
    distances      D+ , D-    from the feature F_s to the two centres                                         Eq. 3-4
    relative       a_s = (D- - D+) / (D+ + eps)                                                               Eq. 5
    ratio          y = a_s / (a_m + eps) * y_m                                                                Eq. 6
    difference     y = y_m + a_s - a_m                                                                        Eq. 7
    new label      the mean of both                                                                           Eq. 8
    momentum       y(i) = (i - 1)/(i + 1) y(i - 1) + 2/(i + 1) new label, in epoch i > 1; y(1) = y_m          Eq. 9
    weight         W_s = tanh(|y_s - y_m|)                                                                    Eq. 10

The released code, which we follow, differs from the paper in that a distance is the plain L2 norm, not its square over
sqrt(d); a neutral label counts as positive (`exclude_zero` gives the paper's classes); a clip that epoch 1 has not yet seen
counts with a zero feature; and a new label is clamped to [-H, H] before the momentum.
"""

import torch
from torch import Tensor, nn

from utils.errors import DivergedError

EPS = 1e-8
POSITIVE, NEGATIVE = 0, 1


class TaskState(nn.Module):
    """One task's labels, features and class centres, over all N training clips.

    The centres are kept as running sums and counts in float64: moving the clips of a micro-batch from their old class to
    the new one costs the same for a thousand clips as for a million.
    """

    def __init__(self, labels: Tensor, feature_size: int, exclude_zero: bool):
        super().__init__()
        self.exclude_zero = exclude_zero
        self.register_buffer("labels", labels.clone())  # (N,) float32
        # A clip that was not yet seen counts with a zero feature, as in the released code.
        self.register_buffer("features", labels.new_zeros(len(labels), feature_size))  # (N, D) float32
        self.register_buffer("sums", torch.zeros(2, feature_size, dtype=torch.float64))
        self.register_buffer("counts", self._membership(self.labels).sum(dim=1))  # (2,) float64

    @property
    def centres(self) -> Tensor:
        """(2, D) float32: the mean feature of the positive and of the negative clips (Eq. 1-2)."""
        return (self.sums / self.counts[:, None]).float()

    def relative_distance(self, features: Tensor) -> Tensor:
        """(B, D) features -> (B,): how much nearer to the positive centre than to the negative one (Eq. 3-5)."""
        centres = self.centres
        to_positive = torch.linalg.vector_norm(features - centres[POSITIVE], dim=-1)
        to_negative = torch.linalg.vector_norm(features - centres[NEGATIVE], dim=-1)
        return (to_negative - to_positive) / (to_positive + EPS)

    def write(self, clips: Tensor, labels: Tensor, features: Tensor) -> None:
        """Gives the clips (B,) new labels (B,) and features (B, D), and moves them from their old class to the new."""
        self._add_to_sums(clips, sign=-1)
        self.labels[clips] = labels
        self.features[clips] = features
        self._add_to_sums(clips, sign=+1)

    def _add_to_sums(self, clips: Tensor, sign: int) -> None:
        members = self._membership(self.labels[clips])
        self.sums += sign * (members @ self.features[clips].double())
        self.counts += sign * members.sum(dim=1)

    def _membership(self, labels: Tensor) -> Tensor:
        """(B,) labels -> (2, B) float64, 1 where a clip belongs to the class. Arithmetic, so that a GPU needn't wait."""
        positive = labels > 0 if self.exclude_zero else labels >= 0
        return torch.stack([positive, labels < 0]).double()  # Eq. 1-2


class ULGM(nn.Module):
    """Holds the labels of all tasks; only this class changes them."""

    def __init__(self, labels: Tensor, feature_sizes: dict[str, int], bound: float, exclude_zero: bool = False):
        """labels: (N,) float32, the human labels. feature_sizes: task -> D, fusion among them. bound: H."""
        super().__init__()
        self.bound = bound
        self.tasks = nn.ModuleDict(
            {task: TaskState(labels, size, exclude_zero) for task, size in feature_sizes.items()}
        )

    def targets(self, task: str, clips: Tensor) -> Tensor:
        """(B,) the labels that a task learns these clips by."""
        return self.tasks[task].labels[clips]

    def weights(self, task: str, clips: Tensor) -> Tensor:
        """(B,) the weight of a task's error: 1 for fusion, else how far the label is from the human one (Eq. 10)."""
        human = self.targets("fusion", clips)
        if task == "fusion":
            return torch.ones_like(human)
        return torch.tanh(torch.abs(self.targets(task, clips) - human))

    @torch.no_grad()
    def update(self, clips: Tensor, microbatches: list[int], features: dict[str, Tensor], epoch: int) -> None:
        """Takes one window's features, micro-batch by micro-batch: each moves the centres that the next is judged by.

        clips: (B,), B the sum of microbatches. features: task -> (B, D). epoch: from 1.
        """
        parts = {task: values.detach().float().split(microbatches) for task, values in features.items()}
        for index, microbatch in enumerate(clips.split(microbatches)):
            batch_features = {task: parts[task][index] for task in self.tasks}
            labels = self._relabel(microbatch, batch_features, epoch)
            for task, state in self.tasks.items():
                state.write(microbatch, labels[task], batch_features[task])

    def _relabel(self, clips: Tensor, features: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """The labels of one micro-batch, by the centres as they are: unchanged in epoch 1, when there are none yet."""
        labels = {task: self.targets(task, clips) for task in self.tasks}
        if epoch == 1:
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
        """() bool: whether each class has a clip, and these clips' labels are finite. Doesn't wait for a GPU.

        A class that was empty for part of a window leaves labels that are NaN, so it is found, too.
        """
        return torch.stack(
            [(state.counts >= 1).all() & torch.isfinite(state.labels[clips]).all() for state in self.tasks.values()]
        ).all()

    def check(self, epoch: int = 0) -> None:
        """Raises DivergedError where a task has lost one of its classes: its centre would be 0 / 0, and so the labels to come.

        epoch: in which that is seen; 0: before the first.
        """
        for task, state in self.tasks.items():
            if (state.counts < 1).any() or not torch.isfinite(state.labels).all():
                positive, negative = (int(count) for count in state.counts)
                raise DivergedError(
                    f"{f'epoch {epoch}: ' if epoch else ''}ULGM: the {task} labels were all of one sign ({positive} positive, "
                    f"{negative} negative clips now), so a class had no centre; more clips of the rarer sign, or a lower "
                    "learning rate, mend this"
                )
