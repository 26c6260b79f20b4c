"""Converts one of Google's TensorFlow checkpoints of BERT to a folder that transformers reads, without TensorFlow.

    python -m utils.convert_bert CHECKPOINT_DIR OUT_DIR

CHECKPOINT_DIR holds the contents of one of Google's zip files: bert_config.json, vocab.txt, bert_model.ckpt.index and
bert_model.ckpt.data-00000-of-00001, or several such shards. A checkpoint with another name is used if it is the only one.
OUT_DIR becomes a folder for --bert: config.json, model.safetensors, vocab.txt, tokenizer_config.json. The encoder and its
pooler are converted; pretraining heads, task heads and optimizer state are left out.
"""

import json
import re
import sys
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from utils.errors import Parser, UserError, first_line, run_program
from utils.files import make_folder, previous_folder, replacing
from utils.tensor_bundle import TensorBundle

SIZES = """
    vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings type_vocab_size
""".split()
MOST_LAYERS = 1000  # --bert accepts no more, either
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
ACTIVATIONS = ("gelu", "relu", "tanh", "linear")  # the ones Google's code knows
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LINEAR = """
    attention.self.query attention.self.key attention.self.value attention.output.dense intermediate.dense output.dense
""".split()
LAYER_NORM = ("attention.output.LayerNorm", "output.LayerNorm")
AGAIN = "download the checkpoint again"
MISMATCH = "take bert_config.json, vocab.txt and the checkpoint from the same download"


