"""Data paths, and a table of hyper-parameters for each dataset.

This is the file to edit. Keys are named as in the released code, for easy comparison. The defaults of `Config` are
shared by all datasets; the tables below contain the differences.
"""

import difflib
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from utils.errors import UserError

# The folder that contains MOSI/, MOSEI/, SIMS/ and SIMSv2/; relative to the repository. The environment variable
# SELF_MM_DATA overrides it, and --dataPath, which names a single file, overrides both.
DATA_ROOT = "datasets"

REPOSITORY = Path(__file__).resolve().parent.parent

TASKS = ("fusion", "text", "audio", "vision")
TASK_LETTERS = dict(zip("MTAV", TASKS, strict=True))
TASK_SETS = ("M", "MV", "MA", "MT", "MAV", "MTV", "MTA", "MTAV")  # in the order of the paper's table 4
CHOICES = {"precision": ("float32", "bf16", "float64"), "unimodal_labels": ("generated", "human", "copied")}


@dataclass(frozen=True)
class Dataset:
    """Facts about a dataset that do not depend on its feature file."""

    name: str
    language: str  # "en" or "cn"; selects the default BERT
    unaligned: tuple[str, ...]  # places of its feature file, relative to the data root
    aligned: tuple[str, ...]  # those of its word-aligned file, if one is published
    text_length: int  # tokens kept of each raw_text, [CLS] and [SEP] included; Config.text_length overrides it
    label_bound: float  # labels lie in [-label_bound, label_bound]
    metrics: str  # "mosi" or "sims"; see utils/metrics.py

    @property
    def bert_folder(self) -> Path:
        """The first place to look for the pretrained text encoder. The demo's is generated with its corpus."""
        generated = data_root() / "DEMO" / "bert"
        return generated if self.name == "demo" else REPOSITORY / "pretrained_model" / f"bert_{self.language}"


SIMS = ("SIMS/Processed/features/unaligned_39.pkl", "SIMS/Processed/unaligned_39.pkl")  # as in Self-MM, in MMSA
ALL_DATASETS = (
    Dataset("mosi", "en", ("MOSI/Processed/unaligned_50.pkl",), ("MOSI/Processed/aligned_50.pkl",), 50, 3.0, "mosi"),
    Dataset("mosei", "en", ("MOSEI/Processed/unaligned_50.pkl",), ("MOSEI/Processed/aligned_50.pkl",), 50, 3.0, "mosi"),
    Dataset("sims", "cn", SIMS, (), 39, 1.0, "sims"),
    Dataset("simsv2", "cn", ("SIMSv2/Processed/sims_unaligned.pkl",), (), 39, 1.0, "sims"),
    Dataset("demo", "en", ("DEMO/Processed/unaligned.pkl",), (), 20, 3.0, "mosi"),
)
DATASETS = {dataset.name: dataset for dataset in ALL_DATASETS}


def data_root() -> Path:
    """The folder with all datasets: SELF_MM_DATA, or else DATA_ROOT."""
    return Path(os.environ.get("SELF_MM_DATA") or REPOSITORY / DATA_ROOT).expanduser()


