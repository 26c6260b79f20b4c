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

# All that a config.json can set. transformers knows many more settings: code to run, kernels to fetch, files to read.
SETTINGS = """
    vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act max_position_embeddings
    type_vocab_size hidden_dropout_prob attention_probs_dropout_prob initializer_range layer_norm_eps pad_token_id
""".split()
MOST_LAYERS = 1000  # the largest BERT models have 48


class BertTextEncoder(nn.Module):
    """Sentences -> the last layer's vector of their first token, [CLS]."""

    def __init__(self, bert: BertModel):
        super().__init__()
        self.bert = bert

    @classmethod
    def from_config(cls, stored: dict) -> "BertTextEncoder":
        """An encoder with random weights. stored: the contents of a BERT folder's config.json."""
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
        first_tokens = [group.first_tokens() for group in text.groups]
        return _run_layer(last_layer, hidden[text.first], first_tokens, hidden, text.groups)[text.ranks]


def bert_config(stored: dict) -> BertConfig:
    """What counts of a config.json, which may be of any origin. Raises ValueError for more layers than any model has."""
    config = BertConfig(**{name: stored[name] for name in SETTINGS if name in stored})
    if config.num_hidden_layers > MOST_LAYERS:  # they would be built before anyone looks at the weights
        raise ValueError(
            f"config.json: {config.num_hidden_layers} layers, more than the {MOST_LAYERS} that any model has"
        )
    return config


def _run_layer(
    layer: nn.Module, asking: Tensor, asking_groups: list[Group], hidden: Tensor, groups: list[Group]
) -> Tensor:
    """One layer of BERT, for the tokens whose new vectors are asked for.

    asking: (Q, width), these tokens; hidden: (T, width), all tokens; both sentence after sentence, grouped alike.
    Returns (Q, width).
    """
    after_attention, after_inner = layer.attention.output, layer.output
    context = _attend(layer.attention.self, asking, asking_groups, hidden, groups)
    context = _dropout(after_attention.dropout, _linear(after_attention.dense, _ready(context)))
    attended = after_attention.LayerNorm(context + asking)
    inner = layer.intermediate.intermediate_act_fn(_linear(layer.intermediate.dense, _ready(attended)))
    inner = _dropout(after_inner.dropout, _linear(after_inner.dense, _ready(inner)))
    return after_inner.LayerNorm(inner + attended)


def _attend(
    attention: nn.Module, asking: Tensor, asking_groups: list[Group], hidden: Tensor, groups: list[Group]
) -> Tensor:
    """Each asking token's mean of its sentence's values: (Q, width)."""
    heads = attention.num_attention_heads
    dropout = attention.dropout.p if attention.training else 0.0
    ready = _ready(hidden)
    ready_to_ask = ready if asking is hidden else _ready(asking)
    sizes = [group.tokens for group in groups]
    queries = _linear(attention.query, ready_to_ask).split([group.tokens for group in asking_groups])
    keys, values = _linear(attention.key, ready).split(sizes), _linear(attention.value, ready).split(sizes)
    contexts = []
    for asking_group, group, query, key, value in zip(asking_groups, groups, queries, keys, values, strict=True):
        query, key, value = asking_group.pad(query, heads), group.pad(key, heads), group.pad(value, heads)
        mask = None if group.mask is None else group.mask[:, None, None]
        context = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        contexts.append(asking_group.unpad(context))
    return torch.cat(contexts)


def _ready(rows: Tensor) -> Tensor:
    """The rows as `_linear` wants them.

    For float32 on an x86 CPU, PyTorch multiplies by MKL, which on AMD's processors has half the rate of oneDNN. What is in
    oneDNN's layout it gives to oneDNN: the same arithmetic, summed in another order.
    """
    x86 = rows.device.type == "cpu" and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    in_float32 = rows.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return rows.to_mkldnn() if x86 and in_float32 else rows


def _linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    return linear(rows, layer.weight, layer.bias).to_dense() if rows.is_mkldnn else layer(rows)


def _dropout(layer: nn.Dropout, rows: Tensor) -> Tensor:
    """layer(rows). PyTorch draws a Bernoulli number for each value, which a CPU does slower than uniform ones."""
    if not layer.training or not 0 < layer.p < 1 or rows.device.type != "cpu":
        return layer(rows)
    kept = torch.rand(rows.shape) >= layer.p
    return rows * kept * (1 / (1 - layer.p))
