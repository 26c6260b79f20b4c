"""Where the data is, and one table of hyper-parameters for each dataset.

This is the file to edit. The key names are those of the released code, so an old config compares by eye. Values that
all datasets share are the defaults of `Config`; the tables below hold what differs.
"""

import dataclasses
import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

# The folder that holds MOSI/, MOSEI/, SIMS/ and SIMSv2/; a relative path is taken from this repository's top. The
# environment variable SELF_MM_DATA overrides it, and --dataPath names one file and overrides both.
DATA_ROOT = "datasets"

REPOSITORY = Path(__file__).resolve().parent.parent

TASKS = ("fusion", "text", "audio", "vision")
TASK_LETTERS = dict(zip("MTAV", TASKS, strict=True))
TASK_SETS = ("M", "MT", "MA", "MV", "MTA", "MTV", "MAV", "MTAV")


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset before its feature file is opened."""

    name: str
    language: str  # "en" or "cn": decides the default BERT
    unaligned: str  # feature file, below the data root
    aligned: str | None  # the word-aligned feature file, where there is one
    text_length: int  # tokens kept when raw_text is tokenized, [CLS] and [SEP] included
    label_bound: float  # labels lie in [-label_bound, label_bound]
    metrics: str  # whose metrics: "mosi" or "sims"

    def feature_file(self, aligned: bool) -> Path:
        """The default path of the feature file. Raises UserError where the dataset has no aligned one."""
        if aligned and self.aligned is None:
            raise UserError(f"--aligned: {self.name} has no aligned feature file; leave the flag out")
        return data_root() / (self.aligned if aligned else self.unaligned)

    @property
    def bert_folder(self) -> Path:
        """Where the pretrained text encoder is looked for first."""
        if self.name == "demo":  # made together with the corpus
            return data_root() / "DEMO" / "bert"
        return REPOSITORY / "pretrained_model" / f"bert_{self.language}"


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("mosi", "en", "MOSI/Processed/unaligned_50.pkl", "MOSI/Processed/aligned_50.pkl", 50, 3.0, "mosi"),
        Dataset("mosei", "en", "MOSEI/Processed/unaligned_50.pkl", "MOSEI/Processed/aligned_50.pkl", 50, 3.0, "mosi"),
        Dataset("sims", "cn", "SIMS/Processed/features/unaligned_39.pkl", None, 39, 1.0, "sims"),
        Dataset("simsv2", "cn", "SIMSv2/Processed/sims_unaligned.pkl", None, 39, 1.0, "sims"),
        Dataset("demo", "en", "DEMO/Processed/unaligned.pkl", None, 20, 3.0, "mosi"),
    )
}


def data_root() -> Path:
    """The folder of the datasets: SELF_MM_DATA, else DATA_ROOT."""
    return Path(os.environ.get("SELF_MM_DATA") or REPOSITORY / DATA_ROOT).expanduser()


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every value that changes what is learned. Raises UserError for a value of the wrong type or range."""

    # optimisation; one learning rate and weight decay for each group of parameters
    batch_size: int  # clips of a micro-batch
    update_epochs: int = 4  # micro-batches of a window: one optimizer step
    learning_rate_bert: float = 5e-5
    learning_rate_audio: float
    learning_rate_video: float
    learning_rate_other: float = 1e-3
    weight_decay_bert: float
    weight_decay_audio: float
    weight_decay_video: float
    weight_decay_other: float
    early_stop: int = 8  # epochs without a better KeyEval before training stops
    max_epochs: int = 0  # 0: until early_stop ends the training
    KeyEval: str = "Loss"  # the validation score that picks the best epoch: Loss or a metric's name
    keep_last_window: bool = False  # True: step on an epoch's last, incomplete window too

    # encoders
    use_finetune: bool = True  # False: BERT's weights stay as they were pretrained
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

    # unimodal label generation
    tasks: str = "MTAV"  # M (fusion) with any of T (text), A (audio), V (vision)
    H: float  # generated labels are clamped to [-H, H]
    exclude_zero: bool = False  # True: neutral clips belong to neither class (the paper); False: to the positive one

    # how it is computed
    precision: str = "float32"  # or bf16: encoders and heads, but for LSTMs on a GPU
    max_clips_per_pass: int = 0  # 0: a whole window in one pass; fewer clips need less memory, for the same gradient

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str):  # MAT is MTA
            letters = sorted(self.tasks, key=lambda letter: "MTAV".find(letter))
            object.__setattr__(self, "tasks", "".join(letters))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is float and type(value) is int:
                value = float(value)
                object.__setattr__(self, field.name, value)
            if type(value) is not field.type:
                raise UserError(f"config: {field.name} = {value!r}: expected {TYPE_NAMES[field.type]}")
            expected, allowed = _range(field.name, value)
            if not allowed:
                raise UserError(f"config: {field.name} = {value!r} is out of range: expected {expected}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks in use, in the order of TASKS."""
        return tuple(name for letter, name in TASK_LETTERS.items() if letter in self.tasks)

    @property
    def head_sizes(self) -> dict[str, tuple[int, float]]:
        """Of each task's head: the size of its hidden layers, and its dropout."""
        return {
            "fusion": (self.post_fusion_dim, self.post_fusion_dropout),
            "text": (self.post_text_dim, self.post_text_dropout),
            "audio": (self.post_audio_dim, self.post_audio_dropout),
            "vision": (self.post_video_dim, self.post_video_dropout),
        }

    def identity(self) -> dict[str, object]:
        """The values that decide what is learned; how a window is cut into passes changes only the draws of dropout."""
        values = dataclasses.asdict(self)
        del values["max_clips_per_pass"]
        return values


TYPE_NAMES = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}