@dataclass(frozen=True, kw_only=True)
class Config:
    """All hyper-parameters. Raises UserError for a value of the wrong type or out of range."""

    # optimization; one learning rate and weight decay per parameter group
    batch_size: int  # clips per micro-batch
    update_epochs: int = 4  # micro-batches per window, which is one optimizer step
    learning_rate_bert: float = 5e-5
    learning_rate_audio: float
    learning_rate_video: float
    learning_rate_other: float = 1e-3
    weight_decay_bert: float
    weight_decay_audio: float
    weight_decay_video: float
    weight_decay_other: float
    early_stop: int = 8  # stop after this many epochs without a better KeyEval
    max_epochs: int = 0  # 0: no limit but early_stop
    KeyEval: str = "Loss"  # validation score that selects the best epoch: Loss or a metric
    round_scores: bool = False  # True: Loss and all metrics have 4 digits (MMSA); False: only MOSI's and MOSEI's do
    keep_last_window: bool = False  # True: also step on the last, incomplete window of an epoch

    # encoders
    use_finetune: bool = True  # False: BERT is frozen
    a_lstm_hidden_size: int
    v_lstm_hidden_size: int
    a_lstm_layers: int = 1
    v_lstm_layers: int = 1
    a_lstm_dropout: float = 0.0
    v_lstm_dropout: float = 0.0
    audio_out: int = 16
    video_out: int = 32

    # heads
    post_fusion_dim: int = 128
    post_text_dim: int
    post_audio_dim: int
    post_video_dim: int
    post_fusion_dropout: float
    post_text_dropout: float
    post_audio_dropout: float
    post_video_dropout: float

    # unimodal labels
    unimodal_labels: str = "generated"  # or human: those of the feature file; or copied: the label of all modalities
    tasks: str = "MTAV"  # M (fusion) plus any of T (text), A (audio), V (vision)
    H: float  # generated labels are clamped to [-H, H]
    exclude_zero: bool = False  # neutral clips: True: in neither class (paper); False: in the positive class

    # computation
    precision: str = "float32"  # or float64; or bf16: encoders and heads, except LSTMs on a GPU
    max_clips_per_pass: int = 0  # 0: whole windows; fewer clips save memory, with the same gradient
    text_length: int = 0  # tokens kept of each raw_text, [CLS] and [SEP] included; 0: the dataset's

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str):  # MAT -> MTA
            object.__setattr__(self, "tasks", "".join(sorted(self.tasks, key="MTAV".find)))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and type(value) is int:
                object.__setattr__(self, field.name, value := float(value))
            if type(value) is not field.type:
                raise UserError(f"config: {field.name} = {value!r}: expected {TYPE_NAMES[field.type]}")
            expected, valid = _range(field.name, value)
            if not valid:
                raise UserError(f"config: {field.name} = {value!r} is out of range: expected {expected}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the selected tasks, in the order of TASKS."""
        return tuple(name for letter, name in TASK_LETTERS.items() if letter in self.tasks)

    @property
    def head_sizes(self) -> dict[str, tuple[int, float]]:
        """Task -> width of its hidden layers, and dropout."""
        return {
            "fusion": (self.post_fusion_dim, self.post_fusion_dropout),
            "text": (self.post_text_dim, self.post_text_dropout),
            "audio": (self.post_audio_dim, self.post_audio_dropout),
            "vision": (self.post_video_dim, self.post_video_dropout),
        }

    def updates_weights(self, clips: int) -> bool:
        """Whether an epoch has a window that changes the weights. clips: in the training split."""
        return self.keep_last_window or clips > self.batch_size * (self.update_epochs - 1)

    def identity(self) -> dict[str, object]:
        """The values that define an experiment. Passes are excluded: they change only the random draws of dropout."""
        values, later = asdict(self), ("text_length", "unimodal_labels")
        # Runs without a later key keep the hash that they had before it existed.
        left_out = {"max_clips_per_pass", *(name for name in later if values[name] == getattr(Config, name))}
        return {name: value for name, value in values.items() if name not in left_out}


TYPE_NAMES = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}


def _range(name: str, value: object) -> tuple[str, bool]:
    """Describes the valid values of a key. Also returns whether `value` is valid."""
    if name == "tasks":
        return f"M plus any of T, A, V: {', '.join(TASK_SETS)}", value in TASK_SETS
    if name in CHOICES:
        return " or ".join(CHOICES[name]), value in CHOICES[name]
    if isinstance(value, bool | str):
        return "", True
    if name.endswith("_dropout"):
        return "0 <= value < 1", 0 <= value < 1
    if name == "text_length":
        return "0, or 3 or more", value == 0 or value >= 3
    if name in ("max_epochs", "max_clips_per_pass") or name.startswith("weight_decay"):
        return "0 or more", 0 <= value < float("inf")
    return "more than 0", 0 < value < float("inf")


