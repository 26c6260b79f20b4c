"""The flags of run.py, checked and typed. Importing this is cheap: --help does not wait for torch."""

import argparse
import importlib.util
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from config.config_regression import CHOICES, DATASETS, PRESETS, TYPE_NAMES, Config, Dataset, make_config
from config.inputs import find_bert, find_features, find_on_disk
from config.tuned import Tuned, read_tuned, sweep_file
from utils.errors import Parser, UserError, at_least, without_passwords

TUNED = "tuned"
DEFAULT_SEEDS = [1111, 1112, 1113, 1114, 1115]
SECRET_URL = "SELF_MM_STORAGE_URL"  # environment variable, for this process and its jobs
# Short for --set KEY=VALUE.
SETTING_FLAGS = ("tasks", "unimodal_labels", "max_epochs", "precision", "max_clips_per_pass")


def hide_password(argv: list[str]) -> list[str]:
    """The command line with *** for passwords in URLs. The last such URL, --storage, moves to the environment."""
    argv = [*argv]
    for number, argument in enumerate(argv):
        url = argument.replace(" ", "%20")
        if "://" in url and (shown := without_passwords(url)) != url:
            os.environ[SECRET_URL], argv[number] = argument.removeprefix("--storage="), shown
    return argv


def parse_setting(text: str) -> tuple[str, object]:
    """Splits "KEY=VALUE" into the key and its typed value. Raises UserError if VALUE does not have KEY's type."""
    key, separator, value = (part.strip() for part in text.partition("="))
    if not separator:
        raise UserError(f"--set {text}: expected KEY=VALUE, for example --set batch_size=16")
    kind = Config.__annotations__.get(key, str)  # make_config reports an unknown key
    try:
        return key, true_or_false(value) if kind is bool else kind(value)
    except ValueError:
        raise UserError(f"--set {text}: {key} takes {TYPE_NAMES[kind]}") from None


def true_or_false(text: str) -> bool:
    """Raises ValueError, which argparse reports."""
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")