def convert(checkpoint: Path, out: Path) -> str:
    """Converts a folder. Returns a line that says what was written.

    out: must not exist, or be empty; it is written completely or not at all. Raises UserError if the checkpoint is missing,
    damaged or not a BERT.
    """
    out_folder = out.resolve()
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint}: no such folder; name the one with bert_config.json and bert_model.ckpt.index")
    for folder in (out_folder, previous_folder(out_folder)):  # `replacing` removes both
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: exists; remove it, or name a new folder")
    try:
        config = _read_config(checkpoint / "bert_config.json")
        tokens = _read_vocabulary(checkpoint / "vocab.txt", config["vocab_size"])
        tensors = _read_tensors(TensorBundle(_find_index(checkpoint)), config)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); {AGAIN}") from None
    config |= {"model_type": "bert", "architectures": ["BertModel"], "pad_token_id": tokens.index("[PAD]")}
    cased = any(re.search("[A-Z]", token) for token in tokens if not re.fullmatch(r"\[.*\]", token))
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": not cased}
    tokenizer["model_max_length"] = config["max_position_embeddings"]
    make_folder(out_folder.parent)
    with replacing(out_folder) as work:
        work.mkdir()
        save_file(tensors, work / "model.safetensors", {"format": "pt"})
        (work / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (work / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n")
        (work / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8", newline="\n")
    size = f"{config['num_hidden_layers']} layers x {config['hidden_size']}"
    return f"{out}: {len(tensors)} tensors, {size}, {'cased' if cased else 'uncased'}; use it with --bert {out}"


def _read_config(path: Path) -> dict:
    """The settings of a bert_config.json, checked. transformers has the same names, and defaults for the optional ones."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        config = {name: stored[name] for name in (*SIZES, *RATES, "hidden_act") if name in stored}
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: expected a JSON object ({first_line(error)}); {AGAIN}") from None

    def check(name: str, valid: bool, expected: str) -> None:
        if not valid:
            value = first_line(repr(config.get(name)))
            raise UserError(f"{path}: {name}: expected {expected}, found {value}; {AGAIN}")

    for name in SIZES:
        check(name, type(config.get(name)) is int and config[name] > 0, "a positive integer")
    check("num_hidden_layers", config["num_hidden_layers"] <= MOST_LAYERS, f"at most {MOST_LAYERS}")
    multiple = config["hidden_size"] % config["num_attention_heads"] == 0
    check("hidden_size", multiple, "a multiple of num_attention_heads")
    for name in RATES:
        check(name, type(rate := config.get(name, 0)) in (int, float) and 0 <= rate < 1, "a number from 0 to below 1")
    check("hidden_act", config.get("hidden_act", "gelu") in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}")
    return config


def _read_vocabulary(path: Path, size: int) -> list[str]:
    """The tokens in the order of their ids."""
    try:
        tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; {AGAIN}") from None
    if len(tokens) != size:
        raise UserError(f"{path}: has {len(tokens)} lines, but vocab_size is {size}; {MISMATCH}")
    for token in SPECIAL_TOKENS:
        if token not in tokens:
            raise UserError(f"{path}: has no line {token}, so it is not a vocabulary of BERT; {AGAIN}")
    return tokens


def _find_index(folder: Path) -> Path:
    usual = folder / "bert_model.ckpt.index"
    paths = [usual] if usual.exists() else sorted(folder.glob("*.index"))
    if not paths:
        raise UserError(f"{usual}: no such file; {AGAIN}")
    if len(paths) > 1:
        raise UserError(
            f"{folder}: has {len(paths)} checkpoints, such as {paths[0].name} and {paths[1].name}; move the one to convert "
            "to a separate folder, with bert_config.json and vocab.txt"
        )
    return paths[0]


def needed_tensors(config: dict) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in transformers -> name and shape in the checkpoint. config: a bert_config.json's sizes."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    tensors = {
        f"embeddings.{kind}_embeddings.weight": (f"bert/embeddings/{kind}_embeddings", (config[rows], width))
        for kind, rows in (
            ("word", "vocab_size"),
            ("position", "max_position_embeddings"),
            ("token_type", "type_vocab_size"),
        )
    }

    def add(module: str, **sources: tuple[str, tuple[int, ...]]) -> None:
        folder = f"bert/{module.replace('layer.', 'layer_').replace('.', '/')}"
        for name, (source, shape) in sources.items():
            tensors[f"{module}.{name}"] = f"{folder}/{source}", shape

    layers = [f"encoder.layer.{number}" for number in range(config["num_hidden_layers"])]
    for module in ("embeddings.LayerNorm", *(f"{layer}.{name}" for layer in layers for name in LAYER_NORM)):
        add(module, weight=("gamma", (width,)), bias=("beta", (width,)))
    for module in (*(f"{layer}.{name}" for layer in layers for name in LINEAR), "pooler.dense"):
        inputs = inner if module.endswith("output.dense") and "attention" not in module else width
        outputs = inner if module.endswith("intermediate.dense") else width
        add(module, weight=("kernel", (inputs, outputs)), bias=("bias", (outputs,)))
    return tensors


def _read_tensors(bundle: TensorBundle, config: dict) -> dict[str, Tensor]:
    """Name in transformers -> tensor."""
    needed = needed_tensors(config)
    missing = [source for source, _ in needed.values() if source not in bundle.shapes]
    if missing:
        raise UserError(
            f"{bundle.index}: lacks {len(missing)} of the {len(needed)} tensors that bert_config.json asks for, starting with "
            f"{missing[0]}; {MISMATCH}, of a BERT trained with Google's code"
        )
    layers = config["num_hidden_layers"]
    if f"bert/encoder/layer_{layers}/output/dense/kernel" in bundle.shapes:
        raise UserError(f"{bundle.index}: has more than the {layers} layers of bert_config.json; {MISMATCH}")
    tensors = {}
    for name, (source, shape) in needed.items():
        if bundle.shapes[source] != shape:
            raise UserError(
                f"{bundle.index}: {source} has the shape {bundle.shapes[source]}, but {shape} by bert_config.json; {MISMATCH}"
            )
        tensor = bundle.read(source)
        # TensorFlow multiplies by a kernel, (inputs, outputs); PyTorch by its transpose.
        tensors[name] = tensor.T.contiguous() if source.endswith("/kernel") else tensor
    return tensors


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m utils.convert_bert", description="Converts a TensorFlow checkpoint of BERT for --bert."
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT_DIR", help="a folder as in Google's zip files, unpacked"
    )
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="the folder to write, for --bert")

    def work() -> None:
        arguments = parser.parse_args(argv)
        print(convert(arguments.checkpoint, arguments.out))

    return run_program(work)


if __name__ == "__main__":
    sys.exit(main())