# The hyper-parameters of the released Self-MM.
RELEASED = {
    "mosi": {
        "batch_size": 32, "H": 3.0, "learning_rate_audio": 1e-3, "learning_rate_video": 1e-4,
        "weight_decay_bert": 0.001, "weight_decay_audio": 0.01, "weight_decay_video": 0.001, "weight_decay_other": 0.001,
        "a_lstm_hidden_size": 32, "v_lstm_hidden_size": 64,
        "post_text_dim": 64, "post_audio_dim": 16, "post_video_dim": 32,
        "post_fusion_dropout": 0.1, "post_text_dropout": 0.0, "post_audio_dropout": 0.1, "post_video_dropout": 0.1,
    },
    "mosei": {
        "batch_size": 32, "H": 3.0, "learning_rate_audio": 5e-3, "learning_rate_video": 1e-4,
        "weight_decay_bert": 0.001, "weight_decay_audio": 0.0, "weight_decay_video": 0.0, "weight_decay_other": 0.01,
        "a_lstm_hidden_size": 32, "v_lstm_hidden_size": 32,
        "post_text_dim": 32, "post_audio_dim": 16, "post_video_dim": 16,
        "post_fusion_dropout": 0.0, "post_text_dropout": 0.1, "post_audio_dropout": 0.0, "post_video_dropout": 0.1,
    },
    "sims": {
        "batch_size": 32, "H": 1.0, "learning_rate_audio": 5e-3, "learning_rate_video": 5e-3,
        "weight_decay_bert": 0.001, "weight_decay_audio": 0.01, "weight_decay_video": 0.01, "weight_decay_other": 0.001,
        "a_lstm_hidden_size": 16, "v_lstm_hidden_size": 64,
        "post_text_dim": 64, "post_audio_dim": 16, "post_video_dim": 32,
        "post_fusion_dropout": 0.0, "post_text_dropout": 0.1, "post_audio_dropout": 0.1, "post_video_dropout": 0.0,
    },
}  # fmt: skip

# The hyper-parameters of MMSA, the authors' later framework.
MMSA = {
    "mosi": {
        **RELEASED["mosi"],
        "batch_size": 16, "learning_rate_audio": 5e-3, "learning_rate_video": 5e-3, "weight_decay_audio": 0.001,
        "a_lstm_hidden_size": 16, "v_lstm_hidden_size": 32, "post_text_dim": 32,
        "post_fusion_dropout": 0.0, "post_text_dropout": 0.1, "post_video_dropout": 0.0,
    },
    "mosei": {
        **RELEASED["mosei"],
        "a_lstm_hidden_size": 16, "post_video_dim": 32,
        "post_fusion_dropout": 0.1, "post_text_dropout": 0.0, "post_audio_dropout": 0.0, "post_video_dropout": 0.0,
    },
    "sims": RELEASED["sims"],
    "simsv2": {
        **RELEASED["sims"],  # MMSA: H = 3, outside the label range
        "batch_size": 16, "learning_rate_audio": 1e-3, "learning_rate_video": 1e-3, "weight_decay_bert": 0.01,
        "weight_decay_audio": 0.0, "weight_decay_video": 0.0, "post_audio_dim": 32, "post_text_dropout": 0.0,
    },
}  # fmt: skip

# Our values for the generated corpus. Its small BERT starts from random weights and needs a larger learning rate. With
# less dropout, the unimodal heads soon memorize the errors of their generated labels.
DEMO = {
    "batch_size": 16, "H": 3.0,
    "learning_rate_bert": 1e-3, "learning_rate_audio": 5e-3, "learning_rate_video": 5e-3, "learning_rate_other": 5e-4,
    "weight_decay_bert": 0.001, "weight_decay_audio": 0.0, "weight_decay_video": 0.0, "weight_decay_other": 0.001,
    "a_lstm_hidden_size": 32, "v_lstm_hidden_size": 32, "audio_out": 16, "video_out": 16,
    "post_text_dim": 64, "post_audio_dim": 32, "post_video_dim": 32,
    "post_fusion_dropout": 0.5, "post_text_dropout": 0.5, "post_audio_dropout": 0.5, "post_video_dropout": 0.5,
}  # fmt: skip

MMSA_RULES = {"exclude_zero": True, "round_scores": True}  # for every dataset
MMSA_TABLES = {name: table | MMSA_RULES for name, table in {**MMSA, "demo": DEMO}.items()}
PRESETS = {"released": {**RELEASED, "demo": DEMO}, "mmsa": MMSA_TABLES}


def presets_of(dataset: str) -> list[str]:
    """The names of the tables that have a dataset, its default first."""
    return [name for name, tables in PRESETS.items() if dataset in tables]


def make_config(dataset: str, preset: str | None = None, **overrides: object) -> Config:
    """A dataset's hyper-parameters. preset: None for the first that has it. Raises UserError for a bad key or value."""
    presets = presets_of(dataset)
    if preset not in (None, *presets):
        raise UserError(f"--preset {preset} has no hyper-parameters for {dataset}; available: {', '.join(presets)}")
    for key in overrides:
        if key not in Config.__annotations__:
            closest = difflib.get_close_matches(key, Config.__annotations__, n=1, cutoff=0.0)[0]
            raise UserError(f"config: unknown key {key!r}; did you mean {closest!r}?")
    return Config(**{**PRESETS[preset or presets[0]][dataset], **overrides})
