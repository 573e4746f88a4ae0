"""Runs the Python of README.md and of the guides as it is written there, and follows all links.

``test_new_scheme`` runs the scheme of the README. What reads the models of another package
(``posenc_jax.pretrained``) is left out.
"""

import functools
import json
import re
from pathlib import Path

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import posenc_jax
from posenc_jax.positions import Text, Vision, circle_rope, qwen2_vl, text

ROOT = common.ROOT
B, T, H, K, C = 2, 16, 8, 4, 64
LLAMA = dict(
    model_type="llama",
    hidden_size=H * C,
    num_attention_heads=H,
    num_hidden_layers=8,
    max_position_embeddings=4096,
    rope_parameters={"rope_type": "default", "rope_theta": 5e5},
)
LLAMA4 = LLAMA | dict(model_type="llama4_text", attention_chunk_size=8192)
MLA = dict(
    model_type="deepseek_v3",
    hidden_size=H * 24,
    num_attention_heads=H,
    qk_rope_head_dim=8,
    qk_nope_head_dim=16,
    max_position_embeddings=64,
    rope_parameters={"rope_type": "default", "rope_theta": 1e4},
)


def normal(*shape):
    return jnp.asarray(common.normal(0, *shape))


def small_model(name):
    return posenc_jax.Transformer(
        posenc_jax.make(name, head_dim=8),
        vocab_size=64,
        model_dim=32,
        num_layers=1,
        num_heads=4,
        rngs=nnx.Rngs(0),
    )


def placed_ids(length):
    return np.ones((1, length), np.int32)


QUESTIONS = ROOT / "docs/how-to/questions.md"
GUIDE = "own-model", "positions", "published-models", "decoding", "attention", "decoder"
# What a reader of each piece of code already has, by a word that only this piece has.
GIVEN = {
    "x is the layer's input": lambda: dict(
        i=3,
        positions=text(T),
        x_BTD=normal(B, T, H * C),
        q_BTHC=normal(B, T, H, C),
        k_BSKC=normal(B, T, K, C),
        v_BSKC=normal(B, T, K, C),
    ),
    "jnp.arange(128)[None]": dict,
    "class Layer(nn.Module)": dict,
    "posenc_jax.from_hf(json.load": lambda: dict(file=LLAMA),
    "layers.at(5)": lambda: dict(file=LLAMA4),
    "placed = videorope": lambda: dict(
        model=small_model("videorope"), token_ids=placed_ids(160), key=jax.random.key(0)
    ),
    "segments_of(ids": dict,
    "OnAxes(mrope": lambda: dict(
        Text=Text,
        Vision=Vision,
        circle_rope=circle_rope,
        qwen2_vl=qwen2_vl,
        token_ids=placed_ids(48),
    ),
    "import Spectra": dict,
    "k_rope_BT1C": lambda: dict(
        config=MLA,
        positions=text(T),
        H=H,
        q_rope_BTHC=normal(B, T, H, 8),
        k_rope_BT1C=normal(B, T, 1, 8),
        q_nope_BTHC=normal(B, T, H, 16),
        k_nope_BTHC=normal(B, T, H, 16),
        v_BTHC=normal(B, T, H, 16),
        scale=24**-0.5,
    ),
    "q_B1HC": lambda: dict(
        encoding=posenc_jax.make("rope", head_dim=C),
        S=T,
        start=4,
        q_B1HC=normal(B, 1, H, C),
        k_BSKC=normal(B, T, K, C),
        v_BSKC=normal(B, T, K, C),
    ),
    "prompt_lengths_B[:": lambda: dict(
        encoding=posenc_jax.make("rope", head_dim=C),
        tokens=posenc_jax.make("rope", head_dim=C).tokens(text(T)),
        prompt_lengths_B=jnp.array([3, 7]),
        q_BTHC=normal(B, T, H, C),
        k_BSKC=normal(B, T, K, C),
        v_BSKC=normal(B, T, K, C),
    ),
    "word_seconds": lambda: dict(
        encoding=posenc_jax.make("rope", head_dim=C),
        word_seconds=np.float32([[0.5, 1.5, 4]]),
        frame_seconds=np.arange(T, dtype=np.float32)[None] / 4,
        q_words=normal(B, 3, H, C),
        k_frames=normal(B, T, K, C),
        v_frames=normal(B, T, K, C),
    ),
    "posenc_jax.combine": lambda: dict(
        encoding=posenc_jax.make("shaw", head_dim=C, rngs=nnx.Rngs(0)),
        tokens=posenc_jax.make("shaw", head_dim=C, rngs=nnx.Rngs(0)).tokens(text(T)),
        T=T,
        q_BTHC=normal(B, T, H, C),
        k_BSKC=normal(B, T, K, C),
        v_BSKC=normal(B, T, K, C),
    ),
    "def empty_cache": lambda: dict(
        functools=functools,
        rotate_keys=posenc_jax.rotate_keys,
        fox=posenc_jax.make("fox", num_heads=H, model_dim=H * C, rngs=nnx.Rngs(0)),
        x_BSD=normal(B, T, H * C),
        q_BSHC=normal(B, T, H, C),
        k_BSKC=normal(B, T, K, C),
        v_BSKC=normal(B, T, K, C),
    ),
    "compressed_BWKC": lambda: dict(
        encoding=posenc_jax.make("rope", head_dim=C),
        **dict(count=T, m=4, start=4, stop=8, sinks_H=normal(H)),
        q_BTHC=normal(B, T, H, C),
        k_BSKC=normal(B, T, 1, C),
        compressed_BWKC=normal(B, T // 4, 1, C),
    ),
    "layers = Layers([scaled": lambda: dict(Layers=posenc_jax.Layers, rngs=nnx.Rngs(0)),
    "model = posenc_jax.Transformer(\n": lambda: dict(encoding=posenc_jax.make("rope", head_dim=C)),
    "top_p=0.95": lambda: dict(
        model=small_model("rope"),
        prompts=np.ones((B, 5), np.int32),
        lengths=np.array([5, 3]),
        key=jax.random.key(0),
    ),
}
# Pages of schemes are made anew by ``make site``, and are not in the repository.
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted(ROOT.glob("docs/**/*.md"))
    if path.parent.name != "schemes" or path.name == "index.md"
]
GUIDES = [f"docs/how-to/{page}.md" for page in GUIDE]
ELSEWHERE = "class Root(Encoding)", '"root": "posenc_jax', "from posenc_jax.pretrained import load"
# The page leaves out what a model is made of, and models of its size take long to run.
SMALLER = {
    "Transformer(pattern, ...)": "Transformer(pattern, vocab_size=64, model_dim=64, num_layers=2, "
    "num_heads=1, rngs=nnx.Rngs(0))",
    "max_new_tokens=100": "max_new_tokens=3",
    "max_new_tokens=50": "max_new_tokens=3",
}


