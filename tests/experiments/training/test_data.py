"""Tests corpora and windows: what is in them, that they repeat, and that bad input is refused."""

import dataclasses
import re

import common
import numpy as np
import pytest

from experiments.training import data
from experiments.training.corpus import SPLITS, Corpus, of_documents, tokenised
from experiments.training.data import load_corpus
from experiments.training.records import RecordedTokens
from experiments.training.windows import (
    eval_windows,
    packed_batch,
    packed_index,
    train_batch,
    window_index,
)

LENGTH = 16


def counting(sizes, splits=None):
    """Makes a corpus whose tokens tell their document and place: ``1000 n, 1000 n + 1, ...``."""
    tokens = np.concatenate([1000 * n + np.arange(size) for n, size in enumerate(sizes)])
    splits = [SPLITS.index(split) for split in splits or ["train"] * len(sizes)]
    parts = tokens.astype(np.uint32), np.cumsum([0, *sizes]), np.array(splits, np.int8)
    return Corpus("synthetic", *parts, 1 << 31, 1.0, "digest")


@pytest.fixture
def folder(tmp_path):
    """Makes 60 text files, some in a folder below, and an empty one."""
    root = tmp_path / "texts"
    (root / "below").mkdir(parents=True)
    for n in range(60):
        place = root / "below" if n % 2 else root
        (place / f"{n}.txt").write_bytes(b"text %d " % n * 10)
    (root / "empty.txt").touch()
    return root


def document(corpus, number):
    return corpus.tokens[corpus.offsets[number] : corpus.offsets[number + 1]]


# --- train batches


