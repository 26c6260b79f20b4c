"""BERT on the real tokens only: sentences are concatenated, and nothing is computed for padding.

Everything in BERT except attention treats tokens independently, so it runs on one row of T tokens. Attention processes
sentences in groups of similar length. The model reads only each sentence's first token, so the last layer computes query,
output and feed-forward for these alone. The result is exact: only unused values are skipped.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertModel

from models.batch import Group, PackedText
from models.cpu_kernels import attend, can_attend, dropout, linear, ready
from utils.bert_config import bert_config

Groups = list[Group]


class BertTextEncoder(nn.Module):
    """Encodes a sentence as the last layer's vector of its first token, [CLS]."""

    def __init__(self, bert: BertModel):
        super().__init__()
        self.bert = bert

    @classmethod
    def from_config(cls, stored: dict) -> "BertTextEncoder":
        """An encoder with random weights. stored: the content of a BERT folder's config.json."""
        return cls(BertModel(bert_config(stored), add_pooling_layer=False))

    @property
    def width(self) -> int:
        return self.bert.config.hidden_size

    def forward(self, text: PackedText) -> Tensor:
        """B sentences -> (B, width)."""
        hidden = self.bert.embeddings(
            input_ids=text.tokens[None], token_type_ids=text.segments[None], position_ids=text.positions[None]
        )[0]  # (T, width)
        *layers, last_layer = self.bert.encoder.layer
        for layer in layers:
            hidden = _run_layer(layer, hidden, text.groups, hidden, text.groups)
        first_tokens = [Group(group.sentences, length=1, tokens=group.sentences) for group in text.groups]
        return _run_layer(last_layer, hidden[text.first], first_tokens, hidden, text.groups)[text.inverse_order]


def _run_layer(layer: nn.Module, queried: Tensor, queried_groups: Groups, hidden: Tensor, groups: Groups) -> Tensor:
    """New vectors of the queried tokens, (Q, width), after one layer of BERT. hidden: (T, width), all tokens."""
    after_attention, after_inner = layer.attention.output, layer.output
    context = _attend(layer.attention.self, queried, queried_groups, hidden, groups)
    context = dropout(after_attention.dropout, linear(after_attention.dense, ready(context)))
    attended = after_attention.LayerNorm(context + queried)
    inner = layer.intermediate.intermediate_act_fn(linear(layer.intermediate.dense, ready(attended)))
    inner = dropout(after_inner.dropout, linear(after_inner.dense, ready(inner)))
    return after_inner.LayerNorm(inner + attended)


def _attend(attention: nn.Module, queried: Tensor, queried_groups: Groups, hidden: Tensor, groups: Groups) -> Tensor:
    """Each queried token's attention-weighted mean of its sentence's values: (Q, width)."""
    heads = attention.num_attention_heads
    probability = attention.dropout.p if attention.training else 0.0
    rows = ready(hidden)
    queries = linear(attention.query, rows if queried is hidden else ready(queried))
    keys, values = linear(attention.key, rows), linear(attention.value, rows)
    if can_attend(queries, groups, probability):
        return attend(queries, keys, values, queried_groups, groups, heads, probability)
    contexts = []
    sizes = [group.tokens for group in groups]
    parts = queries.split([group.tokens for group in queried_groups]), keys.split(sizes), values.split(sizes)
    for queried_group, group, query, key, value in zip(queried_groups, groups, *parts, strict=True):
        query, key, value = queried_group.pad(query, heads), group.pad(key, heads), group.pad(value, heads)
        context = scaled_dot_product_attention(query, key, value, attn_mask=group.mask, dropout_p=probability)
        contexts.append(queried_group.unpad(context))
    return torch.cat(contexts)
