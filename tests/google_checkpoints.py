"""A tiny BERT as one of Google's TensorFlow checkpoints, and a check of the folder converted from it."""

import json
from pathlib import Path

import bundles
import numpy as np
import tiny
import torch
from safetensors.numpy import load_file
from transformers import BertModel

SIZES = {
    "vocab_size": len(tiny.VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
}
SETTINGS = SIZES | {"hidden_act": "gelu", "hidden_dropout_prob": 0.1, "directionality": "bidi"}
INDEX, DATA = "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"
WORDS = "bert/embeddings/word_embeddings"
KERNEL = "bert/encoder/layer_1/intermediate/dense/kernel"


def make_model(seed: int = 0) -> BertModel:
    """With a pooler, like Google's checkpoints."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(tiny.make_bert_config(max_position_embeddings=20)).eval()
        for parameter in model.parameters():  # zero biases and unit gains would hide errors
            parameter.data += 0.1 * torch.randn_like(parameter)
        return model


def as_google_names_them(model: BertModel) -> dict[str, np.ndarray]:
    arrays = {}
    for name, tensor in model.state_dict().items():
        *path, kind = name.split(".")
        path = "/".join(["bert", *path]).replace("/layer/", "/layer_")
        if path.endswith("_embeddings"):
            arrays[path] = tensor.numpy()
        elif path.endswith("LayerNorm"):
            arrays[f"{path}/{'gamma' if kind == 'weight' else 'beta'}"] = tensor.numpy()
        else:
            arrays[f"{path}/{'kernel' if kind == 'weight' else 'bias'}"] = tensor.numpy().T.copy()
    return arrays


MODEL = make_model()
ARRAYS = as_google_names_them(MODEL)
BESIDES = {
    "cls/predictions/output_bias": np.zeros(45, np.float32),
    "cls/seq_relationship/output_weights": np.zeros((2, 16), np.float32),
    "global_step": np.int64(1000000),
    **{f"{name}/{slot}": np.zeros_like(ARRAYS[name]) for name in (WORDS, KERNEL) for slot in ("adam_m", "adam_v")},
}


def write_texts(folder: Path, vocabulary: list[str] = tiny.VOCABULARY, **settings) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "bert_config.json").write_text(json.dumps(SETTINGS | settings))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def write_checkpoint(folder: Path, arrays: dict[str, np.ndarray] = ARRAYS, name="bert_model.ckpt", **how) -> Path:
    write_texts(folder)
    bundles.write_bundle(folder / name, arrays, **how)
    return folder


def assert_holds(out: Path, arrays: dict[str, np.ndarray]) -> None:
    """The folder has all of transformers' tensors, equal to the bit to arrays, which has Google's names."""
    written = load_file(out / "model.safetensors")
    assert written.keys() == MODEL.state_dict().keys()
    template = BertModel(MODEL.config)
    template.load_state_dict({name: torch.from_numpy(values) for name, values in written.items()})
    for name, values in as_google_names_them(template).items():
        np.testing.assert_array_equal(values, arrays[name], strict=True)