def _flag(**settings: object) -> object:
    """A field that is a flag of its name, or of the name `flag`. settings: of add_argument. group: title of a new group."""
    return field(metadata=settings)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The flags, in the order of --help, and what follows from them. None: not given."""

    # fmt: off
    model_name: str = _flag(group="what to train", flag="modelName", type=str.lower, metavar="NAME", default="self_mm",
        help="a model of models/; default self_mm")
    dataset_name: str | None = _flag(flag="datasetName", type=str.lower, choices=list(DATASETS),
        help="sets the clips, label range, metrics and hyper-parameters; default mosi. demo generates a small corpus")
    preset: str | None = _flag(type=str.lower, choices=[*PRESETS, TUNED],
        help="hyper-parameter table: released (the released code; default), mmsa (the authors' later framework; the "
        "only one for simsv2) or tuned (the best trial of your sweep)")
    params: Path | None = _flag(type=Path, metavar="FILE",
        help="read hyper-parameters from a sweep's best.json or a checkpoint's config.json")
    set: list[tuple[str, object]] = _flag(type=parse_setting, metavar="KEY=VALUE", nargs="+", action="extend", default=[],
        help="override hyper-parameters, for example --set batch_size=16 learning_rate_bert=2e-5")
    tasks: str | None = _flag(type=str.upper, metavar="LETTERS",
        help="labels to learn from: M (human) plus any of T, A, V (generated for text, audio, vision); default MTAV")
    ablate: bool = _flag(type=true_or_false, nargs="?", const=True, default=False, metavar="True|False",
        help="train every choice of --tasks, as in the paper's table 4, and print them in one table")
    unimodal_labels: str | None = _flag(type=str.lower, choices=CHOICES["unimodal_labels"],
        help="labels of T, A and V: generated (default), human (the feature file's, to compare) or copied (those of M)")
    seeds: list[int] = _flag(type=at_least(0, most=2**32 - 1), nargs="+", metavar="SEED",
        help="train once per seed; default 1111 to 1115, as published. The summary also counts seeds of earlier runs. "
        "A sweep uses one seed for all trials; default 1111")
    max_epochs: int | None = _flag(type=int, metavar="N",
        help="upper limit of epochs; default 0: none, stop after early_stop epochs without improvement")
    train_mode: str = _flag(type=str.lower, choices=["regression", "classification"], default="regression",
        help="default regression. classification is rejected: generated labels are numbers")
    test_only: str | None = _flag(metavar="PATH",
        help="test without training: a checkpoint folder, a hub name (owner/name, or owner/name@revision), or a .pth of "
        "the released code. A .pth contains no config: give the dataset, preset and --bert it was trained with")
    resume: bool = _flag(action="store_true",
        help="continue a stopped run, given the same flags; skips finished seeds. Harmless if nothing was stopped")

    is_tune: bool = _flag(group="sweep", type=true_or_false, nargs="?", const=True, default=False, metavar="True|False",
        help="search the space in config/config_tune.py, scoring on the validation split. Repeat the command to continue, "
        "or run it on other machines with the same --storage to add workers")
    tune_times: int = _flag(type=at_least(1), metavar="N", default=50,
        help="finished trials to reach, counting all workers and earlier runs; default 50, as released")
    storage: str | None = _flag(metavar="URL",
        help="database of trials, for workers on several machines: postgresql://user@host/database, with the password in "
        "~/.pgpass; default: an SQLite file in --res_save_dir, for one machine")
    sampler: str = _flag(type=str.lower, choices=["random", "tpe"], default="random",
        help="how to choose trials: random (default, as released) or tpe (learns from earlier trials)")
    pruner: str = _flag(type=str.lower, choices=["none", "median", "hyperband"], default="none",
        help="stop trials that score worse than others at the same epoch; default none")
    heartbeat: int = _flag(type=at_least(1), metavar="SECONDS", default=30,
        help="how often workers report that they are alive; a trial silent for twice as long is retried; default 30")

    data_path: Path | None = _flag(group="files", flag="dataPath", type=Path, metavar="FILE",
        help="feature pickle; default: the dataset's file under the data root")
    bert: str | None = _flag(metavar="DIR",
        help="text encoder, a folder or hub name; default: pretrained_model/bert_en or bert_cn, else the hub")
    aligned: bool = _flag(action="store_true",
        help="the feature file is word-aligned: one audio and vision frame per token, and no lengths")
    cache_dir: Path | None = _flag(type=Path, metavar="DIR",
        help="folder for converted features; default: next to the feature file")
    model_save_dir: Path = _flag(type=Path, metavar="DIR", default=Path("results/models"),
        help="folder for the best checkpoint of each seed; default results/models")
    res_save_dir: Path = _flag(type=Path, metavar="DIR", default=Path("results/results"),
        help="folder for reports, CSVs and sweeps; default results/results")
    log_dir: Path = _flag(type=Path, metavar="DIR", default=Path("logs"), help="folder for logs; default logs")
    save_labels: bool = _flag(action="store_true", help="keep the unimodal labels after every epoch, which a figure shows")
    save_predictions: bool = _flag(action="store_true",
        help="keep scores, labels and features of all clips, not only the scores of the test clips (and of a few others)")
    no_figures: bool = _flag(action="store_true",
        help="draw no figures and write no report.html; later: python -m trains.runs.figures RUN")
    tensorboard: bool = _flag(action="store_true",
        help="also write scalars, histograms and hyper-parameters for TensorBoard (pip install tensorboard) to --log_dir")
    save_every: float = _flag(type=at_least(0, float), metavar="MINUTES", default=5.0,
        help="save the training state at the end of an epoch, this often; default 5. A new best epoch or a signal "
        "(Ctrl-C, SIGTERM, SIGUSR1) always saves it")

    jobs: int = _flag(group="machine", type=at_least(1), metavar="N", default=1,
        help="seeds or sweep workers to run in parallel on this machine, assigned to its GPUs in turn; default 1")
    gpu_ids: list[int] | None = _flag(type=int, nargs="+", metavar="N",
        help="GPU number, or -1 for the CPU; several with --jobs or torchrun. Default: the GPU with most free memory "
        "(all GPUs with --jobs or torchrun), or the CPU if there is none")
    precision: str | None = _flag(type=str.lower, choices=CHOICES["precision"],
        help="default float32 (TF32 on GPUs). bf16: faster on AMD CPUs since Zen 4. float64: slow, for exact comparisons")
    max_clips_per_pass: int | None = _flag(type=int, metavar="N",
        help="clips per forward pass; default 0: a whole window. Fewer save memory and change only dropout's draws")
    threads: int | None = _flag(type=at_least(1, most=1024), metavar="N",
        help="CPU threads per process; default: a tuned trial's, else cores / --jobs. Changes the last bits of results")
    num_workers: int = _flag(type=at_least(0, most=1024), metavar="N", default=0,
        help="processes that prepare windows in advance; default 0. Try 1 or 2 if the features exceed GPU memory")
    deterministic: bool = _flag(action="store_true",
        help="bit-identical results on a GPU, at some cost in speed; on a CPU equal --threads suffice")
    as_job: bool = _flag(action="store_true", help=argparse.SUPPRESS)

    tuned: Tuned | None  # the file that --params or --preset tuned names
    hyper_parameters: dict[str, object]  # keys of Config that the flags or the tuned file set
    argv: list[str]  # the command line, repeated to jobs
    # fmt: on

    @property
    def dataset(self) -> Dataset:
        return DATASETS[self.dataset_name or "mosi"]

    def check_paths(self) -> None:
        """Raises UserError for an input that does not exist, before torch is imported. The demo's files are generated."""
        trains = self.test_only is None and self.dataset.name != "demo"
        if trains:
            find_bert(self.bert, self.dataset)
        if trains or self.data_path:
            find_features(self.data_path, self.dataset, self.aligned)
        if self.test_only is not None:
            find_on_disk(self.test_only, "--test_only")

    def config(self, **overrides: object) -> Config:
        """The hyper-parameters, with overrides. Raises UserError for an unknown key or a bad value."""
        return make_config(self.dataset.name, self.preset, **(self.hyper_parameters | overrides))


