r"""Writes a run, tuned or not, as a folder that ``transformers`` opens.

    python -m experiments.pretrained.export --run=runs/mine/runs/yarn/steps400/seed0 \
        --out=my-model-16k

A run that was tuned from published weights needs them too: give ``--checkpoint`` as in its config.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.command import exit_status
from experiments.pretrained.trained import Source, load_run, sizes_of, train_length
from experiments.results.bucket import folder_at
from experiments.results.record import read_run
from experiments.training.mesh import make_mesh
from experiments.training.recipe import Recipe
from posenc_jax import Transformer
from posenc_jax.pretrained import save
from posenc_jax.pretrained.write import extended


def export(folder: Path, out: Path, checkpoint: str | None) -> None:
    """Writes the model of a run as the folder ``out``.

    ``checkpoint`` names the published weights that the run was tuned from, if any. Raises a
    ValueError if there is no run, it was not tuned from the checkpoint, transformers does not know
    its model, or ``out`` is not empty.
    """
    mesh = make_mesh()
    run = read_run(folder) or {"config": {}}  # load_run raises if there is no run
    loading = run["config"].get("loading")
    source = Source.of(checkpoint, mesh, loading) if checkpoint else None
    state, config = load_run(folder, mesh, source)
    if source is None or source.tokenizer is None:
        known, tokenizer = _as_llama(state.model, train_length(config)), None
    else:
        known, tokenizer = source.config, source.tokenizer
    last = Recipe(**config["train"]).in_phase(-1)
    longest = _longest(state.model, known, last.length)
    save(out, state.model, known, tokenizer, max_length=longest)


def _longest(model: Transformer, known: Mapping[str, Any], tuned: int) -> int | None:
    """Returns the length that a model was tuned at, if the config would state a shorter one.

    The config of plain RoPE states the trained length. For an encoding that adapts to the length,
    the config must state the length at which adaptation begins, so the result is None.
    """
    if any(encoding.reads_length() for encoding in model.distinct()):
        return None
    return tuned if tuned > extended(known, model)["max_position_embeddings"] else None


def _as_llama(model: Transformer, length: int) -> dict[str, Any]:
    """Returns the ``config.json`` of a model that was trained here, as a Llama.

    Raises a ValueError if transformers would compute something else, as the model is no Llama.
    """
    sizes, block = sizes_of(model), model.layers[0].block
    others = {
        "qk_norm": block.attention.qk_norm,
        "qkv_bias": block.attention.q.bias is not None,
        "post_norm": block.post_norm,
        "causal=False": not model.causal,
    }
    if unlike := [name for name, is_other in others.items() if is_other]:
        raise ValueError(
            f"the run was trained with model.{unlike[0]}, which a Llama does not have, so it "
            "cannot be written as one: train a model without it"
        )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": len(model.embedding),
        "hidden_size": sizes["model_dim"],
        "intermediate_size": block.mlp.gate.kernel.shape[-1],
        "num_hidden_layers": sizes["num_layers"],
        "num_attention_heads": sizes["num_heads"],
        "num_key_value_heads": sizes["num_kv_heads"],
        "head_dim": sizes["head_dim"],
        "rms_norm_eps": block.mlp_norm.epsilon,
        "tie_word_embeddings": model.unembedding is None,
        "max_position_embeddings": length,
    }


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser("posenc export", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of a run")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--checkpoint", help="published weights that the run was tuned from")
    args = parser.parse_args()
    export(folder_at(args.run), args.out, args.checkpoint)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(main())
