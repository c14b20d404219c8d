"""Every figure is drawn from stored data, twice the same, and refuses data of another kind with one line."""

import argparse
import json

import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from progrpo.analysis import ovf_study, pruning_pilot, reward_clustering
from progrpo.commands import figures as command
from progrpo.errors import UserError
from progrpo.report import figures


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """One small data file for each figure."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    terminal = generator.normal(size=(10, 12))
    previews = terminal[:, :, None] + generator.normal(size=(10, 12, 5)) * np.linspace(2, 0.1, 5)
    arms = {arm: {q: generator.normal(size=(2, 8)) for q in ("reward", "reward_std")} for arm in ovf_study.ARMS}
    results = {
        "fig6": reward_clustering.analyse(terminal, simulations=9),
        "pilot": pruning_pilot.analyse(previews, terminal),
        "fig2": ovf_study.analyse(arms),
    }
    paths = {}
    for name, result in results.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(json.dumps(result))
    images = generator.integers(0, 256, (2, 14, 24, 24, 3), dtype=np.uint8)
    paths["fig7"] = paths["qualitative"] = folder / "strip.npz"
    np.savez(paths["fig7"], images=images, prompts=np.array(["a red circle", "two blue squares " * 8]))
    paths["fig5"] = folder / "run-seed0"
    paths["fig5"].mkdir()
    lines = [json.dumps({"iteration": i, "reward": i / 8}) for i in range(8)]
    (paths["fig5"] / "metrics.jsonl").write_text("\n".join(lines))
    return paths


def draw(figure, data, out):
    data = data if isinstance(data, list) else [data]
    arguments = argparse.Namespace(figure=figure, data=[str(path) for path in data], out=str(out))
    arguments.keys, arguments.window, arguments.over = ["reward"], 3, "iteration"
    return command.run(arguments)


@pytest.mark.parametrize("name", command.FIGURES)
def test_both_files_are_written_and_repeat_to_the_byte(name, stored, tmp_path):
    assert draw(name, stored[name], tmp_path / "a") == draw(name, stored[name], tmp_path / "b") == 0
    for extension in ("pdf", "png"):
        first, second = (tmp_path / f"{stem}.{extension}" for stem in "ab")
        assert first.read_bytes() == second.read_bytes()
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()
    picture = matplotlib.image.imread(tmp_path / "a.png")
    assert picture.shape[1] == pytest.approx(300 * figures.WIDTH, abs=1)
    assert (picture[..., :3] < 0.9).mean() > 0.01


def outside(figure) -> list[str]:
    """Texts of a figure that its edge cuts."""
    figure.canvas.draw()
    renderer, edge = figure.canvas.get_renderer(), figure.bbox.padded(1)
    ticks = {
        tick for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_ticklabels(which="both")
    }
    drawn = [text for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text().strip()]
    texts = [text for text in drawn if text not in ticks]  # ticks beyond the limits are not drawn
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    return [text for text, box in boxes if not (edge.contains(box.x0, box.y0) and edge.contains(box.x1, box.y1))]


@pytest.mark.parametrize("name", command.FIGURES)
def test_no_text_is_cut_by_the_edge(name, stored, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, stem: drawn.append(figure) or [])
    draw(name, stored[name], tmp_path / "a")
    (figure,) = drawn
    figure.set_canvas(FigureCanvasAgg(figure))
    assert outside(figure) == []


@pytest.mark.parametrize("key", [key for key in figures.AXES if key not in ("iteration", "denoiser_calls")])
def test_every_quantity_has_a_label_that_fits(key):
    records = [{"iteration": step, key: 1e-3 * step} for step in range(1, 9)]
    figure = figures.draw_training_curves({"Flow-GRPO": [records]}, (key,), window=2)
    figure.set_canvas(FigureCanvasAgg(figure))
    assert outside(figure) == []


@pytest.mark.parametrize("name", ["fig2", "fig6", "pilot"])
def test_data_of_another_figure_is_one_line(name, stored, tmp_path):
    other = {"fig2": "fig6", "fig6": "pilot", "pilot": "fig2"}[name]
    with pytest.raises(UserError, match="Field required"):
        draw(name, stored[other], tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_training_curves_of_several_seeds_have_a_band_over_the_shared_length():
    runs = {"a": [[{"reward": 1.0}, {"reward": 2.0}], [{"reward": 3.0}]], "b": [[{"reward": 0.0}]]}
    axis = figures.draw_training_curves(runs, ("reward",), window=1).axes[0]
    first, second = axis.lines
    assert first.get_ydata().tolist() == [2.0]
    assert first.get_label() == "a (2 seeds)"
    assert second.get_label() == "b"
    assert len(axis.collections) == 1


def test_a_missing_quantity_is_named():
    with pytest.raises(ValueError, match="no 'kl'"):
        figures.draw_training_curves({"a": [[{"reward": 1.0}]]}, ("kl",))


def test_axes_are_labelled(stored):
    for name, drawn in (("fig6", figures.draw_reward_distribution), ("pilot", figures.draw_pilot)):
        for axis in drawn(json.loads(stored[name].read_text())).axes:
            assert axis.get_xlabel()
            assert axis.get_ylabel()


def test_a_long_strip_shows_evenly_spaced_steps(stored):
    with np.load(stored["fig7"]) as strip:
        figure = figures.draw_grid(strip["images"], ["a", "b"], [str(step) for step in range(14)])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[0] == "0"
    assert titles[-1] == "13"
    assert len(titles) == figures.MAX_COLUMNS


def test_curves_over_calls_put_each_run_at_its_own_cost():
    runs = {name: [[{"reward": 1.0, "denoiser_calls": calls}] * 3] for name, calls in (("a", 1000), ("b", 2000))}
    axis = figures.draw_training_curves(runs, ("reward",), over="denoiser_calls").axes[0]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[1, 2, 3], [2, 4, 6]]
