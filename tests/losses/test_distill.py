import dataclasses

import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.losses import DistillLossConfig, distill_loss
from distill3d.types import Prediction
from tests.losses.helpers import MAPS, gradients, near, partial_mask, scene, spoiled

EVERYTHING = DistillLossConfig(pose_weight=0.1, gradient_weight=0.1, normal_weight=0.1)
CONFIGS = {
    "paper": DistillLossConfig(),
    "reference": DistillLossConfig(weight_form="clamped", reduction="views"),
    "student": DistillLossConfig(weight_by="student", weight_form="balanced", confidence_term="log_l1"),
    "likelihood": DistillLossConfig(weight_by="none", confidence_term="likelihood", error="distance"),
    "everything": EVERYTHING,
}


def full(target):
    return torch.ones(target.pointmap_world.shape[:-1], dtype=torch.bool)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_nan_outside_the_mask_changes_nothing(config):
    target = scene()
    valid = partial_mask(full(target).shape)
    found = []
    for spoil in (False, True):
        student = near(target)
        teacher = target
        if spoil:
            student, teacher = spoiled(student, valid), spoiled(target, valid)
        loss = distill_loss(student, teacher, valid, config)
        loss.total.backward()
        found.append((loss.total, gradients(student)))
    assert torch.isfinite(found[0][0])
    torch.testing.assert_close(found[1][0], found[0][0])
    for name in MAPS:
        inside = found[1][1][name][valid]
        assert torch.isfinite(inside).all()
        torch.testing.assert_close(inside, found[0][1][name][valid])
        assert not found[1][1][name][~valid].any()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_an_empty_mask_gives_zero_and_zero_gradients(config):
    target = scene()
    student = near(target)
    loss = distill_loss(student, target, ~full(target), config)
    loss.total.backward()
    assert loss.total.item() == 0
    assert all(term.item() == 0 for term in loss.terms.values())
    assert not any(gradient.any() for gradient in gradients(student).values())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_single_pixel_gives_finite_gradients(config):
    target = scene()
    student, valid = near(target), ~full(target)
    valid[0, 1, 2, 3] = True
    distill_loss(student, target, valid, config).total.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(student).values())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_perfect_student_has_no_error_and_finite_gradients(config):
    target = scene()
    student = Prediction(**{name: getattr(target, name).clone().requires_grad_() for name in MAPS})
    loss = distill_loss(student, target, full(target), config)
    loss.total.backward()
    for name, term in loss.terms.items():
        if not (name == "confidence" and config.confidence_term == "likelihood"):
            assert term.abs().item() < 1e-5, name
    assert all(torch.isfinite(gradient).all() for gradient in gradients(student).values())


def test_one_scale_of_the_world_and_one_of_each_camera_map_are_free():
    target = scene()
    base = distill_loss(near(target), target, full(target), DistillLossConfig())
    student = near(target)
    scaled = dataclasses.replace(
        student,
        pointmap_world=student.pointmap_world * torch.tensor([3.0, 0.2]).view(2, 1, 1, 1, 1),
        pointmap_camera=student.pointmap_camera * (1 + torch.rand(2, 3, 1, 1, 1)),
    )
    found = distill_loss(scaled, target, full(target), DistillLossConfig())
    torch.testing.assert_close(found.total, base.total)
    # Views of one world share their scale.
    torn = dataclasses.replace(
        student, pointmap_world=student.pointmap_world * torch.tensor([1.0, 1, 3]).view(1, 3, 1, 1, 1)
    )
    assert distill_loss(torn, target, full(target), DistillLossConfig()).terms["global"] > 2 * base.terms["global"]


def test_without_normalisation_the_teacher_s_scale_counts():
    target = scene()
    doubled = dataclasses.replace(target, pointmap_world=2 * target.pointmap_world)
    config = DistillLossConfig(normalise=False, weight_by="none")
    found = distill_loss(doubled, target, full(target), config).terms["global"]
    torch.testing.assert_close(found, target.pointmap_world.square().sum(dim=-1).mean())


# --- ablations are settings


def test_uniform_weights_are_those_of_a_constant_confidence():
    target = scene()
    constant = dataclasses.replace(target, confidence_world=torch.ones_like(target.confidence_world),
                                   confidence_camera=torch.ones_like(target.confidence_camera))  # fmt: skip
    config = DistillLossConfig(confidence_term="none")
    weighted = distill_loss(near(target), constant, full(target), config)
    uniform = distill_loss(near(target), target, full(target), dataclasses.replace(config, weight_by="none"))
    torch.testing.assert_close(weighted.total, uniform.total)


def test_the_teacher_s_doubt_takes_pixels_out():
    target = scene()
    student = near(target, size=0.0)
    with torch.no_grad():
        student.pointmap_world[:, 1, :3] += 1.0
    doubting = target.confidence_world.clone()
    doubting[:, 1, :3] = 1.0
    doubting[:, 1, 3:] = 50.0
    sure = doubting.flip(2)
    errors = [
        distill_loss(
            student, dataclasses.replace(target, confidence_world=confidence), full(target), DistillLossConfig()
        )
        for confidence in (doubting, sure)
    ]
    assert errors[0].terms["global"] < 0.2 * errors[1].terms["global"]


