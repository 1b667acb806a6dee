"""The loss of refining: what it ignores, what it pulls to, and what it compares."""

import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.losses.config import RefineLossConfig
from distill3d.losses.refine import align_depth, confident_mean, depth_distillation, pointmap_replay

PLAIN = RefineLossConfig(confidence_lambda=0.0)


def scene(seed=0):
    """A teacher's points, and a network's depth near them."""
    generator = torch.Generator().manual_seed(seed)
    depth = 1 + torch.rand(2, 1, 8, 10, generator=generator)
    rays = torch.cat([torch.randn(2, 1, 8, 10, 2, generator=generator) * 0.3, torch.ones(2, 1, 8, 10, 1)], dim=-1)
    guess = depth * (1 + 0.1 * torch.randn(depth.shape, generator=generator))
    return rays * depth[..., None], guess, torch.ones(depth.shape, dtype=torch.bool)


@pytest.mark.parametrize(
    ("align", "change", "free"),
    [
        ("scale", lambda depth: 3 * depth, True),
        ("scale", lambda depth: depth + 1, False),
        ("scale_shift", lambda depth: 3 * depth + 1, True),
        ("none", lambda depth: 3 * depth, False),
    ],
)
def test_an_alignment_forgives_exactly_what_it_says(align, change, free):
    teacher, guess, valid = scene()
    config = RefineLossConfig(align=align)
    losses = [depth_distillation(side, None, teacher, valid, config).total for side in (guess, change(guess))]
    assert torch.allclose(*losses, rtol=1e-4) == free


def test_the_gradient_has_no_part_that_only_changes_the_scale():
    teacher, guess, valid = scene()
    guess.requires_grad_()
    depth_distillation(guess, None, teacher, valid, PLAIN).total.backward()
    along = (guess.grad * guess.detach()).sum(dim=(2, 3))
    assert along.abs().max() < 1e-6 * guess.grad.abs().sum()


@pytest.mark.parametrize("error", ["squared", "distance"])
@pytest.mark.parametrize("align", ["scale", "scale_shift", "none"])
def test_a_perfect_depth_costs_nothing_and_has_a_finite_gradient(align, error):
    teacher, _, valid = scene()
    guess = teacher[..., 2].clone().requires_grad_()
    config = RefineLossConfig(align=align, error=error, gradient_weight=1.0, normal_weight=1.0)
    found = depth_distillation(guess, None, teacher, valid, config)
    found.total.backward()
    assert found.total.item() == pytest.approx(0, abs=1e-5)
    assert set(found.terms) == {"depth", "gradient", "normal"}
    assert guess.grad.isfinite().all()


def test_sky_and_nan_outside_the_mask_change_nothing():
    teacher, guess, valid = scene()
    valid[:, :, :3] = False
    confidence = torch.full_like(guess, 2.0)
    config = RefineLossConfig(gradient_weight=0.5, normal_weight=0.5)
    found = []
    for fill in (0.0, torch.nan, -5.0):
        teacher, depth, beta = (torch.where(mask, side, fill) for side, mask in (
            (teacher, valid[..., None]), (guess, valid), (confidence, valid)))  # fmt: skip
        depth = depth.clone().requires_grad_()
        total = depth_distillation(depth, beta, teacher, valid, config).total
        total.backward()
        found.append((total.detach(), depth.grad))
    for total, gradient in found[1:]:
        assert torch.equal(total, found[0][0])
        assert torch.equal(gradient, found[0][1])


def test_without_a_valid_pixel_the_loss_and_its_gradient_are_0():
    teacher, guess, valid = scene()
    guess.requires_grad_()
    found = depth_distillation(guess, torch.ones_like(guess), teacher, ~valid, RefineLossConfig())
    found.total.backward()
    assert found.total == 0
    assert (guess.grad == 0).all()


def test_the_best_confidence_is_lambda_over_the_error():
    error = torch.tensor([0.1, 0.5]).view(1, 1, 1, 2)
    valid = torch.ones_like(error, dtype=torch.bool)
    beta = (0.2 / error).requires_grad_()
    confident_mean(error, beta, valid, 0.2).backward()
    assert beta.grad.abs().max() < 1e-6


def test_the_values_are_those_of_the_formula():
    teacher = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 3.0]]).view(1, 1, 1, 2, 3)
    depth, beta = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2), torch.tensor([2.0, 4.0]).view(1, 1, 1, 2)
    valid = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    found = depth_distillation(depth, beta, teacher, valid, RefineLossConfig(align="none"))
    # In units of the teacher's mean depth, 2: errors 0 and 1/2.
    expected = (2 * 0.0 - 0.2 * torch.tensor(2.0).log() + 4 * 0.25 - 0.2 * torch.tensor(4.0).log()) / 2
    assert found.total.item() == pytest.approx(expected.item())


def test_replayed_points_forget_the_scale_unless_told_otherwise():
    teacher, _, valid = scene()
    for normalise in (True, False):
        config = RefineLossConfig(confidence_lambda=0.0, normalise_replay=normalise)
        loss = pointmap_replay(2 * teacher, None, teacher, valid, config)
        assert (loss.item() < 1e-8) == normalise


def test_aligned_depth_is_nearest_in_least_squares():
    teacher, guess, valid = scene()
    truth = teacher[..., 2]
    for method in ("scale", "scale_shift"):
        best = (align_depth(guess, truth, valid, method) - truth).square().sum()
        for other in (1.01, 0.99):
            assert best < (other * align_depth(guess, truth, valid, method) - truth).square().sum()


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"loss.replay_weight is -1"):
        RefineLossConfig(replay_weight=-1)
