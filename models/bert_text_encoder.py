"""BERT over the real tokens only: sentences stand end to end, and nothing is computed for padding.

Every part of BERT but attention treats each token alone, so it runs on one long row of T tokens. Attention needs the
sentences apart: there, they are taken in groups of like length. The model reads nothing but each sentence's first token, so
the last layer computes query, output and feed-forward for these alone. All of it is exact: it leaves out only what nobody
reads.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import BertConfig, BertModel

from utils.batch import Group, PackedText


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
        hidden = self.bert.embeddings(
            input_ids=text.tokens[None], token_type_ids=text.segments[None], position_ids=text.positions[None]
        )[0]  # (T, width)
        *layers, last_layer = self.bert.encoder.layer
        for layer in layers:
            hidden = _run_layer(layer, hidden, text.groups, hidden, text.groups)
        first_tokens = [group.first_tokens() for group in text.groups]
        return _run_layer(last_layer, hidden[text.first], first_tokens, hidden, text.groups)[text.ranks]


def _run_layer(
    layer: nn.Module, asking: Tensor, asking_groups: list[Group], hidden: Tensor, groups: list[Group]
) -> Tensor:
    """One layer of BERT, for the tokens whose new vectors are asked for.

    asking: (Q, width), these tokens; hidden: (T, width), all tokens; both sentence after sentence, grouped alike.
    Returns (Q, width).
    """
    self_attention, attention_output = layer.attention.self, layer.attention.output
    context = _attend(self_attention, asking, asking_groups, hidden, groups)
    context = attention_output.dropout(_linear(attention_output.dense, context))
    attended = attention_output.LayerNorm(context + asking)
    inner = layer.intermediate.intermediate_act_fn(_linear(layer.intermediate.dense, attended))
    return layer.output.LayerNorm(layer.output.dropout(_linear(layer.output.dense, inner)) + attended)


def _attend(
    attention: nn.Module, asking: Tensor, asking_groups: list[Group], hidden: Tensor, groups: list[Group]
) -> Tensor:
    """Each asking token's mean of its sentence's values: (Q, width)."""
    heads = attention.num_attention_heads
    dropout = attention.dropout.p if attention.training else 0.0
    sizes = [group.tokens for group in groups]
    queries = _linear(attention.query, asking).split([group.tokens for group in asking_groups])
    keys, values = _linear(attention.key, hidden).split(sizes), _linear(attention.value, hidden).split(sizes)
    contexts = []
    for asking_group, group, *parts in zip(asking_groups, groups, queries, keys, values, strict=True):
        query, key, value = (
            part.pad(rows, heads) for part, rows in zip((asking_group, group, group), parts, strict=True)
        )
        mask = None if group.mask is None else group.mask[:, None, None]
        context = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        contexts.append(asking_group.unpad(context))
    return torch.cat(contexts)


def _linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    """layer(rows).

    For float32 on an x86 CPU, PyTorch calls MKL, which on AMD's processors multiplies at half the rate of oneDNN. Tensors in
    oneDNN's layout are given to oneDNN: the same float32 arithmetic, summed in another order.
    """
    x86 = rows.device.type == "cpu" and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    if x86 and rows.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        return linear(rows.to_mkldnn(), layer.weight, layer.bias).to_dense()
    return layer(rows)
