"""Converts one of Google's TensorFlow checkpoints of BERT to a folder that transformers reads, without TensorFlow.

    python -m utils.convert_bert CHECKPOINT_DIR OUT_DIR

CHECKPOINT_DIR holds what Google's zip files do: bert_config.json, vocab.txt, bert_model.ckpt.index and
bert_model.ckpt.data-00000-of-00001, or several such shards. A checkpoint of another name is taken where it is the only one.
OUT_DIR becomes what --bert takes: config.json, model.safetensors, vocab.txt, tokenizer_config.json. The encoder and its
pooler are converted; heads of the pretraining or of other tasks, and an optimizer's variables, are left out.
"""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np

from utils.errors import Parser, UserError, first_line, run_program
from utils.files import make_folder, previous_folder, replacing
from utils.progress import progress
from utils.tensor_bundle import Entry, TensorBundle

WRITTEN = ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json")
MOST = 1 << 24  # bytes of bert_config.json and vocab.txt; the multilingual vocabulary has 1 MB
MOST_LAYERS = 1000  # --bert takes no more, either
AGAIN = "download the checkpoint again"
TOGETHER = "take both from one download"

SIZES = """
    vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings type_vocab_size
""".split()
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
ACTIVATIONS = ("gelu", "relu", "tanh", "linear")  # those that Google's code knows
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def convert(checkpoint: Path, out: Path) -> str:
    """Converts a folder to another, and says in one line what was written.

    out: is written as a whole or not at all; may be what an earlier conversion wrote. Raises UserError for a checkpoint
    that is missing, damaged or none of BERT's, and for an out that holds anything else.
    """
    place = Path(os.path.realpath(out))  # what is to be replaced is a folder, not a link to it
    try:
        _check_place(place, out, checkpoint)
        config = _read_config(checkpoint / "bert_config.json")
        tokens = _read_vocabulary(checkpoint / "vocab.txt", config["vocab_size"])
        entries = _find_tensors(TensorBundle(_find_index(checkpoint)), config)
    except OSError as error:
        raise UserError(f"{error.filename}: can't be read ({error.strerror})") from None
    config |= {"model_type": "bert", "architectures": ["BertModel"], "pad_token_id": tokens.index("[PAD]")}
    cased = any(re.search("[A-Z]", token) for token in tokens if not (token.startswith("[") and token.endswith("]")))
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": not cased}
    tokenizer["model_max_length"] = config["max_position_embeddings"]
    make_folder(place.parent)
    with replacing(place) as work:
        try:
            work.mkdir()
            _write_weights(work / "model.safetensors", entries)
            (work / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            (work / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n")
            (work / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8", newline="\n")
        except OSError as error:
            raise UserError(f"{out}: can't be written ({error.strerror}); make room, or name another folder") from None
    size = f"{config['num_hidden_layers']} layers x {config['hidden_size']}"
    return f"{out}: {len(entries)} tensors, {size}, {'cased' if cased else 'uncased'}; use it with --bert {out}"


def _check_place(place: Path, out: Path, checkpoint: Path) -> None:
    """Raises where writing a folder to this place would take away anything but an earlier conversion."""
    source = Path(os.path.realpath(checkpoint))
    if not source.is_dir():
        raise UserError(f"{checkpoint}: no such folder; name the one with bert_config.json and bert_model.ckpt.index")
    if place in (source, *source.parents) or not place.name:
        raise UserError(f"{out}: is or holds the checkpoint's folder; name another folder to write to")
    for folder in (place, previous_folder(place)):  # where `replacing` moves it
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; name a folder to write to")
        files = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if files and ("config.json" not in files or not files <= set(WRITTEN)):
            raise UserError(f"{folder}: holds other files than a converted BERT, and isn't replaced; name a new folder")


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file; it comes with the checkpoint: put it there")
    if path.stat().st_size > MOST:
        raise UserError(f"{path}: is larger than any BERT's; {AGAIN}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no text in UTF-8; {AGAIN}") from None


def _read_config(path: Path) -> dict:
    """What counts of a bert_config.json. transformers has the same names, and defaults for what need not be there."""
    try:
        if not isinstance(stored := json.loads(_read_text(path)), dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected a JSON object ({first_line(error)}); {AGAIN}") from None
    config = {name: stored[name] for name in (*SIZES, *RATES, "hidden_act") if name in stored}

    def check(name: str, fits: bool, expected: str) -> None:
        if not fits:
            value = config.get(name, "nothing")
            found = first_line(value) if isinstance(value, str | int | float) else type(value).__name__
            raise UserError(f"{path}: {name}: expected {expected}, found {found}; {AGAIN}")

    for name in SIZES:
        check(name, type(config.get(name)) is int and config[name] > 0, "a whole number from 1")
    check("num_hidden_layers", config["num_hidden_layers"] <= MOST_LAYERS, f"at most {MOST_LAYERS}")
    check(
        "hidden_size", config["hidden_size"] % config["num_attention_heads"] == 0, "a multiple of num_attention_heads"
    )
    for name in RATES:
        check(name, type(rate := config.get(name, 0)) in (int, float) and 0 <= rate < 1, "a number from 0 to below 1")
    check("hidden_act", config.get("hidden_act", "gelu") in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}")
    return config


def _read_vocabulary(path: Path, size: int) -> list[str]:
    """The tokens in the order of their ids."""
    tokens = _read_text(path).removesuffix("\n").split("\n")
    if len(tokens) != size:
        raise UserError(
            f"{path}: has {len(tokens)} lines, but vocab_size is {first_line(size)} in bert_config.json; {TOGETHER}"
        )
    for token in SPECIAL_TOKENS:
        if token not in tokens:
            raise UserError(f"{path}: has no line {token}, so it is no vocabulary of BERT's; {AGAIN}")
    return tokens


def _find_index(folder: Path) -> Path:
    usual = folder / "bert_model.ckpt.index"
    found = [usual] if usual.exists() else sorted(folder.glob("*.index"))
    if not found:
        raise UserError(f"{usual}: no such file; {AGAIN}")
    if len(found) > 1:
        raise UserError(
            f"{folder}: has {len(found)} checkpoints, such as {found[0].name} and {found[1].name}; put the one to convert "
            "into a folder of its own, with bert_config.json and vocab.txt"
        )
    return found[0]


def needed_tensors(config: dict) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in transformers -> name and shape in the checkpoint. config: a bert_config.json's sizes."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    in_a_layer = {  # module -> (inputs, outputs); None: a layer norm
        "attention.self.query": (width, width),
        "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width),
        "attention.output.LayerNorm": None,
        "intermediate.dense": (width, inner),
        "output.dense": (inner, width),
        "output.LayerNorm": None,
    }
    modules = {"embeddings.LayerNorm": None}
    for number in range(config["num_hidden_layers"]):
        modules |= {f"encoder.layer.{number}.{module}": sizes for module, sizes in in_a_layer.items()}
    modules["pooler.dense"] = (width, width)

    tensors = {}
    for kind, rows in (
        ("word", "vocab_size"),
        ("position", "max_position_embeddings"),
        ("token_type", "type_vocab_size"),
    ):
        tensors[f"embeddings.{kind}_embeddings.weight"] = f"bert/embeddings/{kind}_embeddings", (config[rows], width)
    for module, sizes in modules.items():
        source = f"bert/{module.replace('layer.', 'layer_').replace('.', '/')}"
        if sizes is None:
            tensors[f"{module}.weight"] = f"{source}/gamma", (width,)
            tensors[f"{module}.bias"] = f"{source}/beta", (width,)
        else:
            tensors[f"{module}.weight"] = f"{source}/kernel", sizes
            tensors[f"{module}.bias"] = f"{source}/bias", sizes[1:]
    return tensors


def _find_tensors(bundle: TensorBundle, config: dict) -> dict[str, Entry]:
    """Name in transformers -> where its tensor lies."""
    needed = needed_tensors(config)
    missing = [name for name, _ in needed.values() if name not in bundle]
    if missing:
        raise UserError(
            f"{bundle.index}: lacks {len(missing)} of the {len(needed)} tensors that bert_config.json asks for, {missing[0]} "
            f"first; {TOGETHER}, of a BERT by Google's code"
        )
    layers = config["num_hidden_layers"]
    if f"bert/encoder/layer_{layers}/output/dense/kernel" in bundle:
        raise UserError(f"{bundle.index}: has more than the {layers} layers of bert_config.json; {TOGETHER}")
    entries = {}
    for name, (source, shape) in needed.items():
        entries[name] = entry = bundle.entry(source)
        if entry.shape != shape:
            raise UserError(
                f"{bundle.index}: {source} has the shape {first_line(entry.shape)}, and by bert_config.json it is {first_line(shape)}; "
                f"{TOGETHER}"
            )
    if sum(entry.data.nbytes for entry in entries.values()) > bundle.nbytes:  # what is written could be of any size
        raise UserError(f"{bundle.index}: says that tensors share their place; {AGAIN}")
    return entries


def _write_weights(path: Path, entries: dict[str, Entry]) -> None:
    """Writes a safetensors file one tensor after the other, so that no two are in memory at once.

    It is the length of a header, the header in JSON, which says where each tensor is from the header's end on, and these.
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, entry in entries.items():
        shape = entry.shape[::-1] if _is_kernel(entry) else entry.shape
        header[name] = {"dtype": entry.dtype, "shape": shape, "data_offsets": [end, end := end + entry.data.nbytes]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    with open(path, "wb") as file, progress(what="converting", unit="B", total=end) as bar:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries.values():
            values = entry.read()
            file.write(np.ascontiguousarray(values.T if _is_kernel(entry) else values).data)
            bar.update(entry.data.nbytes)


def _is_kernel(entry: Entry) -> bool:
    """TensorFlow multiplies by a kernel, (inputs, outputs), PyTorch by its transpose."""
    return entry.name.endswith("/kernel")


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
