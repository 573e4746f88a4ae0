"""Tests the census of published models."""

import io

import common
import pandas as pd

from experiments.studies import census


def test_the_table_is_that_of_the_configs_and_the_page_counts_its_rows():
    table = census.census()
    kept = pd.read_csv(common.ROOT / "docs/data/census.csv")
    made = pd.read_csv(io.StringIO(table.to_csv(index=False, float_format="%.3g")))
    pd.testing.assert_frame_equal(made, kept)
    assert f"those of {len(kept)} decoders" in (common.ROOT / "docs/choosing.md").read_text()


def test_layers_are_counted_by_hand():
    small = {"model_type": "llama4_text", "hidden_size": 8, "num_attention_heads": 1, "head_dim": 8}
    small |= {"num_hidden_layers": 8, "rope_theta": 5e5, "attention_chunk_size": 64}
    read = census.of_config(small | {"max_position_embeddings": 256})
    assert (read["positions"], read["base"], read["length"]) == ("rope", 5e5, 256)
    assert (read["rotated"], read["windowed"], read["window"]) == (0.75, 0.75, 64)
    gpt2 = {"model_type": "gpt2", "n_positions": 32, "n_embd": 8, "n_head": 1, "n_layer": 2}
    read = census.of_config(gpt2)
    assert (read["positions"], read["rotated"], read["length"]) == ("learned", 0, 32)
