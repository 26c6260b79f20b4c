"""Converts one of Google's TensorFlow checkpoints of BERT to a folder that transformers reads, without TensorFlow.

    python -m utils.convert_bert CHECKPOINT_DIR OUT_DIR

CHECKPOINT_DIR holds the contents of one of Google's zip files: bert_config.json, vocab.txt, bert_model.ckpt.index and its
shards, bert_model.ckpt.data-*. OUT_DIR becomes a folder for --bert: config.json, model.safetensors, vocab.txt,
tokenizer_config.json. The encoder and its pooler are converted; pretraining heads and optimizer state are left out.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertModel

from utils.bert_config import bert_config, is_cased
from utils.errors import Parser, UserError, first_line, run_program
from utils.files import make_folder, previous_folder, replacing
from utils.tensor_bundle import TensorBundle

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
AGAIN = "name the folder of a whole checkpoint, or download it again"
MISMATCH = "take bert_config.json, vocab.txt and the checkpoint from the same download"


def convert(checkpoint: Path, out: Path) -> str:
    """Writes a new or empty folder, completely or not at all. Returns a line about it. Raises UserError if it can't."""
    out_folder = out.resolve()
    for folder in (out_folder, previous_folder(out_folder)):  # `replacing` removes both
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: exists; remove it, or name a new folder")
    try:
        model = _make_model(checkpoint / "bert_config.json")
        tokens = _read_vocabulary(checkpoint / "vocab.txt", model.config.vocab_size)
        tensors = _read_tensors(checkpoint, model)
    except UnicodeDecodeError:
        raise UserError(f"{checkpoint / 'vocab.txt'}: not UTF-8 text; {AGAIN}") from None
    config, cased = model.config, is_cased(tokens)
    config.architectures, config.pad_token_id = ["BertModel"], tokens.index("[PAD]")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": not cased}
    tokenizer["model_max_length"] = config.max_position_embeddings
    make_folder(out_folder.parent)
    with replacing(out_folder) as work:
        work.mkdir()
        save_file(tensors, work / "model.safetensors", {"format": "pt"})
        config.to_json_file(work / "config.json")
        (work / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n")
        (work / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8", newline="\n")
    size = f"{config.num_hidden_layers} layers x {config.hidden_size}"
    return f"{out}: {len(tensors)} tensors, {size}, {'cased' if cased else 'uncased'}; use it with --bert {out}"


def _make_model(path: Path) -> BertModel:
    """The BERT of a bert_config.json, without values. Google and transformers share the names and defaults of settings."""
    content = path.read_bytes()
    try:
        with torch.device("meta"):
            return BertModel(bert_config(json.loads(content)))
    except Exception as error:  # transformers and torch refuse invalid settings in many ways
        reason = first_line(" ".join(f"{type(error).__name__}: {error}".split()))
        raise UserError(f"{path}: not the settings of a BERT ({reason}); {AGAIN}") from None


def _read_vocabulary(path: Path, size: int) -> list[str]:
    """The tokens in the order of their ids."""
    tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(tokens) != size:
        raise UserError(f"{path}: has {len(tokens)} lines, but vocab_size is {size} in bert_config.json; {MISMATCH}")
    if missing := [token for token in SPECIAL_TOKENS if token not in tokens]:
        raise UserError(f"{path}: lacks {', '.join(missing)}, so it is not a vocabulary of BERT; {AGAIN}")
    return tokens


def _read_tensors(folder: Path, model: BertModel) -> dict[str, Tensor]:
    """Name in transformers -> tensor, for all tensors of the model."""
    usual = folder / "bert_model.ckpt.index"
    paths = [usual] if usual.exists() else sorted(folder.glob("*.index"))
    if len(paths) != 1:
        raise UserError(f"{folder}: has {len(paths)} files *.index; expected {usual.name}, or one with another name")
    bundle = TensorBundle(paths[0])
    expected = model.state_dict()
    sources = {name: google_name(name) for name in expected}
    shapes = {source: tuple(transposed(source, expected[name]).shape) for name, source in sources.items()}
    if wrong := [source for source, shape in shapes.items() if bundle.shapes.get(source) != shape]:
        first = f"{wrong[0]} of shape {shapes[wrong[0]]}"
        problem = f"lacks {len(wrong)} of the {len(shapes)} tensors of bert_config.json, starting with {first}"
        raise UserError(f"{bundle.index}: {problem}; {MISMATCH}, of a BERT trained with Google's code")
    layers = model.config.num_hidden_layers
    if f"bert/encoder/layer_{layers}/output/dense/kernel" in bundle.shapes:
        raise UserError(f"{bundle.index}: has more than the {layers} layers of bert_config.json; {MISMATCH}")
    return {name: transposed(source, bundle.read(source)).contiguous() for name, source in sources.items()}


def transposed(source: str, tensor: Tensor) -> Tensor:
    """TensorFlow multiplies by a kernel, (inputs, outputs); PyTorch by its transpose. Other tensors are the same in both."""
    return tensor.T if source.endswith("/kernel") else tensor


def google_name(name: str) -> str:
    """The name in Google's checkpoints of a tensor that transformers calls `name`."""
    name = "bert/" + name.replace(".", "/").replace("/layer/", "/layer_").replace("_embeddings/weight", "_embeddings")
    name = name.replace("LayerNorm/weight", "LayerNorm/gamma").replace("LayerNorm/bias", "LayerNorm/beta")
    return name.replace("/weight", "/kernel")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m utils.convert_bert", description="Converts a TensorFlow checkpoint of BERT.")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_DIR", help="one of Google's zip files, unpacked")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="the folder to write, for --bert")
    return run_program(lambda: print(convert(**vars(parser.parse_args(argv)))))


if __name__ == "__main__":
    raise SystemExit(main())