def test_train_windows_are_runs_within_one_document_of_the_split():
    corpus = counting(
        [50, 17, 16, 400, 3, 90], ["train", "train", "train", "test", "train", "train"]
    )
    index = window_index(corpus, LENGTH)
    batches = [train_batch(index, batch_size=8, seed=1, step=step) for step in range(100)]
    rows = np.concatenate(batches)
    assert rows.shape == (800, LENGTH + 1) and rows.dtype == np.int32
    assert (np.diff(rows) == 1).all()  # a step to the next document would jump
    assert set(rows[:, 0] // 1000) == {0, 1, 5}
    firsts, lasts = rows.min() % 1000, rows[rows // 1000 == 5].max() % 1000
    assert (firsts, lasts) == (0, 89)  # the first and the last window are both reached


def test_train_windows_are_uniform():
    corpus = counting([20, 17, 27])  # 4 + 1 + 11 windows
    index = window_index(corpus, LENGTH)
    rows = np.concatenate([train_batch(index, batch_size=2, seed=0, step=s) for s in range(3200)])
    starts, counts = np.unique(rows[:, 0], return_counts=True)
    assert starts.tolist() == [*range(4), 1000, *range(2000, 2011)]
    assert (abs(counts - 400) < 5 * np.sqrt(400)).all()


def test_train_batch_depends_on_seed_and_step_alone_whatever_its_parts():
    index = window_index(counting([900] * 5), LENGTH)

    def draw(seed, step, part=0, parts=1):
        return train_batch(index, 8, seed, step, part, parts)

    later = draw(0, 7)
    batches = [draw(seed, step) for seed in range(3) for step in range(8)]
    np.testing.assert_array_equal(later, batches[7])  # no draw before it moved it
    assert len({batch.tobytes() for batch in batches}) == len(batches)
    quarters = [draw(0, 7, part, 4) for part in range(4)]
    np.testing.assert_array_equal(np.concatenate(quarters), later)


# --- evaluation windows


def test_eval_windows_never_overlap_and_stay_in_one_document():
    corpus = counting([100, 15, 16, 70, 35, 900], ["test"] * 5 + ["train"])
    rows = eval_windows(corpus, "test", length=LENGTH, count=10**6)
    assert rows.dtype == np.int32 and (np.diff(rows) == 1).all()
    assert len(np.unique(rows)) == rows.size  # every token is in at most one window
    documents = rows[:, 0] // 1000
    assert set(documents[:4]) == {0, 2, 3, 4}  # each once before any twice
    counts = np.bincount(documents)
    # A random place may cost a document one of the windows it has room for, never more.
    assert 5 <= counts[0] <= 6 and counts[2] == 1 and 3 <= counts[3] <= 4 and 1 <= counts[4] <= 2
    one, other = np.flatnonzero(documents == 0)[:3], np.flatnonzero(documents == 3)[:3]
    assert (abs(one - other) < 4).all()  # the documents take turns


def test_fewer_eval_windows_are_the_first_of_more():
    corpus = counting([300] * 9, ["test"] * 9)
    more = eval_windows(corpus, "test", length=LENGTH, count=40)
    assert len(more) == 40
    for count in (1, 5, 9, 12):
        fewer = eval_windows(corpus, "test", length=LENGTH, count=count)
        np.testing.assert_array_equal(fewer, more[:count])


def test_windows_are_the_same_in_every_version():
    """Otherwise no run could be resumed, and no evaluation compared, across the change."""
    trained = train_batch(window_index(counting([900] * 5), LENGTH), batch_size=4, seed=3, step=5)
    assert trained[:, 0].tolist() == [1447, 3347, 1166, 2479]
    rows = eval_windows(counting([900] * 5, ["test"] * 5), "test", length=LENGTH, count=3)
    assert rows[:, 0].tolist() == [2439, 1554, 798]


def test_windows_that_are_longer_than_every_document_are_refused():
    corpus = counting([40, 90], ["test", "train"])
    assert eval_windows(corpus, "test", length=40, count=3).shape == (1, 40)
    common.refuses("test", lambda: eval_windows(corpus, "test", length=41, count=3))


# --- corpora of bytes


def test_files_are_documents(folder):
    corpus = load_corpus(f"files:{folder}/**/*.txt")
    assert len(corpus.splits) == 60  # the empty one is none
    written = {b"text %d " % n * 10 for n in range(60)}
    assert {document(corpus, n).tobytes() for n in range(60)} == written
    assert set(corpus.splits) == {0, 1, 2}
    assert len(load_corpus(f"files:{folder}/*.txt").splits) == 30
    assert len(load_corpus(f"files:{folder}/below/7.txt").splits) == 1


def test_digest_and_splits_survive_a_move_but_not_a_change(folder, monkeypatch):
    before = load_corpus(f"files:{folder}/**/*.txt")
    moved = folder.rename(folder.with_name("elsewhere"))
    after = load_corpus(f"files:{moved}/**/*.txt")
    assert after.digest == before.digest
    np.testing.assert_array_equal(after.splits, before.splits)
    monkeypatch.chdir(moved.parent)
    assert load_corpus("files:elsewhere/**/*.txt").digest == before.digest

    # The same bytes with the border between two documents elsewhere.
    (moved / "below/1.txt").write_bytes(b"text 1 " * 9 + b"text 1")
    (moved / "below/11.txt").write_bytes(b" " + b"text 11 " * 10)
    shifted = load_corpus(f"files:{moved}/**/*.txt")
    assert shifted.tokens.tobytes() == before.tokens.tobytes() and shifted.digest != before.digest


# --- tokens:PATH


@pytest.mark.parametrize("vocab_size, dtype", [(1 << 16, np.uint16), (1 << 17, np.uint32)])
def test_tokens_round_trip(tmp_path, vocab_size, dtype):
    largest = vocab_size - 1
    folder, documents = tmp_path / "new/folder", [[1, 2, 3], [], [largest]]
    data.write_tokens(folder, documents, vocab_size=vocab_size, bytes_per_token=4.5)
    corpus = load_corpus(f"tokens:{folder}")
    assert isinstance(corpus.tokens, np.memmap) and corpus.tokens.dtype == dtype
    assert [document(corpus, n).tolist() for n in range(3)] == [[1, 2, 3], [], [largest]]
    assert (corpus.vocab_size, corpus.bytes_per_token) == (vocab_size, 4.5)
    assert len(corpus.digest) == 64


def test_records_hold_the_corpus_of_a_memory_map(tmp_path):
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 300, size) for size in (5000, 0, 40, 3000, 9000, 17, 60, 2500)]
    for folder, write_corpus in (("map", data.write_tokens), ("records", data.write_records)):
        write_corpus(tmp_path / folder, documents, vocab_size=300, bytes_per_token=4.5)
    mapped, recorded = (load_corpus(f"tokens:{tmp_path / name}") for name in ("map", "records"))
    assert isinstance(recorded.tokens, RecordedTokens) and mapped.digest == recorded.digest
    np.testing.assert_array_equal(recorded.tokens[4000:13_000], mapped.tokens[4000:13_000])
    batches = ({}, {})
    for corpus, batch in zip((mapped, recorded), batches, strict=True):
        batch["windows"] = train_batch(window_index(corpus, 1500), 8, seed=0, step=3)
        batch |= packed_batch(packed_index(corpus, 1500), 8, seed=0, step=3)
    for name in batches[0]:
        np.testing.assert_array_equal(batches[0][name], batches[1][name])


