"""What counts of a BERT folder's config.json, which may be of any origin."""

from transformers import BertConfig

# All that a config.json can set. transformers knows many more settings: code to run, kernels to fetch, files to read.
SETTINGS = """
    vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act max_position_embeddings
    type_vocab_size hidden_dropout_prob attention_probs_dropout_prob initializer_range layer_norm_eps pad_token_id
""".split()
MOST_LAYERS = 1000  # the largest BERT models have 48


def bert_config(stored: dict) -> BertConfig:
    """What counts of a config.json, which may be of any origin. Raises ValueError for more layers than any model has."""
    config = BertConfig(**{name: stored[name] for name in SETTINGS if name in stored})
    if config.num_hidden_layers > MOST_LAYERS:  # they would be built before anyone looks at the weights
        raise ValueError(
            f"config.json: {config.num_hidden_layers} layers, more than the {MOST_LAYERS} that any model has"
        )
    return config
