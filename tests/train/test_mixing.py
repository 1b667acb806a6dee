from collections import Counter

import pytest

from distill3d.errors import ConfigError
from distill3d.train.mixing import SHORTEST_EPOCH, MixedBatches, Source, turns
from distill3d.train.order import numbers_of_rank


class Numbers:
    """Batches that are their own numbers."""

    def __init__(self, length):
        self._length = length

    def __len__(self):
        return self._length

    def __getitem__(self, number):
        return number


def mix(seed=0, photos=6, replay=2):
    parts = [
        Source(name="photos", batches=Numbers(10), per_epoch=photos),
        Source(name="replay", batches=Numbers(3), per_epoch=replay),
    ]
    return MixedBatches(parts, seed=seed)


def drawn(batches, numbers):
    return [(batches[number].source, batches[number].batch) for number in numbers]


def test_every_epoch_has_its_share_of_each_source_and_each_source_goes_on():
    batches = mix()
    assert len(batches) == 8
    for epoch in range(3):
        found = drawn(batches, range(8 * epoch, 8 * epoch + 8))
        assert Counter(name for name, _ in found) == {"photos": 6, "replay": 2}
        for name, count in (("photos", 6), ("replay", 2)):
            # In order and without a gap: a source sees its own numbers as if it were alone.
            assert [number for of, number in found if of == name] == list(range(count * epoch, count * (epoch + 1)))


def test_the_order_depends_on_seed_and_epoch_alone():
    forward, backward = drawn(mix(), range(16)), drawn(mix(), reversed(range(16)))
    assert forward == backward[::-1]
    names = [
        [name for name, _ in drawn(mix(seed), range(start, start + 8))] for seed, start in ((0, 0), (0, 8), (1, 0))
    ]
    assert names[0] != names[1] or names[0] != names[2]


def test_an_empty_mix_is_refused():
    with pytest.raises(ConfigError, match="has no batches"):
        mix(photos=0, replay=0)


@pytest.mark.parametrize(
    ("sizes", "weights"),
    [((2, 5), (3, 1)), ((4000, 10), (0.25, 0.75)), ((1, 1, 1), (1, 1, 2)), ((70, 800, 900), (20, 1, 1))],
)
def test_an_epoch_shares_its_turns_by_weight(sizes, weights):
    found = turns(sizes, weights)
    assert sum(found) == pytest.approx(max(sum(sizes), SHORTEST_EPOCH), abs=len(sizes))
    for count, weight in zip(found, weights, strict=True):
        assert count / sum(found) == pytest.approx(weight / sum(weights), abs=1e-3)


def test_a_weight_of_nothing_leaves_a_source_out_and_a_tiny_one_does_not():
    assert turns((5, 5, 5), (1, 0, 1e-9)) == [SHORTEST_EPOCH, 0, 1]


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (-1, 2), (float("nan"), 1), (float("inf"), 1), (0, 0)])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ConfigError, match=r"one weight for each cache; caches: 2|expected numbers of at least 0"):
        turns((4, 4), weights)


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (2, 2)])
def test_the_mix_goes_on_where_it_stopped_on_another_number_of_processes(before, after):
    def seen(world, start, steps):
        return [
            number
            for rank in range(world)
            for number in numbers_of_rank(rank=rank, world=world, accumulation=4 // world, start=start, steps=steps)
        ]

    whole = drawn(mix(), range(40))
    assert sorted(drawn(mix(), seen(before, 0, 5) + seen(after, 5, 10))) == sorted(whole)
