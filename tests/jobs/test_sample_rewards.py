"""The grid of previews: one row per prompt and one column per step, however the prompts are cut into parts."""

from pathlib import Path

import numpy as np
import yaml

import tiny
from progrpo.config import load_config
from progrpo.jobs import sample_rewards


def write_config(folder: Path) -> Path:
    """A tiny tier with a pilot of three prompts whose grid shows them all."""
    path = tiny.write_config(folder / "config.yaml", tiny.make_models(folder), flow=tiny.FLOW)
    edited = yaml.safe_load(path.read_text())
    edited["analyses"] = {
        "pilot": {
            **{"model": "sd35m", "scorer": "pickscore", "prompts": "train", "prompt_count": 3, "group": 4, "grid": 3},
            **{"sampling": {"steps": 4, "guidance_scale": 1.0, "noise": 0.7}, "candidates": [[2, 3]], "keep": [3, 2]},
        }
    }
    path.write_text(yaml.safe_dump(edited))
    return path


def test_prompts_of_later_parts_stand_in_rows_of_their_own(tmp_path, monkeypatch):
    config = load_config(write_config(tmp_path))
    grids = []
    for at_once in (8, 2):  # all in one part, and the third prompt in another than the first two
        monkeypatch.setattr(sample_rewards, "PROMPTS_AT_ONCE", at_once)
        out = tmp_path / f"{at_once}.json"
        sample_rewards.sample_analysis(config, "pilot", out, "cpu")
        with np.load(out.with_suffix(".npz")) as stored:
            grids.append(stored["images"])
            assert stored["labels"].tolist() == ["step 0", "step 1", "step 2", "step 3", "final"]
    whole, parted = grids
    assert whole.shape[:2] == parted.shape[:2] == (3, 5)
    assert np.abs(whole.astype(int) - parted.astype(int)).max() <= 1  # batches of another size round differently
