"""Trained models on the Hugging Face hub: how they are named, downloaded and published."""

import json
import logging
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import transformers
from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from safetensors.torch import save_file
from transformers.initialization import no_init_weights

from config.inputs import find_on_disk
from utils.errors import UserError, first_line

CONFIG, WEIGHTS, CARD, LABELS, TOKENIZER = "config.json", "model.safetensors", "README.md", "labels.csv", "tokenizer"
VOCABULARY = [f"{TOKENIZER}/{name}" for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")]
FILES = [CONFIG, WEIGHTS, CARD, LABELS, *VOCABULARY]  # of a checkpoint folder; no others are downloaded or published
METADATA = "trained_on"  # the key of config.json for dataset, seed, epoch, versions and the weights' checksum


class HubModel(PyTorchModelHubMixin, library_name="self-mm", paper_url="https://arxiv.org/abs/2102.04830"):
    """Loaded by `from_pretrained`, from a folder or the hub; published by `save_pretrained` and `push_to_hub`.

    With it go card, metadata, labels and vocabulary; with weights that have changed, the vocabulary alone.
    """

    companions: dict[str, bytes] = {}  # the other files of the folder that it was loaded from

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **settings: object) -> "HubModel":
        where = ("revision", "cache_dir", "force_download", "token", "local_files_only")
        if not (folder := Path(model_id)).is_dir():
            folder = Path(snapshot_download(model_id, allow_patterns=FILES, **{key: settings[key] for key in where}))
        # Always strict: a file without some tensors is an error, not random weights. Old hub libraries leave dropout on.
        with no_init_weights():  # drawing random ones first would take most of the time
            model = super()._from_pretrained(model_id=str(folder), **settings | {"strict": True}).eval()
        others = [name for name in FILES if name != WEIGHTS and (folder / name).is_file()]
        model.companions = {name: (folder / name).read_bytes() for name in others}
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        # cuDNN keeps an LSTM's weights in one block of memory, which the mixin refuses to save. Copies are separate.
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, save_directory / WEIGHTS)
        metadata = json.loads(self.companions.get(CONFIG, b"{}")).get(METADATA, {})
        unchanged = metadata.get("checksum") == checksum(save_directory)
        for name in self.companions if unchanged else self.companions.keys() & VOCABULARY:
            (save_directory / name).parent.mkdir(exist_ok=True)
            (save_directory / name).write_bytes(self.companions[name])


def checksum(folder: Path) -> int:
    return zlib.crc32((folder / WEIGHTS).read_bytes())


def find_checkpoint(named: str, flag: str) -> Path:
    """A path; or else, for owner/name or owner/name@revision, the hub's cache or a download. Raises UserError."""
    if path := find_on_disk(named, flag):
        return path
    name, _, revision = named.partition("@")

    def load(**where: bool) -> Path:
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=FILES, **where))
        if not all((folder / file).exists() for file in (CONFIG, WEIGHTS)):  # an interrupted download, or another model
            raise FileNotFoundError(f"it lacks {CONFIG} or {WEIGHTS}")
        return folder

    advice = "there is no such folder here; a private or gated model of the hub needs `hf auth login`"
    return from_disk_or_hub(named, load, flag, advice)


def from_disk_or_hub(source: str, load: Callable, flag: str, advice: str):
    """Loads from the disk or, only if that fails, from the hub, whose library retries for minutes without internet."""
    for where in [{"local_files_only": True}] if Path(source).is_dir() else [{"local_files_only": True}, {}]:
        set_bars = transformers.logging.disable_progress_bar if where else transformers.logging.enable_progress_bar
        set_bars()
        logging.disable(logging.CRITICAL)  # reports and retries of transformers and the hub
        try:
            with warnings.catch_warnings(action="ignore"):
                return load(**where)
        except BaseException as error:  # damaged files fail in many ways; tokenizers, in Rust, with a PanicException
            is_damage = isinstance(error, Exception) or type(error).__name__ == "PanicException"
            if isinstance(error, UserError) or not is_damage:
                raise
            text = " ".join(str(error).split()).partition(" or see how")[0].partition(". To enable")[0]
            reason = first_line(text) or type(error).__name__
        finally:
            logging.disable(logging.NOTSET)
    mirror = "for a mirror of the hub, set HF_ENDPOINT=https://hf-mirror.com, and leave HF_HUB_OFFLINE unset"
    raise UserError(f"{flag} {source}: cannot be loaded ({reason}); {advice}; {mirror}")
