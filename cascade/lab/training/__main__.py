"""Make the bundled experts: `python -m cascade.lab.training COMMAND`; see `docs/experts.md`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cascade.errors import CascadeError
from cascade.lab.training import steps
from cascade.lab.training.datasets import default_dir
from cascade.lab.training.recipes import RECIPES
from cascade.lab.training.report import Log

EXPERTS = Path(__file__).parents[2] / "experts"


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m cascade.lab.training", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    teacher = commands.add_parser("teacher", help="fine-tune the teachers; they label the transfer sets")
    train = commands.add_parser("train", help="train one expert and write its GGUF file")
    polish = commands.add_parser("polish", help="train one expert a little more, from its checkpoint")
    export = commands.add_parser("export", help="write an expert's GGUF file from its checkpoint")
    card = commands.add_parser("card", help="measure the GGUF files on test and write their cards")
    for command in (train, polish, export):
        command.add_argument("name", choices=sorted(RECIPES))
    train.add_argument("--seed", type=int, help="default: the recipe's")
    polish.add_argument("--branch", type=int, default=1, help="number of the branch; export averages them")
    for command in (teacher, train, polish, export, card):
        command.add_argument("--data", type=Path, default=default_dir(), help="folder of the data sets")
        command.add_argument(
            "--work", type=Path, default=Path("work"), help="folder for teachers, transfer sets, checkpoints"
        )
        command.add_argument("--threads", type=_positive, default=1, help="threads of PyTorch")
    for command in (train, export, card):
        command.add_argument("--out", type=Path, default=EXPERTS, help="folder of the GGUF files")
    return top


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def main() -> int:
    """Run one command."""
    args = parser().parse_args()
    try:
        import torch
    except ModuleNotFoundError:
        print("error: training needs PyTorch; do: pip install -e '.[train]'", file=sys.stderr)
        return 1
    torch.set_num_threads(args.threads)
    workspace = steps.Workspace(args.data, args.work, Log(args.command))
    try:
        _run(args, workspace)
    except CascadeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; make room or give another folder", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace, workspace: steps.Workspace) -> None:
    if args.command == "teacher":
        steps.make_teachers(workspace)
        steps.make_pools(workspace)
        steps.make_marks(workspace)
    if args.command == "train":
        steps.make_expert(workspace, args.name, args.seed)
    if args.command == "polish":
        steps.polish_expert(workspace, args.name, args.branch)
    if args.command in ("train", "export"):
        print(steps.export_expert(workspace, args.name, args.out))
    if args.command == "card":
        from cascade.lab.training import card

        card.write_all(workspace, args.out)


if __name__ == "__main__":
    sys.exit(main())
