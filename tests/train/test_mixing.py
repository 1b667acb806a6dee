from collections import Counter

import pytest

from distill3d.errors import ConfigError
from distill3d.train.mixing import MixedBatches, Source, by_weight


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
    ("weights", "counts"), [(None, {"a": 10, "b": 30}), ((3, 1), {"a": 30, "b": 10}), ((0, 2.5), {"b": 40})]
)
def test_an_epoch_is_shared_out_by_weight(weights, counts):
    mix = by_weight({"a": Numbers(10), "b": Numbers(30)}, weights, seed=0)
    assert len(mix) == 40
    assert Counter(mix[number].source for number in range(40)) == counts
    assert [mix.unmarked()[number] for number in range(40)] == [mix[number].batch for number in range(40)]


def test_a_rare_source_still_has_its_turn():
    mix = by_weight({"a": Numbers(10), "b": Numbers(10)}, (1.0, 1e-6), seed=0)
    assert [source.per_epoch for source in mix.sources] == [20, 1]
