"""Text -> BERT's token ids, and its last layer's vectors of them."""

import importlib.metadata
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from data.extractors import LOCAL
from data.tokens import vocabulary_hash
from models.pretrained_bert import Pretrained, fingerprint, load_pretrained
from utils.errors import UserError


@dataclass(frozen=True)
class BertText:
    """Self-MM itself reads the ids only; the vectors belong to the official layout, for other models."""

    vocabulary: str  # hashes
    weights: str
    pretrained: Pretrained = field(metadata=LOCAL, repr=False)

    name: ClassVar[str] = "bert"

    @classmethod
    def load(cls, source: str) -> "BertText":
        """source: a BERT folder or hub name. Raises UserError where it can't be loaded, or has no vocabulary."""
        pretrained = load_pretrained(source)
        if pretrained.tokenizer is None:
            raise UserError(f"--bert {source}: has no vocab.txt or tokenizer.json to read text with")
        pretrained.bert.eval()
        return cls(vocabulary_hash(pretrained.tokenizer), fingerprint(pretrained.bert), pretrained)

    @property
    def version(self) -> str:
        return importlib.metadata.version("transformers")

    @property
    def width(self) -> int:
        return self.pretrained.bert.config.hidden_size

    def __call__(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (n,) of `[CLS] text [SEP]`, and vectors (n, width) float32. No more than BERT takes, [SEP] included."""
        most = self.pretrained.bert.config.max_position_embeddings
        tokens = np.array(self.pretrained.tokenizer(text, truncation=True, max_length=most)["input_ids"])
        return tokens, self.vectors(tokens)

    @torch.inference_mode()
    def vectors(self, tokens: np.ndarray) -> np.ndarray:
        """Of token ids (n,), the last layer's vectors (n, width) float32."""
        ids = torch.from_numpy(tokens)[None]
        return self.pretrained.bert(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].numpy()
