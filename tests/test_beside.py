"""Tests that answers of experiments beside the atlas are read as they stand on their pages."""

import json

import pytest

from experiments import archive
from experiments.beside import GAIN, TABLES, read_extension, read_gains, read_tables

PAGE = """# Title

## {heading}

| scheme | small | large, 4 x 4 |
|---|---|---|
| `good` | **0.900** ± 0.005 | 0.800 ± 0.005 |
| `even` | 0.504 ± 0.001 | 0.400 ± 0.200 |
| `{row}` | 0.500 ± 0.001 | 0.500 ± 0.001 |

| scheme | small |
|---|---|
| `later` | 0.100 ± 0.001 |
"""


def page_of(tmp_path, **changes):
    text = ""
    for table in TABLES:
        rows = [*table.stands_for.values()]
        part = PAGE.format(heading=table.heading, row=rows[0]).removeprefix("# Title\n")
        for row in rows[1:]:
            part = part.replace(
                "\n\n| scheme | small |\n", f"\n| `{row}` | 0.500 ± 0.001 | |\n\n", 1
            )
        text += part
    for old, new in changes.items():
        text = text.replace(old, new)
    (tmp_path / "page.md").write_text(text)
    return tmp_path / "page.md"


def test_the_first_table_of_each_heading_is_read(tmp_path):
    found = {(a["topic"], a["scheme"]): a for a in read_tables(page_of(tmp_path))}
    good = found["images, small", "good"]
    # Student's t of 2 degrees of freedom, and half of the last digit for rounding.
    assert good["mean"] == 0.9 and good["margin"] == pytest.approx(4.303 * 0.0055, rel=1e-3)
    assert good["vs_nope"] == "better" and good["vs_rope"] is None and not good["is_error"]
    assert found["images, small", "even"]["vs_nope"] == "no difference"
    assert found["images, large, 4 x 4", "even"]["vs_nope"] == "no difference"
    assert ("images, small", "later") not in found
    # Lower is better in story time, and its frames by their index stand for RoPE.
    assert found["story time, small", "good"]["vs_rope"] == "worse"
    assert ("story time, small", "rope") in found
    assert ("story time, small", "frame_index") not in found
    assert ("pointing, large, 4 x 4", "rope") not in found  # its cell is empty


def test_a_page_without_a_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no table of schemes under 'Video' with a row of vanilla"):
        read_tables(page_of(tmp_path, vanilla="plain"))
    with pytest.raises(ValueError, match="no table of schemes under 'Images' with a row of nope"):
        read_tables(page_of(tmp_path, Images="Pictures"))
    assert read_tables(tmp_path / "none.md") == []


def test_records_of_longer_models_are_compared_seed_by_seed(tmp_path):
    head = "steps,seed,scheme,split,protocol,multiple,bits_per_byte\n"
    rows = [
        f"0,{seed},{scheme},{split},{protocol},2.0,{bits + seed}\n"
        for seed in range(3)
        for scheme, bits in (("rope", 2.0), ("yarn", 1.5 - 0.01 * seed), ("pi", float("inf")))
        for split, protocol in (("test", "last"), ("manual", "last"), ("test", "short"))
    ]
    path = tmp_path / "records.csv"
    path.write_text(head + "".join(rows))
    found = {a["scheme"]: a for a in read_extension(path)}
    assert len(found) == 3 == len(read_extension(path))
    yarn = found["yarn"]
    assert (yarn["topic"], yarn["multiple"]) == ("made longer, 0 steps", 2.0)
    assert yarn["vs_rope"] == "better" and yarn["vs_nope"] is None  # each seed with itself
    assert found["pi"]["mean"] is None and found["pi"]["vs_rope"] == "worse"
    assert read_extension(tmp_path / "none.csv") == []


def test_a_gain_is_over_the_window_of_the_trained_length(tmp_path):
    bits = {("last", 1): 1.5, ("last", 4): 1.2, ("windowed", 1): 1.3}
    for seed in range(3):
        records = [
            dict(scheme="fox", seed=seed, split="test", protocol=protocol, multiple=multiple)
            | dict(length=256 * multiple, bits_per_byte=value + seed)
            for (protocol, multiple), value in bits.items()
        ]
        folder = tmp_path / f"runs/fox/seed{seed}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        (folder / "metrics.jsonl").write_text("{}\n")
        found = {"training": {"steps": 1}, "records": records}
        (folder / "evaluation.json").write_text(json.dumps(found))
    (tmp_path / "long.tar.xz").write_bytes(archive.pack(tmp_path / "runs"))
    (gain,) = read_gains(tmp_path / "long.tar.xz")
    assert (gain["topic"], gain["multiple"]) == (GAIN, 4)
    assert gain["mean"] == pytest.approx(0.1) and gain["margin"] == pytest.approx(0.0, abs=1e-9)
    assert gain["vs_rope"] is None and read_gains(tmp_path / "none.tar.xz") == []
