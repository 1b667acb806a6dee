import torch

from distill3d.geometry.poses import look_at
from distill3d.nn.block import Block
from distill3d.nn.initialise import initialise_
from distill3d.nn.pose_attention import camera_frames, inject_poses

GRID, VIEWS, DIM, HEADS = (2, 3), 3, 32, 2
PATCHES = GRID[0] * GRID[1]


def setting(batch=1):
    generator = torch.Generator().manual_seed(8)
    block = Block(DIM, HEADS, layer_scale=1.0, qk_norm_eps=1e-5)
    initialise_(block, "muon", generator)
    tokens = torch.randn(batch, VIEWS * PATCHES, DIM, generator=generator)
    eye = torch.randn(batch, VIEWS, 3, generator=generator)
    pose = look_at(eye, torch.zeros(batch, VIEWS, 3), torch.tensor([0.0, -1.0, 0.0]).expand(batch, VIEWS, 3))
    return block, tokens, pose


def frames(pose, known=None):
    known = torch.ones(pose.shape[:2], dtype=torch.bool) if known is None else torch.tensor(known)
    return camera_frames(pose, known, GRID, DIM // HEADS)


@torch.no_grad()
def test_only_relative_poses_matter():
    block, tokens, pose = setting()
    moved = look_at(torch.tensor([1.0, 2.0, -1.0]), torch.zeros(3), torch.tensor([0.3, -1.0, 0.0])) @ pose
    plain = inject_poses(block, tokens, frames(pose))
    torch.testing.assert_close(inject_poses(block, tokens, frames(moved)), plain, rtol=1e-4, atol=1e-4)
    turned = pose.clone()
    turned[:, 1] = moved[:, 1]
    assert (inject_poses(block, tokens, frames(turned)) - plain).abs().max() > 1e-2


@torch.no_grad()
def test_views_without_a_pose_neither_speak_nor_listen():
    block, tokens, pose = setting()
    known = [[True, False, True]]
    out = inject_poses(block, tokens, frames(pose, known))
    second = slice(PATCHES, 2 * PATCHES)
    assert torch.equal(out[:, second], tokens[:, second])
    other = tokens.clone()
    other[:, second] += 5
    found = inject_poses(block, other, frames(pose, known))
    torch.testing.assert_close(found[:, :PATCHES], out[:, :PATCHES])
    assert (out[:, :PATCHES] - tokens[:, :PATCHES]).abs().max() > 1e-2


def test_a_scene_without_any_pose_stays_as_it_is_with_finite_gradients():
    block, tokens, pose = setting(2)
    tokens.requires_grad_()
    out = inject_poses(block, tokens, frames(pose, [[True] * VIEWS, [False] * VIEWS]))
    assert torch.equal(out[1], tokens[1])
    out.square().sum().backward()
    assert torch.isfinite(tokens.grad).all()
    assert all(torch.isfinite(value.grad).all() for value in block.parameters())
