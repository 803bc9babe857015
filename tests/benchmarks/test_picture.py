"""The picture on the front: what each curve is compared with, and that it is drawn."""

from benchmarks import picture
from benchmarks.pages import FRONT_FILES, read


def test_curves_are_compared_with_play_without_learning_and_published_runs():
    found = {row[0]: row for row in picture.references('dmc_cartpole_swingup', 50_000)}
    assert set(found) == {'DreamerV3, published', 'uniform play', 'no action'}
    assert found['DreamerV3, published'][2:] == ([25_000, 50_000], [189.0, 309.9])
    assert [row[0] for row in picture.references('pixel_catch', 9)] == ['optimal', 'uniform play']


def test_every_task_of_the_front_is_drawn(tmp_path):
    runs = [run for name in FRONT_FILES for run in read(name)['runs']]
    assert picture.draw(runs, tmp_path / 'front.png').stat().st_size > 10_000
