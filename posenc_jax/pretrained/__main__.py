r"""Loads a published model, replaces its encoding, and writes it for transformers to open.

    posenc convert --model=smollm2 --out=smollm2-32k \
        --encoding='{"name": "yarn", "factor": 4.0}'
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from posenc_jax.pretrained.models import load, save


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 2 after an error in its input."""
    parser = argparse.ArgumentParser("posenc convert", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder, .gguf file, 'smollm2' or hub name")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--encoding", type=_encoding, help='the new encoding, such as {"name": "pi", "factor": 2}'
    )
    parser.add_argument("--max-length", type=int, help="longest sequence that it is for")
    args = parser.parse_args(arguments)
    try:
        loaded = load(args.model, progress=_show)
        model = loaded.under(**args.encoding) if args.encoding else loaded.model
        options = dict(max_length=args.max_length, progress=_show)
        save(args.out, model, loaded.config, loaded.tokenizer, **options)
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    length = json.loads((args.out / "config.json").read_text())["max_position_embeddings"]
    print(f"{args.out}: for {length} tokens")
    return 0


def _encoding(text: str) -> dict[str, Any]:
    try:
        encoding = json.loads(text)
    except ValueError:
        encoding = None
    if not isinstance(encoding, dict) or "name" not in encoding:
        raise argparse.ArgumentTypeError(f"{text} must be JSON with a name")
    return encoding


def _show(stage: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"{stage} {done}/{total}", end="\n" if done == total else "\r", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
