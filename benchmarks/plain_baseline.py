"""One training step of Self-MM the plain way, as the released code takes it: what our speed and results are held against.

BERT and the LSTMs get batches that are padded to the file's full length, `pack_padded_sequence` hides the padding from the
LSTMs, each micro-batch has a forward and a backward of its own, and the class centres are taken anew over all clips at
each micro-batch. The network, its weights, the equations and their order are ours.
"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from config.config_regression import Config
from models.self_mm import SelfMM
from models.ulgm import EPS


class PlainWay:
    """A model and the labels, features and centres that the released code keeps beside it."""

    def __init__(self, model: SelfMM, split: dict, config: Config):
        """split: one split of a feature file in the official layout, padded."""
        self.model, self.config = model, config
        self.text_bert = torch.tensor(split["text_bert"])
        self.frames = {key: torch.tensor(split[key]) for key in ("audio", "vision")}
        self.lengths = {key: torch.tensor(split[f"{key}_lengths"]) for key in ("audio", "vision")}
        human = torch.tensor(split["regression_labels"])
        self.labels = {task: human.clone() for task in model.tasks}
        self.features = {task: torch.zeros(len(human), config.head_sizes[task][0]) for task in model.tasks}
        self.centres: dict[str, tuple[Tensor, Tensor]] = {}

    def text(self, clips: Tensor) -> Tensor:
        """(B,) clips -> (B, BERT's width)."""
        ids, mask, segments = self.text_bert[clips].long().unbind(1)
        output = self.model.text_encoder.bert(input_ids=ids, attention_mask=mask, token_type_ids=segments)
        return output.last_hidden_state[:, 0]

    def sequence(self, key: str, clips: Tensor) -> Tensor:
        """(B,) clips -> (B, audio_out or video_out)."""
        encoder = self.model.audio_encoder if key == "audio" else self.model.vision_encoder
        packed = pack_padded_sequence(
            self.frames[key][clips], self.lengths[key][clips], batch_first=True, enforce_sorted=False
        )
        _, (last, _) = encoder.lstm(packed)
        return encoder.linear(encoder.dropout(last[-1]))

    def forward(self, clips: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(B,) clips -> task -> scores (B,), features (B, D)."""
        text, audio, vision = self.text(clips), self.sequence("audio", clips), self.sequence("vision", clips)
        inputs = {"fusion": torch.cat([text, audio, vision], dim=1), "text": text, "audio": audio, "vision": vision}
        scores, features = {}, {}
        for task in self.model.tasks:
            head = self.model.heads[task]
            features[task] = head.layer_1(head.dropout(inputs[task])).relu()
            scores[task] = head.layer_3(head.layer_2(features[task]).relu()).reshape(-1)
        return scores, features

    def step(self, microbatches: list[Tensor], optimizer: torch.optim.Optimizer, epoch: int) -> list[float]:
        """One optimizer step. Returns the micro-batches' losses."""
        optimizer.zero_grad()
        losses = [self.microbatch(clips, epoch).item() for clips in microbatches]
        if len(microbatches) == self.config.update_epochs or self.config.keep_last_window:
            optimizer.step()
        return losses

    def microbatch(self, clips: Tensor, epoch: int) -> Tensor:
        """Backward of one micro-batch, then new labels, features and centres. Returns the loss."""
        scores, features = self.forward(clips)
        loss = 0
        for task, score in scores.items():
            shift = (self.labels[task][clips] - self.labels["fusion"][clips]).abs()
            weight = torch.ones_like(shift) if task == "fusion" else shift.tanh()
            loss = loss + (weight * (score - self.labels[task][clips]).abs()).mean()
        loss.backward()
        self.update({task: feature.detach() for task, feature in features.items()}, clips, epoch)
        return loss.detach()

    def update(self, features: dict[str, Tensor], clips: Tensor, epoch: int) -> None:
        """New labels by the old centres; then new features, and centres over all clips."""
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
            return torch.cat([self.forward(batch)[0]["fusion"] for batch in clips.split(batch_size)])


def plain_adam(optimizer: torch.optim.Adam) -> torch.optim.Adam:
    """Adam as it comes, with the groups of ours."""
    groups = [{key: group[key] for key in ("params", "lr", "weight_decay")} for group in optimizer.param_groups]
    return torch.optim.Adam(groups)