def _range(name: str, value: object) -> tuple[str, bool]:
    """The values that a key may take, in words, and whether this one is among them."""
    if name == "tasks":
        return f"M and any of T, A, V: {', '.join(TASK_SETS)}", value in TASK_SETS
    if name == "precision":
        return "float32 or bf16", value in ("float32", "bf16")
    if isinstance(value, bool | str):
        return "", True
    if name.endswith("_dropout"):
        return "0 <= value < 1", 0 <= value < 1
    if name.endswith("_layers"):
        return "1 to 100", 1 <= value <= 100
    if name in ("max_epochs", "max_clips_per_pass") or name.startswith("weight_decay"):
        return "0 or more", 0 <= value < float("inf")
    return "more than 0", 0 < value < float("inf")


# The hyper-parameters of the released Self-MM.
RELEASED = {
    "mosi": {
        "batch_size": 32,
        "learning_rate_audio": 1e-3, "learning_rate_video": 1e-4,
        "weight_decay_bert": 0.001, "weight_decay_audio": 0.01, "weight_decay_video": 0.001, "weight_decay_other": 0.001,
        "a_lstm_hidden_size": 32, "v_lstm_hidden_size": 64,
        "post_text_dim": 64, "post_audio_dim": 16, "post_video_dim": 32,
        "post_fusion_dropout": 0.1, "post_text_dropout": 0.0, "post_audio_dropout": 0.1, "post_video_dropout": 0.1,
        "H": 3.0,
    },
    "mosei": {
        "batch_size": 32,
        "learning_rate_audio": 5e-3, "learning_rate_video": 1e-4,
        "weight_decay_bert": 0.001, "weight_decay_audio": 0.0, "weight_decay_video": 0.0, "weight_decay_other": 0.01,
        "a_lstm_hidden_size": 32, "v_lstm_hidden_size": 32,
        "post_text_dim": 32, "post_audio_dim": 16, "post_video_dim": 16,
        "post_fusion_dropout": 0.0, "post_text_dropout": 0.1, "post_audio_dropout": 0.0, "post_video_dropout": 0.1,
        "H": 3.0,
    },
    "sims": {
        "batch_size": 32,
        "learning_rate_audio": 5e-3, "learning_rate_video": 5e-3,
        "weight_decay_bert": 0.001, "weight_decay_audio": 0.01, "weight_decay_video": 0.01, "weight_decay_other": 0.001,
        "a_lstm_hidden_size": 16, "v_lstm_hidden_size": 64,
        "post_text_dim": 64, "post_audio_dim": 16, "post_video_dim": 32,
        "post_fusion_dropout": 0.0, "post_text_dropout": 0.1, "post_audio_dropout": 0.1, "post_video_dropout": 0.0,
        "H": 1.0,
    },
}  # fmt: skip

