"""Strategies on made-up grids whose every outcome is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from prunelib.interventions.ablation import Ablation
from prunelib.recipe.methods import STRATEGIES
from prunelib.search.choice import Cell, Outcome, Rule, choose
from prunelib.search.selection import positive_mass
from prunelib.search.strategies import Found, Grid, Request, load_strategy, search

SMALLEST = Rule("smallest_within_error")
RATES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)


class World:
    """Every example of every cell has a margin; it is right if that is positive.

    ``gain`` is what a cell adds to all margins, from its layer and the place of its rate.
    """

    def __init__(self, gain: Callable[[int, int], float], layers: int = 4,
                 rates: tuple[float, ...] = RATES, examples: int = 200, noise: float = 0.0
                 ) -> None:
        rng = np.random.default_rng(0)
        shape = (layers, len(rates), examples)
        gains = np.array([[gain(i, j) for j in range(len(rates))] for i in range(layers)])
        self.margin: NDArray[np.float64] = (
            gains[:, :, None] - rng.uniform(0, 1, examples) + noise * rng.normal(size=shape))
        self.layers, self.rates = layers, rates
        self.places = {Ablation.of_layer(i, range(j + 1)).digest: (i, j)
                       for i in range(layers) for j in range(len(rates))}
        ablations = {(i, r): Ablation.of_layer(i, range(j + 1))
                     for i in range(layers) for j, r in enumerate(rates)}
        self.grid = Grid(ablations, examples, dict.fromkeys(range(layers), 1.0), SMALLEST)
        self.asked: list[tuple[int, int, int, int]] = []  # layer, rate's place, start, stop

    def evaluate(self, request: Request) -> Outcome:
        places = [self.places[a.digest] for a in request.ablations]
        assert {i for i, _ in places} == {request.layer}
        self.asked += [(*place, request.start, request.stop) for place in places]
        margin = np.stack([self.margin[place] for place in places])
        margin = margin[:, request.start : request.stop]
        return Outcome(margin > 0, margin < -0.5, margin)

    def run(self, name: str) -> Found:
        return search(load_strategy(name), self.grid, self.evaluate)


def choice(found: Found, rule: Rule = SMALLEST) -> Cell:
    """What is chosen where the untouched model is no candidate."""
    cell = choose(found.candidates, rule)
    assert cell is not None
    return cell


def bump(layer: int, rate: int, width: float = 2.0) -> Callable[[int, int], float]:
    """Best at one cell, worse with the distance of the rate, nothing in other layers."""
    return lambda i, j: 0.9 * np.exp(-(((j - rate) / width) ** 2)) if i == layer else 0.0


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_is_asked_twice_and_everything_is_kept(name: str) -> None:
    world = World(lambda i, j: 0.1 * i + 0.01 * j, noise=0.3, examples=75)
    found = world.run(name)
    assert found.evaluations == sum(stop - start for *_, start, stop in world.asked)
    seen: dict[tuple[int, int], int] = {}
    for i, j, start, stop in world.asked:
        assert start == seen.get((i, j), 0) < stop
        seen[i, j] = stop
    assert len(found.cells) == len(seen)
    for cell in found.cells:
        truth = world.margin[cell.layer, RATES.index(cell.rate)][: len(cell.correct)]
        assert np.array_equal(cell.margin, truth)
        assert np.array_equal(cell.correct, truth > 0)
        assert np.array_equal(cell.copied, truth < -0.5)
    assert len(choice(found).correct) == 75
    again = World(lambda i, j: 0.1 * i + 0.01 * j, noise=0.3, examples=75)
    assert choice(again.run(name)).ablation == choice(found).ablation
    assert again.asked == world.asked


def test_exhaustive_is_the_choice_among_all_cells() -> None:
    world = World(lambda i, j: 0.4 + 0.02 * i - 0.001 * j, noise=0.2)
    found = world.run("exhaustive")
    assert found.evaluations == 4 * 12 * 200
    cells = [Cell(m > 0, m < -0.5, m, i, r, Ablation.of_layer(i, range(j + 1)))
             for i in range(4) for j, r in enumerate(RATES) for m in [world.margin[i, j]]]
    expected = choose(cells, SMALLEST)
    assert expected is not None and choice(found).ablation == expected.ablation


@pytest.mark.parametrize("name", ["coarse_to_fine", "successive_halving"])
@pytest.mark.parametrize("rates", [RATES, RATES[:7]])
def test_a_quarter_is_enough_to_find_a_bump_anywhere(name: str, rates: tuple[float, ...]) -> None:
    for layer in range(4):
        for rate in range(len(rates)):
            world = World(bump(layer, rate), rates=rates, noise=0.1)
            all_cells = world.run("exhaustive")
            few = world.run(name)
            assert few.evaluations <= all_cells.evaluations / 4
            lost = choice(all_cells).correct.astype(float) - choice(few).correct
            assert choice(few).layer == layer
            assert lost.mean() <= lost.std(ddof=1) / np.sqrt(len(lost))


def rungs(world: World) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Range of examples → the cells that were tried on it."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, j, start, stop in world.asked:
        found.setdefault((start, stop), []).append((i, j))
    return found


def test_halving_step_by_step() -> None:
    # 2 layers × 4 rates, 32 examples: the margin is highest in layer 1 at the last rate, but all
    # of layer 1 is right, so the first rate is as good.
    world = World(lambda i, j: i + 0.1 * j, layers=2, rates=RATES[:4], examples=32)
    found = world.run("successive_halving")
    assert rungs(world) == {
        (0, 2): [(i, j) for i in range(2) for j in range(4)],
        (2, 4): [(1, 0), (1, 1), (1, 2), (1, 3)],
        (4, 8): [(1, 0), (1, 3)],
        (8, 16): [(1, 0), (1, 3)],
        (16, 32): [(1, 0), (1, 3)],
    }
    assert found.evaluations == 16 + 8 + 8 + 16 + 32
    assert (choice(found).layer, choice(found).rate) == (1, RATES[0])


def test_halving_keeps_the_best_margins_where_small_rates_are_worse() -> None:
    world = World(lambda i, j: [-1, -0.9, -0.2, 0.9][j] - 0.1 * i, layers=2, rates=RATES[:4],
                  examples=64)
    found = world.run("successive_halving")
    assert [sorted(cells) for cells in rungs(world).values()] == [
        [(i, j) for i in range(2) for j in range(4)],
        [(0, 2), (0, 3), (1, 2), (1, 3)],
        *[[(0, 3), (1, 3)]] * 3,
    ]
    assert (choice(found).layer, choice(found).rate) == (0, RATES[3])


def test_coarse_to_fine_step_by_step() -> None:
    world = World(bump(2, 6), examples=40)
    found = world.run("coarse_to_fine")
    coarse = [(i, j, 0, 8) for i in range(4) for j in (0, 2, 4, 6, 8, 10)]
    assert world.asked == [*coarse, (2, 5, 0, 40), (2, 7, 0, 40), (2, 6, 8, 40)]
    assert (choice(found).layer, choice(found).rate) == (2, RATES[6])


def test_coarse_to_fine_goes_on_around_a_small_rate_that_is_as_good() -> None:
    # all of layer 2 is right from the rate at 3 on; margins grow to the end
    world = World(lambda i, j: 1.0 + 0.01 * j if i == 2 and j > 2 else 0.3, examples=40)
    found = world.run("coarse_to_fine")
    assert sorted(world.asked[24:]) == [
        (2, 3, 0, 40), (2, 4, 8, 40), (2, 5, 0, 40), (2, 10, 8, 40)]  # fmt: skip
    assert (choice(found).layer, choice(found).rate) == (2, RATES[3])


def test_layers_that_hold_half_of_the_mass() -> None:
    masses = {(1.0, 5.0, 2.0, 1.0): {1}, (3.0, 2.0, 3.0, 2.0): {0, 2}, (1.0, 2.0, 1.0, 0.0): {1},
              (0.0, 0.0, 0.0, 0.0): {0}}
    for mass, layers in masses.items():
        world = World(bump(1, 4))
        world.grid = Grid(world.grid.ablations, 200, dict(enumerate(mass)), SMALLEST)
        found = world.run("attribution_mass")
        assert {cell.layer for cell in found.cells} == layers
        assert found.evaluations == len(layers) * 12 * 200
    assert positive_mass(np.array([1.0, -3.0, 0.5])) == 1.5


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(("layers", "rates", "examples"), [(1, 1, 1), (1, 2, 3), (3, 1, 17)])
def test_small_grids(name: str, layers: int, rates: int, examples: int) -> None:
    world = World(bump(layers - 1, rates - 1), layers, RATES[:rates], examples)
    found = world.run(name)
    assert len(choice(found).correct) == examples


@pytest.mark.parametrize("name", STRATEGIES)
def test_rates_that_switch_off_the_same_neurons_are_asked_for_once(name: str) -> None:
    world = World(bump(1, 2), rates=RATES[:6])
    same = {(i, r): world.grid.ablations[i, RATES[max(2, j)]]
            for i in range(4) for j, r in enumerate(RATES[:6])}
    world.grid = Grid(same, 200, world.grid.mass, SMALLEST)
    found = world.run(name)
    asked = [(i, j, start) for i, j, start, _ in world.asked]
    assert len(set(asked)) == len(asked) and {j for _, j, _ in asked} <= {2, 3, 4, 5}
    assert (choice(found).layer, choice(found).rate) == (1, RATES[0])
    assert found.evaluations == sum(stop - start for *_, start, stop in world.asked)
    if name == "exhaustive":
        assert len(found.cells) == 24 and len(asked) == 16


@pytest.mark.parametrize("name", STRATEGIES)
def test_layers_with_the_same_interventions_share_their_outcomes(name: str) -> None:
    """As numbers of components of a steering, where there are fewer than asked for."""
    world = World(bump(0, 2), rates=RATES[:4])
    same = {(i, r): world.grid.ablations[0, r] for i in range(3) for r in RATES[:4]}
    world.grid = Grid(same, 100, dict.fromkeys(range(3), 1.0), SMALLEST)
    found = world.run(name)
    assert len(set(world.asked)) == len(world.asked) and {i for i, *_ in world.asked} == {0}
    assert max(len(cell.correct) for cell in found.cells) == 100
    assert choice(found).rate == choice(World(bump(0, 2), layers=1, rates=RATES[:4],
                                              examples=100).run("exhaustive")).rate


def test_strategies_keep_what_the_rule_prefers() -> None:
    world = World(lambda i, j: 2.0 + 0.1 * j if i == 1 else 0.5)  # all of layer 1 is right
    assert choice(world.run("exhaustive")).rate == RATES[0]
    for rule in (Rule("smallest_within_error", "margin"), Rule("best"), Rule("best", "margin")):
        world.grid = Grid(world.grid.ablations, 200, world.grid.mass, rule)
        for name in ("exhaustive", "coarse_to_fine", "successive_halving"):
            cell = choice(world.run(name), rule)
            assert (cell.layer, cell.rate) == (1, RATES[-1])