def blocks() -> list[str]:
    text = "\n".join((ROOT / page).read_text() for page in ("README.md", *GUIDES))
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [block for block in found if not any(part in block for part in ELSEWHERE)]


def anchors(page: Path) -> set[str]:
    """Returns the names that GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), link
        assert not anchor or anchor in anchors(page), link


def questions() -> dict[str, str]:
    """Returns the code that answers each question, by the question."""
    parts = re.split(r"^## ", QUESTIONS.read_text(), flags=re.M)[1:]
    return {
        part.splitlines()[0]: "\n".join(re.findall(r"```python\n(.*?)```", part, re.DOTALL))
        for part in parts
    }


@pytest.mark.parametrize("question", questions())
def test_the_answer_to_a_question_runs(question):
    q_BTHC, k_BTHC, v_BTHC = (jnp.asarray(common.normal(seed, 1, T, H, C)) for seed in range(3))
    given = dict(jnp=jnp, np=np, nnx=nnx, posenc_jax=posenc_jax, text=text)
    given |= dict(Encoding=posenc_jax.Encoding, Side=posenc_jax.Side, Tokens=posenc_jax.Tokens)
    given |= dict(attend=posenc_jax.attend, x_BTD=jnp.asarray(common.normal(3, 1, T, H * C)))
    exec(questions()[question], given | dict(q_BTHC=q_BTHC, k_BTHC=k_BTHC, v_BTHC=v_BTHC))


def test_the_page_of_schemes_has_all_of_them():
    text = (ROOT / "docs/schemes/index.md").read_text()
    assert [name for name in posenc_jax.REGISTRY if f"`{name}`" not in text] == []


def test_every_piece_of_code_is_run():
    """Each is found by its own word."""
    found = [[word for word in GIVEN if word in block] for block in blocks()]
    assert all(len(words) == 1 for words in found)
    assert sorted(words[0] for words in found) == sorted(GIVEN)


@pytest.mark.parametrize("word", GIVEN)
def test_the_code_of_a_page_runs(word, tmp_path, monkeypatch):
    given = GIVEN[word]()
    (tmp_path / "config.json").write_text(json.dumps(given.get("file")))
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in blocks() if word in block)
    for written, smaller in SMALLER.items():
        code = code.replace(written, smaller)
    modules = dict(jax=jax, jnp=jnp, np=np, nn=nn, nnx=nnx, json=json, posenc_jax=posenc_jax)
    names = dict(Tokens=posenc_jax.Tokens, attend=posenc_jax.attend, text=text)
    here = modules | names | given
    exec(code, here)
    for name, value in here.items():
        if name.startswith(("out", "logits", "new_ids")):
            assert np.isfinite(value).all()
    if "Layer" in here:
        out, _ = here["Layer"]().init_with_output(jax.random.key(0), normal(B, T, H * C), text(T))
        assert np.isfinite(out).all()