def parse_arguments(argv: list[str]) -> RunOptions:
    """Raises UserError for wrong or contradictory flags and hyper-parameters, and SystemExit after --help."""
    args = _make_parser().parse_args(argv)
    _check_combination(args)
    args.seeds = args.seeds or (DEFAULT_SEEDS[:1] if args.is_tune else DEFAULT_SEEDS)
    settings = dict(args.set) | {key: value for key in SETTING_FLAGS if (value := getattr(args, key)) is not None}
    tuned, dataset = None, args.dataset_name or "mosi"
    if args.preset == TUNED:
        args.preset, args.params = None, sweep_file(args.res_save_dir, args.model_name, dataset, "best.json")
    if args.params is not None:
        tuned = read_tuned(args.params, args.model_name, dataset)
        settings = tuned.hyper_parameters | settings
        args.threads = args.threads or tuned.threads
    options = RunOptions(**vars(args), tuned=tuned, hyper_parameters=settings, argv=argv)
    options.config()  # raises UserError now rather than after importing torch
    return options


def _make_parser() -> Parser:
    parser = Parser(
        prog="run.py",
        description="Trains and tests Self-MM over several seeds: multimodal sentiment analysis with self-supervised "
        "unimodal labels. Try it without any data: python run.py --datasetName demo",
        epilog="Data paths and all hyper-parameters (for --set): config/config_regression.py.",
    )
    for option in fields(RunOptions):
        settings = dict(option.metadata)
        if title := settings.pop("group", ""):
            group = parser.add_argument_group(title)
        if settings:
            group.add_argument(f"--{settings.pop('flag', option.name)}", dest=option.name, **settings)
    return parser


def _check_combination(args: argparse.Namespace) -> None:
    seeds, torchrun = args.seeds or [], "LOCAL_RANK" in os.environ
    if args.params is not None and args.preset is not None:
        raise UserError("--params: not allowed with argument --preset")
    if args.train_mode == "classification":
        raise UserError("--train_mode classification: Self-MM needs regression labels, to generate others from them")
    if torchrun and (args.test_only or args.is_tune or args.jobs > 1):
        raise UserError("torchrun trains one model with several processes; leave out --test_only, --is_tune and --jobs")
    if len(args.gpu_ids or []) > 1 and args.jobs == 1 and not torchrun:
        raise UserError("--gpu_ids: a process uses one GPU; add --jobs to train seeds in parallel, or use torchrun")
    if args.is_tune and (args.params is not None or args.preset == TUNED or args.test_only or len(seeds) > 1):
        raise UserError("--is_tune takes one seed; leave out --params, --preset tuned and --test_only")
    if args.ablate and (args.tasks or "tasks" in dict(args.set) or args.test_only or args.is_tune):
        raise UserError("--ablate trains all choices of --tasks; leave out --tasks, --test_only and --is_tune")
    if (args.test_only or args.is_tune) and (args.save_labels or args.save_predictions or args.tensorboard):
        raise UserError("--save_labels, --save_predictions and --tensorboard are for a training by seeds")
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard: it is not installed; pip install tensorboard, or leave the flag out")
    if args.test_only and args.jobs > 1:
        raise UserError("--test_only runs in one process; leave out --jobs")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {' '.join(map(str, seeds))}: duplicate seed")
