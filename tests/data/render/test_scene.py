import torch

from distill3d.data.render.primitives import EMPTY
from distill3d.data.render.scene import Material, SceneBuilder, stack_scenes

GREY = Material(colours=((0.5, 0.5, 0.5),))


def finished(build):
    build.light((0, 0, 3), (1, 1, 1))
    build.room((0, 0, 0), (1, 1, 1))
    return build.build(ambient=(0.3, 0.3, 0.3), ambient_direction=(0, 0, 0), sky=((1, 1, 1), (0, 0, 1)))


def test_nested_frames_place_primitives_in_the_world():
    build = SceneBuilder()
    with build.at(2, 3, 1, 90), build.at(1, 0):
        build.box((0.5, 0, 0), (0.2, 0.4, 0.6), GREY)
    scene = finished(build)
    # Turned by 90 degrees the local x axis is the world's y axis.
    assert torch.allclose(scene.world_from_local[0, 0, :, 3], torch.tensor([2.0, 4.5, 1.0]), atol=1e-6)
    assert torch.allclose(scene.world_from_local[0, 0, :, 0], torch.tensor([0.0, 0.1, 0.0]), atol=1e-6)


def test_local_from_world_undoes_world_from_local():
    build = SceneBuilder()
    build.ball((1, 2, 3), (0.3, 1.0, 0.02), GREY, yaw_deg=33, tilt_deg=70)
    scene = finished(build)
    forward, back = scene.world_from_local[0, 0], scene.local_from_world[0, 0]
    point = torch.tensor([0.2, -0.5, 0.9])
    world = forward[:, :3] @ point + forward[:, 3]
    assert torch.allclose(back[:, :3] @ world + back[:, 3], point, atol=1e-5)


def test_stacking_pads_with_primitives_that_are_not_there():
    builders = [SceneBuilder(), SceneBuilder()]
    builders[0].box((0, 0, 0), (1, 1, 1), GREY)
    for _ in range(3):
        builders[1].box((0, 0, 0), (1, 1, 1), GREY)
    stacked = stack_scenes([finished(build) for build in builders])
    assert len(stacked) == 2
    assert (stacked.kind[0, 1:] == EMPTY).all()
    assert (stacked.kind[1] != EMPTY).all()
    assert len(stacked[1:]) == 1
