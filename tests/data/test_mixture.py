import itertools
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill3d.data.mixture import Mixture, Part, shuffled
from distill3d.errors import ConfigError

PARTS = (
    Part(name="sa1b", size=20, weight=20),
    Part(name="hypersim", size=7, weight=1),
    Part(name="off", size=0, weight=0),
    Part(name="tartanair", size=3, weight=1),
)


def take(mixture, count, **where):
    return list(itertools.islice(mixture.draws(**where), count))


@given(st.integers(1, 300), st.integers(0, 5))
def test_a_shuffle_visits_everything_once(size, seed):
    assert sorted(shuffled(place, size, (seed, 1)) for place in range(size)) == list(range(size))


def test_shuffles_differ_by_seed_and_look_random():
    orders = [[shuffled(place, 1000, (seed,)) for place in range(1000)] for seed in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    for order in orders:
        steps = Counter(b - a for a, b in itertools.pairwise(order))
        assert steps.most_common(1)[0][1] < 12
        assert sum(place == item for place, item in enumerate(order)) < 8


def test_shares_follow_the_weights_and_take_turns():
    draws = take(Mixture(PARTS, seed=3), 22_000)
    counts = Counter(draw.part for draw in draws)
    assert [counts[part] for part in range(4)] == pytest.approx([20_000, 1000, 0, 1000], abs=4)
    for start in range(0, 22_000, 220):
        assert 8 <= sum(draw.part == 1 for draw in draws[start : start + 220]) <= 12


def test_every_epoch_of_a_source_uses_each_item_once_in_another_order():
    draws = [draw for draw in take(Mixture(PARTS, seed=3), 2000) if draw.part == 1]
    epochs = [[draw.item for draw in draws if draw.epoch == epoch] for epoch in range(5)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 5
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_any_number_of_processes_sees_the_same_draws(world):
    whole = take(Mixture(PARTS, seed=1), 240)
    shared = [take(Mixture(PARTS, seed=1), 240 // world, rank=rank, world=world) for rank in range(world)]
    assert sorted(itertools.chain(*shared)) == whole


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (2, 3)])
def test_a_resumed_mixture_goes_on_where_it_stopped_on_another_number_of_processes(before, after):
    whole = take(Mixture(PARTS, seed=9), 120)
    first = [take(Mixture(PARTS, seed=9), 60 // before, rank=rank, world=before) for rank in range(before)]
    stored = json.loads(json.dumps(Mixture(PARTS, seed=9).position(60).to_json()))
    mixture, consumed = Mixture.resume(stored, PARTS)
    second = [take(mixture, 60 // after, rank=rank, world=after, consumed=consumed) for rank in range(after)]
    assert sorted(itertools.chain(*first, *second)) == whole


def test_a_source_rarer_than_the_period_still_has_its_turn():
    rare = Mixture((Part(name="a", size=5, weight=1), Part(name="b", size=5, weight=1e-9)), seed=0)
    assert any(draw.part == 1 for draw in take(rare, 10_000))


def test_impossible_mixtures_are_refused():
    with pytest.raises(ConfigError, match="expected numbers of at least 0 with one above it"):
        Mixture([Part(name="a", size=1, weight=0)], seed=0)
    with pytest.raises(ConfigError, match="expected numbers"):
        Mixture([Part(name="a", size=1, weight=float("nan"))], seed=0)
    with pytest.raises(ConfigError, match=r"sources \['a'\] of a mixture are empty"):
        Mixture([Part(name="a", size=0, weight=1)], seed=0)
    with pytest.raises(ConfigError, match="Process 2 of 2"):
        next(Mixture(PARTS, seed=0).draws(rank=2, world=2))
    stored = Mixture(PARTS, seed=0).position(1).to_json()
    with pytest.raises(ConfigError, match="needs the same sources"):
        Mixture.resume(stored, PARTS[:2])
