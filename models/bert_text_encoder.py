"""BERT over the real tokens only: sentences stand end to end, and nothing is computed for padding.

Every part of BERT but attention treats each token alone, so it runs on one long row of T tokens. Attention needs the
sentences apart: there, queries, keys and values are scattered into the padded (B, L) layout and the result gathered back.
The model reads nothing but each sentence's first token, so the last layer computes query, output and feed-forward for
these alone. Both are exact: they leave out only what nobody reads.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertConfig, BertModel

from utils.batch import PackedText


class BertTextEncoder(nn.Module):
    """Sentences -> the last layer's vector of their first token, [CLS]."""

    def __init__(self, bert: BertModel):
        super().__init__()
        self.bert = bert

    @classmethod
    def from_config(cls, bert_config: dict) -> "BertTextEncoder":
        """An encoder with random weights. bert_config: the contents of a BERT folder's config.json."""
        return cls(BertModel(BertConfig.from_dict(bert_config), add_pooling_layer=False))

    @property
    def width(self) -> int:
        return self.bert.config.hidden_size

    def forward(self, text: PackedText) -> Tensor:
        """B sentences -> (B, width)."""
        batch_size, longest = text.mask.shape
        every_token = _Layout(text.slots, batch_size, longest)
        first_tokens = _Layout(torch.arange(batch_size, device=text.slots.device), batch_size, 1)

        hidden = self.bert.embeddings(
            input_ids=text.tokens[None], token_type_ids=text.segments[None], position_ids=text.positions[None]
        )[0]  # (T, width)
        *layers, last_layer = self.bert.encoder.layer
        for layer in layers:
            hidden = _run_layer(layer, hidden, every_token, hidden, every_token, text.mask)
        return _run_layer(last_layer, hidden[text.first], first_tokens, hidden, every_token, text.mask)


class _Layout(NamedTuple):
    """Where packed tokens stand in a padded (batch_size, length) layout."""

    slots: Tensor  # one place of the flattened layout for each token
    batch_size: int
    length: int

    def pad(self, packed: Tensor, heads: int) -> Tensor:
        """(tokens, width) -> (batch_size, heads, length, width / heads), zero where no token stands."""
        padded = packed.new_zeros(self.batch_size * self.length, packed.shape[1]).index_copy(0, self.slots, packed)
        return padded.view(self.batch_size, self.length, heads, -1).transpose(1, 2)

    def unpad(self, padded: Tensor) -> Tensor:
        """The inverse of `pad`."""
        return padded.transpose(1, 2).reshape(self.batch_size * self.length, -1)[self.slots]


def _run_layer(layer: nn.Module, asking: Tensor, asking_layout: _Layout, hidden: Tensor, layout: _Layout, mask: Tensor):
    """One layer of BERT, for the tokens whose new vectors are asked for.

    asking: (Q, width), these tokens; hidden: (T, width), all tokens; mask: (B, L), True where a token stands.
    Returns (Q, width).
    """
    attention = layer.attention.self
    heads = attention.num_attention_heads
    queries = asking_layout.pad(attention.query(asking), heads)
    keys = layout.pad(attention.key(hidden), heads)
    values = layout.pad(attention.value(hidden), heads)
    dropout = attention.dropout.p if layer.training else 0.0
    context = scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None], dropout_p=dropout)
    attended = layer.attention.output(asking_layout.unpad(context), asking)
    return layer.output(layer.intermediate(attended), attended)
