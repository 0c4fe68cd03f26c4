"""The coupled examples without brokers: the plate, what is decided about it, and what is tried."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "coupled"))

import names
import surrogate
from couple import parse, why
from oven import BOUNDS, WANTED, scaled, score
from plate import ROOM, Heater, advance, heating, steady, strip
from steering import CALM_ROUNDS, Steering, probe_of

from flux_mpi.client.jobs import JobResult

# -- the plate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 20])
def test_strips_are_all_rows_once(parts: int) -> None:
    rows = [row for part in range(parts) for row in range(*strip(20, part, parts))]
    assert rows == list(range(20))


@pytest.mark.parametrize("parts", [0, 21])
def test_there_is_a_row_for_each_strip(parts: int) -> None:
    with pytest.raises(ValueError, match=rf"parts: {parts} is not allowed, 1 to 20 are"):
        strip(20, 0, parts)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_strips_with_their_neighbours_rows_are_the_whole_bit_for_bit(parts: int) -> None:
    size, steps = 32, names.STEPS
    whole = np.full((size, size), ROOM)
    whole[7, 9] = 300.0
    cut = [whole[slice(*strip(size, part, parts))] for part in range(parts)]
    for _ in range(5):
        whole = advance(whole, 2.0 * heating(size, Heater()), steps)
        old = np.vstack(cut)
        for part in range(parts):
            first, last = strip(size, part, parts)
            above, below = min(steps, first), min(steps, size - last)
            source = 2.0 * heating(size, Heater(), first - above, last + below)
            block = advance(old[first - above : last + below], source, steps)
            cut[part] = block[above : len(block) - below]
    assert np.array_equal(np.vstack(cut), whole)


def test_a_plate_without_heat_stays_as_it_is_and_a_heated_one_gets_steady() -> None:
    assert np.array_equal(steady(16, Heater(), 0.0), np.full((16, 16), ROOM))
    field = steady(16, Heater(), 1.0)
    assert np.abs(advance(field, heating(16, Heater()), 20) - field).max() < 1e-4
    assert (field[0] == ROOM).all()
    assert field.min() == ROOM < field[6, 6] <= field.max()


# -- steering --------------------------------------------------------------------------------------


def test_the_controller_gets_the_probe_to_the_target_and_stops() -> None:
    size, steering = 32, Steering(target=45.0, tolerance=0.05)
    plate, power = np.full((size, size), ROOM), 0.0
    waiting = []
    for number in range(1, 200):
        plate = advance(plate, power * heating(size, Heater()), names.STEPS)
        waiting.append(steering.decide(number, plate))
        if number > names.LAG:
            decision = waiting[number - 1 - names.LAG]
            power = decision.power
            if decision.stop:
                break
    assert decision.stop
    assert number < 100
    assert abs(probe_of(plate) - 45.0) < 0.1


def test_it_takes_several_good_rounds_to_stop() -> None:
    steering = Steering(target=ROOM, tolerance=0.05)
    good, bad = np.full((8, 8), ROOM), np.full((8, 8), ROOM + 1)
    plates = [good, good, bad, good, *[good] * CALM_ROUNDS]
    stops = [steering.decide(k, plate).stop for k, plate in enumerate(plates, 1)]
    assert stops == [False] * (len(plates) - 1) + [True]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tasks=0"], "--tasks: 0 is not allowed"),
        (
            ["--tasks=5"],
            "--tasks: 5 is not allowed with --size 32: at most 4, as each needs 8 rows",
        ),
        (["--size=2"], "--size: 2 is not allowed"),
        (["--rounds=0"], "--rounds: 0 is not allowed"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    with pytest.raises(SystemExit):
        parse(words)
    assert says in capsys.readouterr().err


def test_a_failed_job_s_last_words_are_told(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert why(log, JobResult(1, 1 << 8)) == "failed with status 1: it said nothing"
    log.write_text("first\nlast\n\n")
    assert why(log, JobResult(1, 2 << 8)) == "failed with status 2: last"
    assert why(log, JobResult(1, 15, "cancel: enough")) == "was ended: cancel: enough"


# -- the search ------------------------------------------------------------------------------------


def test_the_score_is_smaller_where_the_workpiece_is_as_wanted() -> None:
    cold, near, hot = (score((x, y, p), 16) for x, y, p in ((0.1, 0.1, 0.2), (0.67, 0.6, 2.0),
                                                            (0.67, 0.6, 9.0)))  # fmt: skip
    assert near < cold < WANTED - ROOM + 1 < hot


def test_points_are_scaled_to_the_bounds() -> None:
    corners = scaled(np.array([[0.0] * 3, [1.0] * 3]))
    assert [tuple(map(float, pair)) for pair in corners.T] == list(BOUNDS.values())


def test_the_first_points_are_spread_over_each_parameter() -> None:
    points = surrogate.scatter(10, 3, seed=4)
    assert np.array_equal(points, surrogate.scatter(10, 3, seed=4))
    for column in points.T:
        assert sorted((column * 10).astype(int)) == list(range(10))


def test_without_scikit_learn_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.gaussian_process", None)
    with pytest.raises(surrogate.NotInstalled, match=r"pip install scikit-learn .* --pick random"):
        surrogate.check()


def test_expected_improvement_is_what_sampling_says() -> None:
    pytest.importorskip("sklearn", reason="pip install '.[examples]'")
    random = np.random.default_rng(0)
    for mean, spread in ((1.0, 0.5), (0.0, 1.0), (2.0, 0.3)):
        drawn = random.normal(mean, spread, 400_000)
        expected = np.maximum(0.8 - drawn, 0.0).mean()
        found = surrogate.expected_improvement(np.array([mean]), np.array([spread]), 0.8)
        assert found[0] == pytest.approx(expected, abs=0.003)
    certain = surrogate.expected_improvement(np.array([0.3, 1.0]), np.zeros(2), 0.8)
    assert certain == pytest.approx([0.5, 0.0])


def test_what_is_proposed_comes_closer_to_the_best() -> None:
    """On a bowl with its bottom at (0.7, 0.2); and the same seed proposes the same."""
    pytest.importorskip("sklearn", reason="pip install '.[examples]'")
    bottom = np.array([0.7, 0.2])

    def bowl(points: np.ndarray) -> np.ndarray:
        found: np.ndarray = ((points - bottom) ** 2).sum(axis=1)
        return found

    points = surrogate.scatter(6, 2, seed=1)
    first = surrogate.propose(points, bowl(points), 3, seed=2)
    assert np.array_equal(first, surrogate.propose(points, bowl(points), 3, seed=2))
    assert len(np.unique(first, axis=0)) == 3
    for seed in range(3):
        new = surrogate.propose(points, bowl(points), 3, seed)
        assert ((new >= 0) & (new <= 1)).all()
        points = np.vstack([points, new])
    assert bowl(points).min() < 0.002
