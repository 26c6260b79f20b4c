"""The flags of run.py. Importing this is cheap: --help must not wait for torch."""

import argparse
import os
import sys
from pathlib import Path

from config.config_regression import DATASETS, PRESETS
from config.run_options import RunOptions, parse_setting
from config.tuned import Tuned, read_tuned, sweep_file
from utils.errors import Parser, UserError

TUNED = "tuned"
DEFAULT_SEEDS = (1111, 1112, 1113, 1114, 1115)
# Flags whose option is named as they are.
SAME_NAMES = """
    test_only resume is_tune tune_times storage sampler pruner heartbeat bert aligned cache_dir model_save_dir res_save_dir
    save_every jobs num_workers deterministic as_job
""".split()


def parse_arguments(argv: list[str] | None = None) -> RunOptions:
    """Raises UserError for flags that are wrong or contradict each other, and SystemExit after --help."""
    argv = sys.argv[1:] if argv is None else argv
    args = _make_parser().parse_args(argv)
    _check(args)
    tuned = _find_tuned(args)
    return RunOptions(
        model_name=args.modelName,
        dataset_name=args.datasetName,
        preset=args.preset,
        params=args.params,
        tuned=tuned,
        hyper_parameters=_chosen_settings(args, tuned),
        seeds=tuple(args.seeds or (DEFAULT_SEEDS[:1] if args.is_tune else DEFAULT_SEEDS)),
        data_path=args.dataPath,
        gpu_ids=None if args.gpu_ids is None else tuple(args.gpu_ids),
        threads=tuned.threads if tuned is not None and args.threads is None else args.threads,
        argv=tuple(argv),
        **{name: getattr(args, name) for name in SAME_NAMES},
    )


def _make_parser() -> Parser:
    parser = Parser(
        prog="run.py",
        description="Trains and tests Self-MM over several seeds: multimodal sentiment analysis with self-supervised "
        "unimodal labels. Try it without any data: python run.py --datasetName demo",
        epilog="Where the data lies and every hyper-parameter (for --set): config/config_regression.py.",
    )
    # fmt: off
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--modelName", type=str.lower, metavar="NAME", default="self_mm",
        help="a model of models/; default self_mm"
    )
    what.add_argument(
        "--datasetName", type=str.lower, choices=list(DATASETS),
        help="whose clips, label range, metrics and hyper-parameters; default mosi. demo makes its own small corpus"
    )
    what.add_argument(
        "--preset", type=str.lower, choices=[*PRESETS, TUNED],
        help="table of hyper-parameters: released (the default; the numbers of the released code), mmsa (the authors' "
        "later framework; the only table for simsv2), or tuned (those of the best trial of your sweep)"
    )
    what.add_argument(
        "--params", type=Path, metavar="FILE",
        help="take the hyper-parameters of a file: of a sweep's best trial, as tuned does, or of a checkpoint's config.json"
    )
    what.add_argument(
        "--set", dest="settings", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
        help="change hyper-parameters on top of the table, for example --set batch_size=16 learning_rate_bert=2e-5"
    )
    what.add_argument(
        "--tasks", type=str.upper, metavar="LETTERS",
        help="which labels to learn from: M (the clip's) with any of T, A, V (its text's, sound's, face's, generated); "
        "default MTAV. For the ablation of the paper's table 4: M, MV, MA, MT, MAV, MTV, MTA"
    )
    what.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED",
        help="one training each; default 1111 to 1115, the published five. Seeds may be run apart: the summary takes all. "
        "A sweep trains all its trials with one; default 1111"
    )
    what.add_argument(
        "--max_epochs", type=int, metavar="N",
        help="epochs at most; default 0: until validation hasn't improved for early_stop epochs. Lower it for a quick look"
    )
    what.add_argument(
        "--train_mode", type=str.lower, choices=["regression", "classification"], default="regression",
        help="regression, the default and the only one: the generated labels are numbers"
    )
    what.add_argument(
        "--test_only", type=Path, metavar="DIR",
        help="train nothing; test a checkpoint folder of this program, or a .pth of the released code (which holds no "
        "config: give the dataset, preset and --bert that it was trained with)"
    )
    what.add_argument(
        "--resume", action="store_true",
        help="go on with a run that was stopped, with the same flags: finished seeds are taken from the seeds CSV, an "
        "unfinished one from where it was saved. Does no harm where there is nothing to go on with"
    )

    sweep = parser.add_argument_group("sweep")
    sweep.add_argument(
        "--is_tune", type=_truth, nargs="?", const=True, default=False, metavar="True|False",
        help="search for better hyper-parameters in the space of config/config_tune.py, judged on the validation split. The "
        "same command on any machine with the same --storage joins in; repeated, it goes on"
    )
    sweep.add_argument(
        "--tune_times", type=int, metavar="N", default=50,
        help="trials that are finished in the end, over all workers and repeated commands; default 50, as released"
    )
    sweep.add_argument(
        "--storage", metavar="URL",
        help="database of the trials, for workers on several machines: postgresql://user:password@host/database; default: "
        "an SQLite file in --res_save_dir, for one machine"
    )
    sweep.add_argument(
        "--sampler", type=str.lower, choices=["random", "tpe"], default="random",
        help="how trials are drawn: random, the default, as released; or tpe, which learns from the trials before"
    )
    sweep.add_argument(
        "--pruner", type=str.lower, choices=["none", "median", "hyperband"], default="none",
        help="ends trials whose validation score is behind that of others at the same epoch: median or hyperband; default none"
    )
    sweep.add_argument(
        "--heartbeat", type=int, metavar="SECONDS", default=30,
        help="workers write a sign of life this often; a trial that is silent for twice as long is given to another; default 30"
    )

    files = parser.add_argument_group("files")
    files.add_argument(
        "--dataPath", type=Path, metavar="FILE",
        help="feature pickle; default the dataset's below the data root"
    )
    files.add_argument(
        "--bert", metavar="DIR",
        help="text encoder: a folder or a hub name; default pretrained_model/bert_en or bert_cn if there, else "
        "google-bert/bert-base-uncased or -chinese from the hub"
    )
    files.add_argument(
        "--aligned", action="store_true",
        help="the feature file is word-aligned: sound and face have one frame for each token, and the file no lengths"
    )
    files.add_argument(
        "--cache_dir", type=Path, metavar="DIR",
        help="where the converted features go; default beside the feature file"
    )
    files.add_argument(
        "--model_save_dir", type=Path, metavar="DIR", default=Path("results/models"),
        help="where each seed's best checkpoint goes; default results/models"
    )
    files.add_argument(
        "--res_save_dir", type=Path, metavar="DIR", default=Path("results/results"),
        help="where the CSVs go; default results/results"
    )
    files.add_argument(
        "--save_every", type=float, metavar="MINUTES", default=5.0,
        help="save the training's state at the first epoch's end after so many minutes; default 5. A better epoch, and a "
        "signal to stop (SIGTERM, SIGUSR1, Ctrl-C), save it anyway"
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--jobs", type=int, metavar="N", default=1,
        help="so many seeds, or workers of a sweep, side by side on this machine, in turn on its GPUs; default 1. More than "
        "there are GPUs share them, as far as memory goes"
    )
    machine.add_argument(
        "--gpu_ids", type=int, nargs="+", metavar="N",
        help="the GPU to use, by number; -1: the CPU. Several for --jobs and torchrun. Default: the GPU with most free "
        "memory (for --jobs and torchrun all of them), or the CPU"
    )
    machine.add_argument(
        "--precision", type=str.lower, choices=["float32", "bf16"],
        help="arithmetic of encoders and heads; default float32, as released (on a GPU its products are TF32). bf16 is "
        "faster where the chip supports it"
    )
    machine.add_argument(
        "--max_clips_per_pass", type=int, metavar="N",
        help="clips that go through the network at once; default 0: a whole window (batch_size x update_epochs clips). "
        "Lower it when memory runs out; only the draws of dropout change"
    )
    machine.add_argument(
        "--threads", type=int, metavar="N",
        help="CPU threads of a process; default: one for each core, shared out among the --jobs. Another number rounds "
        "otherwise"
    )
    machine.add_argument(
        "--num_workers", type=int, metavar="N", default=0,
        help="processes that prepare windows ahead; default 0: none. Raise it to 1 or 2 where a GPU's memory doesn't hold "
        "the features; where it does, they lie there and nobody is needed"
    )
    machine.add_argument(
        "--deterministic", action="store_true",
        help="let a GPU compute the same to the bit each time, more slowly; a CPU does so anyway with the same --threads"
    )
    machine.add_argument("--as_job", action="store_true", help=argparse.SUPPRESS)  # started by --jobs
    # fmt: on
    return parser