# The hyper-parameters of MMSA, the authors' later framework. It also leaves neutral clips out of both classes.
MMSA = {
    "mosi": {
        "batch_size": 16,
        "learning_rate_audio": 5e-3, "learning_rate_video": 5e-3,
        "weight_decay_bert": 0.001, "weight_decay_audio": 0.001, "weight_decay_video": 0.001, "weight_decay_other": 0.001,
        "a_lstm_hidden_size": 16, "v_lstm_hidden_size": 32,
        "post_text_dim": 32, "post_audio_dim": 16, "post_video_dim": 32,
        "post_fusion_dropout": 0.0, "post_text_dropout": 0.1, "post_audio_dropout": 0.1, "post_video_dropout": 0.0,
        "H": 3.0, "exclude_zero": True,
    },
    "mosei": {
        "batch_size": 32,
        "learning_rate_audio": 5e-3, "learning_rate_video": 1e-4,
        "weight_decay_bert": 0.001, "weight_decay_audio": 0.0, "weight_decay_video": 0.0, "weight_decay_other": 0.01,
        "a_lstm_hidden_size": 16, "v_lstm_hidden_size": 32,
        "post_text_dim": 32, "post_audio_dim": 16, "post_video_dim": 32,
        "post_fusion_dropout": 0.1, "post_text_dropout": 0.0, "post_audio_dropout": 0.0, "post_video_dropout": 0.0,
        "H": 3.0, "exclude_zero": True,
    },
    "sims": {**RELEASED["sims"], "exclude_zero": True},
    "simsv2": {
        "batch_size": 16,
        "learning_rate_audio": 1e-3, "learning_rate_video": 1e-3,
        "weight_decay_bert": 0.01, "weight_decay_audio": 0.0, "weight_decay_video": 0.0, "weight_decay_other": 0.001,
        "a_lstm_hidden_size": 16, "v_lstm_hidden_size": 64,
        "post_text_dim": 64, "post_audio_dim": 32, "post_video_dim": 32,
        "post_fusion_dropout": 0.0, "post_text_dropout": 0.0, "post_audio_dropout": 0.1, "post_video_dropout": 0.0,
        "H": 1.0, "exclude_zero": True,  # MMSA has H = 3, outside the range of the labels
    },
}  # fmt: skip

# Our own values for the made-up corpus. Its small BERT starts from random weights, hence the larger learning rate; and
# without so much dropout, the unimodal heads soon learn the errors of their generated labels by heart.
DEMO = {
    "demo": {
        "batch_size": 16,
        "learning_rate_bert": 1e-3, "learning_rate_audio": 5e-3, "learning_rate_video": 5e-3, "learning_rate_other": 5e-4,
        "weight_decay_bert": 0.001, "weight_decay_audio": 0.0, "weight_decay_video": 0.0, "weight_decay_other": 0.001,
        "a_lstm_hidden_size": 32, "v_lstm_hidden_size": 32, "audio_out": 16, "video_out": 16,
        "post_text_dim": 64, "post_audio_dim": 32, "post_video_dim": 32,
        "post_fusion_dropout": 0.5, "post_text_dropout": 0.5, "post_audio_dropout": 0.5, "post_video_dropout": 0.5,
        "H": 3.0,
    },
}  # fmt: skip

PRESETS = {"released": RELEASED, "mmsa": MMSA}


def make_config(dataset: str, preset: str | None = None, **overrides: object) -> Config:
    """The hyper-parameters of a dataset.

    preset: "released" or "mmsa"; None: the released ones where there are some, else the only ones there are.
    Raises UserError for a table that doesn't exist, an unknown key or a bad value.
    """
    if preset is not None and dataset != "demo" and dataset not in PRESETS[preset]:
        others = ", ".join(name for name, tables in PRESETS.items() if dataset in tables)
        raise UserError(f"--preset {preset}: has no hyper-parameters for {dataset}; they exist in: {others}")
    tables = PRESETS[preset] if preset is not None else MMSA | RELEASED
    known = [field.name for field in dataclasses.fields(Config)]
    for key in overrides:
        if key not in known:
            closest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise UserError(f"config: unknown key {key!r}; the closest known one is {closest!r}")
    return Config(**{**(tables | DEMO)[dataset], **overrides})
