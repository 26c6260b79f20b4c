"""Text -> BERT token ids and last-layer vectors."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import transformers

from data.extractors import LOCAL
from data.tokens import vocabulary_hash
from models.pretrained_bert import Pretrained, fingerprint, load_pretrained
from utils.errors import UserError


@dataclass(frozen=True)
class BertText:
    """Self-MM reads only the token ids; the official layout has the vectors too, for other models."""

    vocabulary: str  # hash
    weights: str  # hash
    pretrained: Pretrained = field(metadata=LOCAL, repr=False)
    name: ClassVar[str] = "bert"
    version: ClassVar[str] = transformers.__version__

    @classmethod
    def load(cls, source: str) -> "BertText":
        """source: a BERT folder or hub name. Raises UserError if it cannot be loaded or lacks a vocabulary."""
        if (pretrained := load_pretrained(source)).tokenizer is None:
            raise UserError(f"--bert {source}: has no vocab.txt or tokenizer.json to read text with")
        pretrained.bert.eval()
        return cls(vocabulary_hash(pretrained.tokenizer), fingerprint(pretrained.bert), pretrained)

    @property
    def width(self) -> int:
        return self.pretrained.bert.config.hidden_size

    def tokens(self, text: str) -> np.ndarray:
        """Returns the token ids (n,) of `[CLS] text [SEP]`, cut to BERT's maximum."""
        longest = self.pretrained.bert.config.max_position_embeddings
        return np.array(self.pretrained.tokenizer(text, truncation=True, max_length=longest)["input_ids"])

    @torch.inference_mode()
    def vectors(self, tokens: np.ndarray) -> np.ndarray:
        """Token ids (n,) -> last-layer vectors (n, width) float32."""
        ids = torch.from_numpy(tokens)[None]
        return self.pretrained.bert(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].numpy()