def _truth(word: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[word.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{word!r}: expected True or False") from None


def _find_tuned(args: argparse.Namespace) -> Tuned | None:
    """The tuned hyper-parameters that the flags ask for."""
    dataset = args.datasetName or "mosi"
    if args.params is not None:
        return read_tuned(args.params, args.modelName, dataset)
    if args.preset == TUNED:
        return read_tuned(sweep_file(args.res_save_dir, args.modelName, dataset, "best.json"), args.modelName, dataset)
    return None


def _check(args: argparse.Namespace) -> None:
    if args.train_mode == "classification":
        raise UserError(
            "--train_mode classification: Self-MM is defined on regression labels only: the unimodal labels that it "
            "generates are shifts of a number"
        )
    several_processes = args.jobs > 1 or "LOCAL_RANK" in os.environ
    if args.gpu_ids is not None and len(args.gpu_ids) > 1 and not several_processes:
        raise UserError(
            f"--gpu_ids {' '.join(map(str, args.gpu_ids))}: a process uses one GPU; --jobs runs seeds side by side on "
            "several, and torchrun one seed"
        )
    if args.params is not None and args.preset is not None:
        raise UserError("--params and --preset: two tables of hyper-parameters; leave one out")
    if args.is_tune and (args.params is not None or args.preset == TUNED):
        raise UserError("--is_tune: searches the space of config/config_tune.py: leave out --params and --preset tuned")
    if args.is_tune and (args.test_only or len(args.seeds or []) > 1):
        raise UserError(
            "--is_tune: trains each trial with one seed and tests none: leave out --test_only and further --seeds"
        )
    seeds = args.seeds or []
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {' '.join(map(str, seeds))}: a seed is named twice")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"--seeds {seed}: expected a number from 0 to 4294967295")
    least_values = {"threads": 1, "num_workers": 0, "save_every": 0, "jobs": 1, "tune_times": 1, "heartbeat": 1}
    for flag, least in least_values.items():
        value = getattr(args, flag)
        if value is not None and not value >= least:
            raise UserError(f"--{flag} {value}: expected {least} or more")


def _chosen_settings(args: argparse.Namespace, tuned: Tuned | None) -> dict[str, object]:
    """The hyper-parameters that the command line names, one by one or by a file."""
    settings = dict(tuned.hyper_parameters) if tuned is not None else {}
    settings |= dict(parse_setting(text) for text in args.settings)
    flags = ("tasks", "max_epochs", "precision", "max_clips_per_pass")
    return settings | {flag: getattr(args, flag) for flag in flags if getattr(args, flag) is not None}
