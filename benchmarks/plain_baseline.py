"""Self-MM's training step as the released code runs it: the baseline for our speed and results.

BERT and the LSTMs get batches padded to the file's full length, with `pack_padded_sequence` for the LSTMs. Each micro-batch has
its own forward and backward pass, and recomputes the class centres over all clips. The network, its weights and the equations
are the same as ours.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from config.config_regression import Config
from models.self_mm import SelfMM
from models.ulgm import EPS

CPU = torch.device("cpu")


class PaddedBatch(NamedTuple):
    """B clips, padded as in the feature file. Lengths stay on the CPU, as `pack_padded_sequence` requires."""

    clips: Tensor  # (B,)
    text_bert: Tensor  # (B, 3, L)
    frames: dict[str, Tensor]  # "audio", "vision" -> (B, L, width)
    lengths: dict[str, Tensor]  # -> (B,)


class PlainWay:
    """A model with the labels, features and centres that the released code keeps for it."""

    def __init__(self, model: SelfMM, split: dict, config: Config, device: torch.device = CPU):
        """split: one split of a feature file in the official layout, padded."""
        self.model, self.config, self.device = model, config, device
        self.text_bert = torch.tensor(split["text_bert"])
        self.frames = {key: torch.tensor(split[key], dtype=model.dtype) for key in ("audio", "vision")}
        self.lengths = {key: torch.tensor(split[f"{key}_lengths"]) for key in ("audio", "vision")}
        human = torch.tensor(split["regression_labels"], dtype=model.dtype, device=device)
        self.labels = {task: human.clone() for task in model.tasks}
        sizes = {task: config.head_sizes[task][0] for task in model.tasks}
        self.features = {task: human.new_zeros(len(human), size) for task, size in sizes.items()}
        self.centres: dict[str, tuple[Tensor, Tensor]] = {}  # task -> positive, negative

    def batch(self, clips: Tensor) -> PaddedBatch:
        frames = {key: values[clips].to(self.device) for key, values in self.frames.items()}
        lengths = {key: values[clips] for key, values in self.lengths.items()}
        return PaddedBatch(clips.to(self.device), self.text_bert[clips].to(self.device), frames, lengths)

    def text(self, batch: PaddedBatch) -> Tensor:
        """B clips -> (B, BERT's width)."""
        ids, mask, segments = batch.text_bert.long().unbind(1)
        output = self.model.text_encoder.bert(input_ids=ids, attention_mask=mask, token_type_ids=segments)
        return output.last_hidden_state[:, 0]

    def sequences(self, batch: PaddedBatch) -> list[Tensor]:
        """B clips -> (B, audio_out), (B, video_out)."""
        outputs = []
        for key, encoder in (("audio", self.model.audio_encoder), ("vision", self.model.vision_encoder)):
            packed = pack_padded_sequence(batch.frames[key], batch.lengths[key], batch_first=True, enforce_sorted=False)
            _, (h_n, _) = encoder.lstm(packed)
            outputs.append(encoder.linear(encoder.dropout(h_n[-1])))
        return outputs

    def forward(self, batch: PaddedBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """B clips -> task -> scores (B,), features (B, D)."""
        text, (audio, vision) = self.text(batch), self.sequences(batch)
        inputs = {"fusion": torch.cat([text, audio, vision], dim=1), "text": text, "audio": audio, "vision": vision}
        scores, features = {}, {}
        for task in self.model.tasks:
            head = self.model.heads[task]
            features[task] = head.layer_1(head.dropout(inputs[task])).relu()
            scores[task] = head.layer_3(head.layer_2(features[task]).relu()).reshape(-1)
        return scores, features

    def step(self, microbatches: list[Tensor], optimizer: torch.optim.Optimizer, epoch: int) -> list[float]:
        """Runs a window: one optimizer step. Returns the micro-batches' losses."""
        optimizer.zero_grad()
        losses = [self.microbatch(self.batch(clips), epoch).item() for clips in microbatches]
        if len(microbatches) == self.config.update_epochs or self.config.keep_last_window:
            optimizer.step()
        return losses

    def microbatch(self, batch: PaddedBatch, epoch: int) -> Tensor:
        """Accumulates a micro-batch's gradient, then updates its labels, features and the centres. Returns the loss."""
        clips = batch.clips
        scores, features = self.forward(batch)
        loss = 0
        for task, score in scores.items():
            shift = (self.labels[task][clips] - self.labels["fusion"][clips]).abs()
            weight = torch.ones_like(shift) if task == "fusion" else shift.tanh()
            loss = loss + (weight * (score - self.labels[task][clips]).abs()).mean()
        loss.backward()
        self.update({task: feature.detach() for task, feature in features.items()}, clips, epoch)
        return loss.detach()

    def update(self, features: dict[str, Tensor], clips: Tensor, epoch: int) -> None:
        """Relabels the clips by the current centres, stores their features, and recomputes the centres over all clips."""
        if epoch > 1:
            self._relabel(clips, features, epoch)
        for task, labels in self.labels.items():
            self.features[task][clips] = features[task]
            positive = labels > 0 if self.config.exclude_zero else labels >= 0
            self.centres[task] = (self.features[task][positive].mean(0), self.features[task][labels < 0].mean(0))

    def _relabel(self, clips: Tensor, features: dict[str, Tensor], epoch: int) -> None:
        def relative(task: str) -> Tensor:
            to_positive, to_negative = ((features[task] - centre).norm(dim=-1) for centre in self.centres[task])
            return (to_negative - to_positive) / (to_positive + EPS)

        human = self.labels["fusion"][clips]
        for task in self.labels.keys() - {"fusion"}:
            ratio, difference = relative(task) / (relative("fusion") + EPS), relative(task) - relative("fusion")
            new = (0.5 * ratio * human + 0.5 * (human + difference)).clamp(-self.config.H, self.config.H)
            old = self.labels[task][clips]
            self.labels[task][clips] = (epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * new

    def score(self, clips: Tensor, batch_size: int) -> Tensor:
        """(N,) clips -> (N,) fusion scores, in batches of padded clips."""
        self.model.eval()
        with torch.no_grad():
            parts = [self.forward(self.batch(part))[0]["fusion"].cpu() for part in clips.split(batch_size)]
        return torch.cat(parts)


def plain_adam(optimizer: torch.optim.Adam, **settings: bool) -> torch.optim.Adam:
    """Adam with default settings, or these, and another optimizer's parameter groups."""
    groups = [{key: group[key] for key in ("params", "lr", "weight_decay")} for group in optimizer.param_groups]
    return torch.optim.Adam(groups, **settings)
