"""The settings of BERT that the text encoder uses, from a --bert folder's config.json or Google's bert_config.json."""

from transformers import BertConfig

# transformers reads many more: code to run, kernels to fetch, files to open. The folder may come from an untrusted source.
SETTINGS = """
    vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act max_position_embeddings
    type_vocab_size hidden_dropout_prob attention_probs_dropout_prob initializer_range layer_norm_eps pad_token_id
""".split()
MOST_LAYERS = 1000  # the largest BERT models have 48; transformers builds them all before it reads the weights


def bert_config(stored: dict) -> BertConfig:
    """stored: the file's contents. Raises an exception, of any type, if a setting is invalid."""
    config = BertConfig(**{name: value for name, value in stored.items() if name in SETTINGS})
    if not 0 < config.num_hidden_layers <= MOST_LAYERS:
        raise ValueError(f"num_hidden_layers: expected 1 to {MOST_LAYERS}, not {config.num_hidden_layers}")
    return config


def is_cased(tokens: list[str]) -> bool:
    """Whether a vocabulary distinguishes upper and lower case."""
    return sum(token != token.lower() and token[0] != "[" for token in tokens) > len(tokens) / 100