def test_the_student_s_own_confidence_weighs_without_a_gradient():
    target, student = scene(), near(scene())
    config = DistillLossConfig(weight_by="student", confidence_term="none")
    loss = distill_loss(student, target, full(target), config)
    loss.total.backward()
    assert student.confidence_world.grad is None
    assert student.pointmap_world.grad.abs().max() > 0
    assert set(loss.terms) == {"global", "local"}


def test_a_confidence_term_of_its_own_can_be_switched_off_or_taken_in_logarithms():
    target, student = scene(), near(scene())
    plain = distill_loss(student, target, full(target), DistillLossConfig()).terms["confidence"]
    logs = distill_loss(student, target, full(target), DistillLossConfig(confidence_term="log_l1")).terms["confidence"]
    pairs = [(student.confidence_world, target.confidence_world), (student.confidence_camera, target.confidence_camera)]
    torch.testing.assert_close(plain, torch.stack([(a - b).abs().mean() for a, b in pairs]).mean().detach())
    torch.testing.assert_close(logs, torch.stack([(a.log() - b.log()).abs().mean() for a, b in pairs]).mean().detach())


def test_the_likelihood_moves_only_the_confidence_towards_alpha_over_the_error():
    target = scene()
    student = near(target)
    config = DistillLossConfig(alpha_global=0, alpha_local=0, gamma=1, weight_by="none", confidence_term="likelihood")
    no_confidence = dataclasses.replace(target, confidence_world=None, confidence_camera=None)
    raw = torch.zeros_like(target.confidence_world).requires_grad_()
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        current = dataclasses.replace(student, confidence_world=1 + raw.exp())
        distill_loss(current, no_confidence, full(target), config).total.backward()
        optimiser.step()
    assert student.pointmap_world.grad is None or not student.pointmap_world.grad.any()
    worlds = (student.pointmap_world, target.pointmap_world)
    unit = [points / points.norm(dim=-1).mean(dim=(1, 2, 3), keepdim=True)[..., None] for points in worlds]
    best = (0.2 / (unit[0] - unit[1]).norm(dim=-1)).clamp(min=1).detach()
    found = (1 + raw.exp()).detach()
    assert ((found - best).abs() / best)[best > 1.2].median() < 0.1


def test_balanced_weights_do_not_change_the_size_of_the_loss():
    target = scene()
    config = DistillLossConfig(weight_form="balanced", confidence_term="none")
    larger = dataclasses.replace(target, confidence_world=7 * target.confidence_world)
    found = [distill_loss(near(target), teacher, full(target), config).total for teacher in (target, larger)]
    torch.testing.assert_close(found[0], found[1])


def test_a_mean_of_views_counts_a_small_view_like_a_large_one():
    target = scene(batch=1, views=2)
    student = near(target, size=0.0)
    with torch.no_grad():
        student.pointmap_camera[0, 1, 0, 0] += 1.0
    valid = full(target)
    valid[0, 1] = False
    valid[0, 1, 0, :2] = True  # one good and one bad pixel
    config = DistillLossConfig(weight_by="none")
    pixels, views = (
        distill_loss(student, target, valid, dataclasses.replace(config, reduction=kind)).terms["local"]
        for kind in ("pixels", "views")
    )
    assert views.item() == pytest.approx(pixels.item() * 50 / 2 / 2, rel=1e-4)


def test_terms_and_factors_make_the_total():
    target = scene()
    loss = distill_loss(near(target), target, full(target), EVERYTHING)
    factors = {"global": 2, "local": 1, "confidence": 0.001, "rotation": 0.1, "translation": 0.1}
    factors |= {"gradient": 0.1, "normal": 0.1}
    assert set(loss.terms) == set(factors)
    assert loss.total.item() == pytest.approx(
        sum(factors[name] * loss.terms[name].item() for name in factors), rel=1e-5
    )
    assert not any(term.requires_grad for term in loss.terms.values())


def test_it_is_computed_in_float32_whatever_the_autocast_and_the_maps():
    target = scene()
    student = near(target)
    expected = distill_loss(student, target, full(target), DistillLossConfig()).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distill_loss(student, target, full(target), DistillLossConfig()).total
    assert torch.equal(found, expected)
    halves = Prediction(**{name: getattr(target, name).half() for name in MAPS})
    assert distill_loss(student, halves, full(target), DistillLossConfig()).total.dtype == torch.float32


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ({"pointmap_world": None}, "The teacher gives no world pointmap"),
        ({"confidence_world": None}, "needs the teacher's world confidence"),
    ],
)
def test_maps_that_are_absent_are_named(missing, words):
    target = scene()
    with pytest.raises(ConfigError, match=words):
        distill_loss(near(target), dataclasses.replace(target, **missing), full(target), DistillLossConfig())


def test_a_map_whose_factor_is_zero_may_be_absent():
    target = dataclasses.replace(scene(), pointmap_world=None, confidence_world=None)
    loss = distill_loss(near(scene()), target, full(scene()), DistillLossConfig(alpha_global=0))
    assert set(loss.terms) == {"local", "confidence"}


@pytest.mark.parametrize("changes", [{"alpha_local": -1}, {"gamma": float("nan")}, {"clamp_at": 0}])
def test_impossible_factors_are_refused(changes):
    with pytest.raises(ConfigError, match=f"loss.{next(iter(changes))}"):
        DistillLossConfig(**changes)
