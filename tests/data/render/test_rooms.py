import pytest
import torch

from distill3d.data.render.cameras import clearance
from distill3d.data.render.caster import cast_depth, render
from distill3d.data.render.rooms import random_room, room_cameras

SEEDS = range(6)


def test_a_seed_gives_one_room_and_another_seed_another():
    first, again, other = random_room(3).scene, random_room(3).scene, random_room(4).scene
    assert torch.equal(first.world_from_local, again.world_from_local)
    assert torch.equal(first.colours, again.colours)
    assert first.kind.shape != other.kind.shape or not torch.equal(first.world_from_local, other.world_from_local)


def test_the_same_seed_takes_the_same_pictures():
    room = random_room(1)
    pictures = []
    for _ in range(2):
        poses, intrinsics = room_cameras(room, 2, (28, 28), 1)
        pictures.append(render(room.scene, poses[None], intrinsics[None], (28, 28)))
    assert torch.equal(pictures[0].images, pictures[1].images)
    assert torch.equal(pictures[0].depth, pictures[1].depth)


@pytest.mark.parametrize("seed", SEEDS)
def test_cameras_stand_in_free_air_and_see_the_room(seed):
    room = random_room(seed)
    poses, intrinsics = room_cameras(room, 6, (28, 28), seed)
    assert (clearance(room.scene, poses[:, :3, 3]) > 0.25).all()
    depth = cast_depth(room.scene, poses[None], intrinsics[None], (28, 28))[0].flatten(1)
    assert (depth > 0).float().mean() > 0.7
    assert (torch.where(depth > 0, depth, 9.0).amin(dim=1) > 0.3).all()
    assert depth.max() < 12


@pytest.mark.parametrize("seed", SEEDS)
def test_views_of_a_room_overlap(seed):
    room = random_room(seed)
    poses, _ = room_cameras(room, 6, (28, 28), seed)
    forward = poses[:, :3, 2]
    toward_focus = torch.nn.functional.normalize(torch.tensor(room.focus) - poses[:, :3, 3], dim=1)
    assert ((forward * toward_focus).sum(dim=1) > 0.5).float().mean() >= 0.5


def test_rooms_vary_in_size_colour_and_furniture():
    rooms = [random_room(seed) for seed in range(12)]
    assert len({room.high for room in rooms}) == 12
    assert len({room.scene.kind.shape[1] for room in rooms}) > 6
    walls_and_furniture = torch.stack([room.scene.colours[0].mean(dim=(0, 1)) for room in rooms])
    assert (walls_and_furniture.std(dim=0) > 0.02).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_furniture_stays_inside_the_walls(seed):
    room = random_room(seed)
    centres = room.scene.world_from_local[0, :, :, 3]
    low, high = torch.tensor(room.low), torch.tensor(room.high)
    assert (centres >= low - 0.11).all()
    assert (centres <= high + 0.11).all()