def test_a_corpus_that_is_written_over_another_or_not_to_its_end(tmp_path):
    def broken():
        yield np.arange(3)
        raise KeyboardInterrupt

    keywords = {"vocab_size": 300, "bytes_per_token": 1.0}
    data.write_records(tmp_path, [[1, 2, 3]], **keywords)
    data.write_tokens(tmp_path, [[4, 5]], **keywords)
    assert load_corpus(f"tokens:{tmp_path}").tokens[:].tolist() == [4, 5]
    with pytest.raises(KeyboardInterrupt):
        data.write_records(tmp_path, broken(), **keywords)
    common.refuses("offsets.npy", lambda: load_corpus(f"tokens:{tmp_path}"))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("tokens", np.array([1.0, 2.0, 3.0])),
        ("offsets", np.array([0, 2, 1, 3])),
        ("offsets", np.array([1, 3])),
    ],
)
def test_arrays_that_are_no_corpus_are_refused(tmp_path, name, wrong):
    data.write_tokens(tmp_path, [[1, 2], [3]], vocab_size=300, bytes_per_token=1.0)
    np.save(tmp_path / f"{name}.npy", wrong)
    common.refuses(f"{name}.npy must be", lambda: load_corpus(f"tokens:{tmp_path}"))


def test_a_corpus_of_bytes_in_the_tokens_of_a_model(tmp_path):
    for name, words in (("a", b"ab" * 50), ("b", b"abc"), ("c", b"\xff" * 60)):
        (tmp_path / name).write_bytes(words)
    corpus = load_corpus(f"files:{tmp_path}/*")
    pairs = tokenised(corpus, lambda text: [ord(c) % 7 for c in text[::2]], 7, least=50)
    np.testing.assert_array_equal(np.diff(pairs.offsets), [50, 30])
    np.testing.assert_array_equal(pairs.splits, corpus.splits[[0, 2]])
    assert set(pairs.tokens.tolist()) == {ord("a") % 7, 0xFFFD % 7}  # no UTF-8 is replaced
    assert (pairs.vocab_size, pairs.bytes_per_token) == (7, 2.0)
    assert pairs.digest != corpus.digest
    common.refuses("101", lambda: tokenised(corpus, list, 7, least=101))
    common.refuses(re.escape(repr(pairs.name)), lambda: tokenised(pairs, list, 7))


def test_hugging_face_rows_are_documents(tmp_path, monkeypatch):
    """They are of a folder, for the tests reach no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets  # reads the variable

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def rows(name, text):
        (tmp_path / name).mkdir()
        datasets.Dataset.from_dict({"text": text}).to_parquet(tmp_path / name / "train.parquet")
        return tmp_path / name

    texts = ["naïve", "", None, *map(str, range(2500))]  # in three chunks
    folder = rows("a", text=texts)
    corpus = load_corpus(f"hf:{folder}")
    whole = "".join(filter(None, texts)).encode()
    np.testing.assert_array_equal(corpus.tokens[:], np.frombuffer(whole, np.uint8))
    for part in (slice(0, 0), slice(0, 3), slice(2890, 2900), slice(6000, None)):
        assert corpus.tokens[part].tobytes() == whole[part]
    assert document(corpus, 0).tobytes().decode() == "naïve"
    assert document(corpus, 1).tobytes() == b"0"  # rows without text are left out
    assert len(corpus.splits) == 2501 and set(corpus.splits) == {0, 1, 2}
    in_memory = of_documents("x", [(text or "").encode() for text in texts], np.zeros(2503))
    held = dataclasses.replace(in_memory, splits=corpus.splits)
    for batch, index in ((train_batch, window_index), (packed_batch, packed_index)):
        rows_BL, expected_BL = (batch(index(c, 3), 64, seed=0, step=1) for c in (corpus, held))
        np.testing.assert_equal(rows_BL, expected_BL)
    part = load_corpus(f"hf:{folder}:train[2:9]")
    assert part.tokens[:].tobytes() == b"012345"
    # The split belongs to the row, so an empty row that gets text moves no other.
    other = load_corpus(f"hf:{rows('b', text=['naïve', 'now text', *texts[2:]])}")
    np.testing.assert_array_equal(other.splits[2:], corpus.splits[1:])
