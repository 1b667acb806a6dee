import pickle
from dataclasses import replace

import pytest
import torch

from distill3d.cache import CacheHeader, CacheReader, CacheWriter
from distill3d.errors import ConfigError
from distill3d.geometry.poses import invert_pose, transform_points
from distill3d.train.config import SamplingConfig
from distill3d.train.rebase import rebase, with_poses
from distill3d.train.samples import Batch, CacheDataset, batches_in_order, split_keys
from tests.train.helpers import make_cache, make_sample


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"), samples=5, views=4)


def open_batches(cache, *, views=3, batch=2, augment=True, **changes):
    reader = CacheReader(cache)
    return CacheDataset(
        reader, reader.keys(), SamplingConfig(**changes), views=views, batch=batch, seed=7, augment=augment
    )


def flat(batch: Batch):
    fields = [*vars(batch.views).values(), *vars(batch.target).values(), batch.valid]
    return [value for value in fields if value is not None]


def same(one: Batch, two: Batch) -> bool:
    return one.keys == two.keys and one.seed == two.seed and all(map(torch.equal, flat(one), flat(two)))


def test_a_batch_is_a_function_of_its_number(cache):
    one, two = open_batches(cache), open_batches(cache)
    for number in (4, 0, 3):  # in any order, and read again from memory
        assert same(one[number], two[number])
        assert same(one[number], two[number])
    assert not same(one[0], one[one.order.per_epoch])


@pytest.mark.enable_socket  # torch hands tensors over through a local socket
@pytest.mark.parametrize("workers", [1, 2])
def test_reading_ahead_changes_nothing(cache, workers):
    numbers = [0, 1, 2, 5]
    alone = list(batches_in_order(open_batches(cache), numbers, 0))
    ahead = list(batches_in_order(open_batches(cache), numbers, workers))
    assert all(map(same, alone, ahead))


def test_keeping_in_memory_changes_nothing_and_loses_no_bit(cache):
    kept, fresh = open_batches(cache), open_batches(cache, memory_mb=0)
    for number in (0, 1, 0, 1):
        assert same(kept[number], fresh[number])


def test_the_world_maps_are_in_the_frame_of_the_first_view_whichever_it_is(cache):
    batches = open_batches(cache, color_jitter=0.0)
    references = set()
    for number in range(6):
        batch = batches[number]
        target = batch.target
        assert torch.allclose(target.world_from_camera[:, 0], torch.eye(4).expand(2, 4, 4), atol=1e-6)
        # The labels are exact: the local map, taken through the pose, is the world map.
        moved = transform_points(target.world_from_camera, target.pointmap_camera)
        assert torch.allclose(moved, target.pointmap_world, atol=5e-3)
        assert torch.allclose(target.pointmap_world[:, 0], target.pointmap_camera[:, 0], atol=5e-3)
        assert torch.allclose(batch.views.world_from_camera, target.world_from_camera, atol=1e-5)
        references.update(float(pose[0, 3]) for pose in target.world_from_camera[:, 1])
    assert len(references) > 3


def test_with_the_first_reference_the_labels_are_those_of_the_cache_bit_for_bit(cache):
    batches = open_batches(cache, batch=1, reference="first", color_jitter=0.0)
    batch = batches[2]
    sample = CacheReader(cache).load(batch.keys[0])
    assert torch.equal(batch.target.pointmap_world[:, 0], sample.prediction.pointmap_world[:, 0])
    assert torch.equal(batch.views.images[:, 0], sample.views.images[:, 0])


def test_colours_are_changed_only_where_asked_and_stay_colours(cache):
    plain, jittered = open_batches(cache, color_jitter=0.0)[0], open_batches(cache, color_jitter=0.3)[0]
    assert torch.equal(plain.target.pointmap_camera, jittered.target.pointmap_camera)
    difference = (plain.views.images - jittered.views.images).abs()
    assert 0.01 < float(difference.mean()) < 0.2
    assert 0 <= float(jittered.views.images.min()) <= float(jittered.views.images.max()) <= 1


def test_the_percentile_leaves_out_the_least_confident_pixels(cache):
    batch = open_batches(cache, mask_percentile=10.0)[0]
    doubted = batch.target.confidence_world < 2
    assert doubted.any()
    assert not (batch.valid & doubted).any()
    assert (batch.valid | doubted).all()


def test_the_number_of_views_varies_between_batches_and_not_within(cache):
    batches = open_batches(cache, views=4, min_views=2)
    counts = {batches[number].views.images.shape[1] for number in range(20)}
    assert counts == {2, 3, 4}


def test_without_augmentation_views_are_evenly_spaced_and_the_first_is_the_reference(cache):
    batch = open_batches(cache, views=2, batch=1, augment=False)[0]
    sample = CacheReader(cache).load(batch.keys[0], views=[0, 3])
    assert torch.equal(batch.views.images, sample.views.images)


def test_groups_that_are_too_small_are_named_with_what_to_do(cache):
    with pytest.raises(ConfigError, match=r"views is 9, but group wall/000 .* has 4.*Set views to 4 or less"):
        open_batches(cache, views=9)


def test_a_cache_of_upright_and_wide_groups_gives_batches_of_one_size(tmp_path):
    generator = torch.Generator().manual_seed(0)
    with CacheWriter(tmp_path / "mixed", header=CacheHeader(teacher="wall")) as writer:
        for number in range(6):
            size = (28, 42) if number % 2 else (42, 28)
            writer.add(f"wall/{number}", *make_sample(generator, 2, size))
    batches = open_batches(tmp_path / "mixed", views=2)
    shapes = {batches[number].views.images.shape for number in range(len(batches))}
    assert shapes == {(2, 2, 3, 28, 42), (2, 2, 3, 42, 28)}


def test_batches_travel_to_other_processes(cache):
    batches = pickle.loads(pickle.dumps(open_batches(cache)[0]))
    assert same(batches, open_batches(cache)[0])


def test_poses_are_found_where_the_teacher_gave_maps_alone():
    _, exact = make_sample(torch.Generator().manual_seed(1), 3, (28, 28))
    valid = torch.ones(1, 3, 28, 28, dtype=torch.bool)
    # Another scale of the local maps, as networks have it, changes no pose.
    bare = replace(exact, world_from_camera=None, pointmap_camera=exact.pointmap_camera * 3)
    assert torch.allclose(with_poses(bare, valid).world_from_camera, exact.world_from_camera, atol=1e-4)


def test_a_change_of_reference_and_back_is_no_change():
    _, exact = make_sample(torch.Generator().manual_seed(1), 3, (28, 28))
    poses = exact.world_from_camera
    moved = rebase(exact, poses, poses[:, 2])
    back = rebase(moved, moved.world_from_camera, invert_pose(poses[:, 2]))
    assert torch.allclose(back.pointmap_world, exact.pointmap_world, atol=1e-5)
    assert torch.allclose(back.world_from_camera, poses, atol=1e-6)


def test_what_is_held_back_depends_on_each_key_and_leaves_something_on_both_sides():
    keys = [f"room/{number}" for number in range(40)]
    kept, held = split_keys(keys, 0.1, seed=0)
    assert len(held) == 4
    assert sorted(kept + held) == sorted(keys)
    assert split_keys(keys, 0.1, seed=0) == (kept, held)
    assert split_keys(keys[:2], 0.01, seed=0)[1]
    assert split_keys(keys[:1], 0.5, seed=0) == (keys[:1], [])
