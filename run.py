"""Trains and tests a model over several seeds: python run.py --modelName self_mm --datasetName mosi"""

import shlex
import sys
import traceback
from pathlib import Path

from config.command_line import parse_arguments
from utils.functions import UserError, keep_freed_memory, make_deterministic, make_folder, make_log
from utils.signals import Stopped, stop_signals


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 for a bug; 2 for what the user can mend, told in one line; 130 or 143 after a signal."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        with stop_signals():
            run(parse_arguments(argv))
    except UserError as error:
        print("error:", error, file=sys.stderr)
        return 2
    except Stopped as stop:
        again = argv if {"--resume", "--test_only"} & set(argv) else [*argv, "--resume"]
        print(f"stopped by {stop.name}; to go on: python run.py {shlex.join(again)}", file=sys.stderr)
        return stop.status
    except Exception:
        # A bug. Uncaught, its traceback would keep worker processes alive, for which Python waits at the end.
        traceback.print_exc()
        return 1
    return 0


def run(args) -> None:
    # Imported here, so that --help and a misspelt flag don't wait for torch and transformers.
    import torch

    keep_freed_memory()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.deterministic:
        make_deterministic()
    try:
        test_checkpoint(args) if args.test_only else train_and_test(args)
    except torch.OutOfMemoryError:
        raise UserError(
            "the GPU's memory is full: lower --max_clips_per_pass (a window has batch_size x update_epochs clips; try half "
            "of that, then a quarter: the gradient stays the same), or choose another GPU with --gpu_ids"
        ) from None


def train_and_test(args) -> None:
    """One model for each seed: train it, test its best checkpoint, write its row; then the summary and a table."""
    from trains.experiment import open_experiment
    from trains.seed_run import SeedRun
    from utils.results import write_summary

    experiment = open_experiment(args)
    dataset = experiment.dataset.name
    results, models = make_folder(args.res_save_dir / "normals"), make_folder(args.model_save_dir)
    log = make_log(make_folder(Path("logs")) / f"{args.modelName}-{dataset}.log")
    log.info(experiment.describe())
    seeds_csv, summary_csv = results / f"{dataset}-regression-seeds.csv", results / f"{dataset}-regression.csv"
    tests = []
    for seed in args.seeds:
        test = SeedRun(experiment, seed, models, seeds_csv, log, args.save_every).run(args.resume)
        log.info(f"seed {seed}  test: {'  '.join(f'{name} {value:.4f}' for name, value in test.items())}")
        write_summary(seeds_csv, summary_csv, experiment.metric_names)
        tests.append(test)
    log.info(experiment.report(f"test, {len(tests)} seed{'s' * (len(tests) > 1)}", tests))
    log.info(f"checkpoints in {models}, a row for each seed in {seeds_csv}, summary in {summary_csv}")


def test_checkpoint(args) -> None:
    """Tests what --test_only names, and prints a table; writes no row."""
    from trains.experiment import open_checkpoint

    experiment, model = open_checkpoint(args)
    print(experiment.report(f"{args.test_only} on {experiment.dataset.name}, test", [experiment.test(model)]))


if __name__ == "__main__":
    sys.exit(main())
