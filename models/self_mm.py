"""Self-MM's network (section 3.2 of the paper): three encoders, their concatenation, and one head per task."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import BertModel

from config.config_regression import TASKS, Config
from models.batch import Batch
from models.bert_text_encoder import BertTextEncoder
from models.hub import HubModel
from models.lstm_encoder import LSTMEncoder

DTYPES = {"float32": torch.float32, "bf16": torch.float32, "float64": torch.float64}  # of weights, by precision


@dataclass
class Outputs:
    """The model's outputs for B clips, by task."""

    scores: dict[str, Tensor]  # task -> (B,), of the weights' dtype
    features: dict[str, Tensor]  # task -> (B, D), likewise; D from Config.head_sizes: compared with the centres by ULGM


class Head(nn.Module):
    """One task's regressor. The first hidden layer is the feature F_s; the second is an addition of the released code."""

    def __init__(self, width: int, hidden_size: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.layer_1 = nn.Linear(width, hidden_size)
        self.layer_2 = nn.Linear(hidden_size, hidden_size)
        self.layer_3 = nn.Linear(hidden_size, 1)

    def forward(self, representation: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width) -> score (B,), feature (B, hidden_size)."""
        feature = torch.relu(self.layer_1(self.dropout(representation)))
        score = self.layer_3(torch.relu(self.layer_2(feature)))
        return score[:, 0], feature


class SelfMM(nn.Module, HubModel):
    """Maps text, audio and vision of B clips to a sentiment score and a feature for each task."""

    def __init__(
        self, hyper_parameters: Config, bert_config: dict, audio_width: int, vision_width: int,
        bert: BertModel | None = None,
    ):  # fmt: skip
        """bert_config: a BERT's config.json. Widths: values per frame. bert: without pooler; None: random weights."""
        super().__init__()
        self.hyper_parameters = config = hyper_parameters
        self.frame_widths = {"audio": audio_width, "vision": vision_width}
        self.tasks = config.task_names
        self.text_encoder = BertTextEncoder(bert) if bert is not None else BertTextEncoder.from_config(bert_config)
        self.text_encoder.requires_grad_(config.use_finetune)
        audio = (config.a_lstm_hidden_size, config.audio_out, config.a_lstm_layers, config.a_lstm_dropout)
        vision = (config.v_lstm_hidden_size, config.video_out, config.v_lstm_layers, config.v_lstm_dropout)
        self.audio_encoder = LSTMEncoder(audio_width, *audio)
        self.vision_encoder = LSTMEncoder(vision_width, *vision)
        widths = {"text": self.text_encoder.width, "audio": config.audio_out, "vision": config.video_out}
        widths["fusion"] = sum(widths.values())
        # All four in the released order, whatever the tasks, so that every checkpoint has the same tensors.
        self.heads = nn.ModuleDict({task: Head(widths[task], *config.head_sizes[task]) for task in TASKS})
        self.to(DTYPES[config.precision])

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, and so that of scores, features and labels."""
        return self.heads["fusion"].layer_1.weight.dtype

    def forward(self, batch: Batch) -> Outputs:
        """Scores and features of a batch of clips."""
        with self.autocast(batch):
            audio = self.audio_encoder(batch.audio)  # (B, audio_out)
            vision = self.vision_encoder(batch.vision)  # (B, video_out)
            already_encoded = isinstance(batch.text, Tensor)
            text = batch.text if already_encoded else self.text_encoder(batch.text)  # (B, BERT's width)
            fusion = torch.cat([text, audio, vision], dim=-1)
            representations = {"fusion": fusion, "text": text, "audio": audio, "vision": vision}

            outputs = Outputs({}, {})
            for task in self.tasks:
                score, feature = self.heads[task](representations[task])
                outputs.scores[task], outputs.features[task] = score.to(self.dtype), feature.to(self.dtype)
        return outputs

    def autocast(self, batch: Batch) -> torch.autocast:
        """Runs encoders and heads in bfloat16 if the config asks for it. LSTMs follow on a CPU only."""
        in_bf16 = self.hyper_parameters.precision == "bf16"
        return torch.autocast(batch.clips.device.type, torch.bfloat16, enabled=in_bf16)
