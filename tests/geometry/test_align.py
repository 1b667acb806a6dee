import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from distill3d.errors import GeometryError
from distill3d.geometry.align import Similarity, align_maps, robust_similarity, umeyama
from tests.geometry.cases import generator, random_rotation, seeds

quick = settings(deadline=None, max_examples=25)
float64 = torch.float64


def random_similarity(rng, *batch):
    return Similarity(
        scale=torch.rand(batch, generator=rng, dtype=float64) * 3 + 0.1,
        rotation=random_rotation(rng, *batch),
        translation=torch.randn(*batch, 3, generator=rng, dtype=float64),
    )


def assert_same(found: Similarity, expected: Similarity, **tolerance):
    for name in ("scale", "rotation", "translation"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **tolerance)


@quick
@given(seeds, st.integers(3, 30))
def test_a_known_similarity_is_found_again(seed, count):
    rng = generator(seed)
    truth = random_similarity(rng, 2, 3)
    source = torch.randn(2, 3, count, 3, generator=rng, dtype=float64)
    weights = torch.rand(2, 3, count, generator=rng, dtype=float64) + 0.1
    assert_same(umeyama(source, truth.apply(source), weights), truth, atol=1e-7, rtol=1e-7)


@quick
@given(seeds)
def test_three_points_and_planar_points_are_enough(seed):
    rng = generator(seed)
    truth = random_similarity(rng)
    source = torch.randn(12, 3, generator=rng, dtype=float64)
    source[:, 2] = 0.7  # a wall
    assert_same(umeyama(source, truth.apply(source)), truth, atol=1e-6, rtol=1e-6)
    # The very flat third direction must not turn the answer into a reflection.
    assert torch.linalg.det(umeyama(source, truth.apply(source)).rotation).item() == pytest.approx(1)


def test_a_mirror_image_is_never_answered_with_a_reflection():
    source = torch.randn(50, 3, generator=generator(0), dtype=float64)
    fit = umeyama(source, source * torch.tensor([1.0, 1.0, -1.0], dtype=float64))
    assert torch.linalg.det(fit.rotation).item() == pytest.approx(1)


def test_similarities_invert_compose_and_have_a_matrix():
    rng = generator(2)
    a, b = random_similarity(rng, 4), random_similarity(rng, 4)
    points = torch.randn(4, 6, 3, generator=rng, dtype=float64)
    torch.testing.assert_close(a.inverse().apply(a.apply(points)), points)
    torch.testing.assert_close(a.compose(b).apply(points), a.apply(b.apply(points)))
    homogeneous = torch.cat([points, torch.ones(4, 6, 1, dtype=float64)], dim=-1)
    torch.testing.assert_close((homogeneous @ a.matrix().mT)[..., :3], a.apply(points))


def test_points_of_weight_zero_may_be_nan_in_value_and_gradient():
    rng = generator(3)
    truth = random_similarity(rng)
    source = torch.randn(10, 3, generator=rng, dtype=float64)
    target = truth.apply(source)
    source[0], target[1] = torch.nan, torch.inf
    weights = torch.ones(10, dtype=float64)
    weights[:2] = 0
    source.requires_grad_()
    fit = umeyama(source, target, weights)
    assert_same(fit, truth)
    (fit.scale + fit.rotation.sum() + fit.translation.sum()).backward()
    assert source.grad is not None
    assert torch.isfinite(source.grad).all()


def test_the_gradient_agrees_with_finite_differences():
    rng = generator(4)
    source = torch.randn(2, 8, 3, generator=rng, dtype=float64, requires_grad=True)
    target = torch.randn(2, 8, 3, generator=rng, dtype=float64, requires_grad=True)
    weights = torch.rand(2, 8, generator=rng, dtype=float64).add(0.5).requires_grad_()

    def fit(x, y, w):
        found = umeyama(x, y, w)
        return found.scale, found.rotation, found.translation

    assert torch.autograd.gradcheck(fit, (source, target, weights))


DEGENERATE = {
    "two points": torch.tensor([[0.0, 0, 0], [1, 2, 3]]),
    "one point": torch.tensor([[1.0, 2, 3]]),
    "a line": torch.arange(10.0)[:, None] * torch.tensor([1.0, 2.0, -1.0]) + 100,
    "all equal": torch.full((9, 3), 5.0),
    "almost equal": torch.full((9, 3), 1000.0) + 1e-5 * torch.randn(9, 3, generator=generator(6)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_points_are_refused_in_words(name):
    points = DEGENERATE[name]
    with pytest.raises(GeometryError, match="not on a line"):
        umeyama(points, 2 * points + 1)


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_points_may_be_answered_without_a_rotation(name):
    points = DEGENERATE[name].clone().requires_grad_()
    fit = umeyama(points, 2 * points.detach() + 1, degenerate="identity")
    assert fit.determined is not None
    assert not bool(fit.determined)
    assert torch.equal(fit.rotation, torch.eye(3))
    mean = points.detach().mean(dim=0, keepdim=True)
    torch.testing.assert_close(fit.apply(mean).detach(), 2 * mean + 1)
    (fit.scale + fit.translation.sum()).backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()


def test_scale_is_still_fitted_to_a_line():
    points = DEGENERATE["a line"].double()
    assert umeyama(points, 2 * points + 1, degenerate="identity").scale.item() == pytest.approx(2)


def test_one_degenerate_entry_leaves_the_others_of_the_batch_alone():
    rng = generator(8)
    truth = random_similarity(rng, 2)
    source = torch.randn(2, 9, 3, generator=rng, dtype=float64)
    source[1] = 1.0
    fit = umeyama(source, truth.apply(source), degenerate="identity")
    assert fit.determined is not None
    assert fit.determined.tolist() == [True, False]
    torch.testing.assert_close(fit.rotation[0], truth.rotation[0])


def test_no_weight_at_all_is_the_identity_or_an_error():
    points = torch.randn(5, 3, generator=generator(9))
    with pytest.raises(GeometryError, match="0 points with weight"):
        umeyama(points, points, torch.zeros(5))
    fit = umeyama(points, points, torch.zeros(5), degenerate="identity")
    assert fit.scale.item() == 1
    assert fit.translation.tolist() == [0, 0, 0]


def test_float32_far_from_the_origin_keeps_its_precision():
    rng = generator(10)
    source = torch.randn(500, 3, generator=rng) + 1000
    rotation = random_rotation(rng, dtype=torch.float32)
    fit = umeyama(source, source @ rotation.T)
    torch.testing.assert_close(fit.rotation, rotation, atol=1e-5, rtol=0)


def test_without_scale_the_scale_is_one():
    rng = generator(11)
    source = torch.randn(20, 3, generator=rng, dtype=float64)
    fit = umeyama(source, 3 * source, with_scale=False)
    assert fit.scale.item() == 1
    torch.testing.assert_close(fit.rotation, torch.eye(3, dtype=float64))


@quick
@given(seeds)
def test_forty_percent_wrong_points_do_not_spoil_a_robust_fit(seed):
    rng = generator(seed)
    truth = random_similarity(rng)
    source = torch.randn(200, 3, generator=rng, dtype=float64)
    target = truth.apply(source)
    target[:80] += 5 * torch.randn(80, 3, generator=rng, dtype=float64)
    fit = robust_similarity(source, target, iterations=20)
    assert_same(fit, truth, atol=1e-6, rtol=1e-6)


def test_a_robust_fit_of_many_points_finds_the_few_that_count():
    rng = generator(20)
    truth = random_similarity(rng, 2)
    source = torch.randn(2, 9000, 3, generator=rng, dtype=float64)
    target = truth.apply(source)
    target[:, ::10] += torch.randn(2, 900, 3, generator=rng, dtype=float64)
    weights = torch.zeros(2, 9000, dtype=float64)
    weights[0], weights[1, 4000:4030] = 1, 1
    target[1, :4000] = torch.nan
    assert_same(robust_similarity(source, target, weights, max_points=500), truth, atol=1e-6, rtol=1e-6)


def test_a_robust_fit_of_noisy_points_is_nearly_the_least_squares_fit():
    rng = generator(12)
    truth = random_similarity(rng, 3)
    source = torch.randn(3, 400, 3, generator=rng, dtype=float64)
    noisy = truth.apply(source) + 0.01 * torch.randn(3, 400, 3, generator=rng, dtype=float64)
    assert_same(robust_similarity(source, noisy), truth, atol=5e-3, rtol=5e-3)


def test_maps_are_aligned_view_by_view_and_bad_pixels_are_left_out():
    rng = generator(13)
    truth = random_similarity(rng, 2, 3)
    local = torch.randn(2, 3, 4, 5, 3, generator=rng, dtype=float64)
    world = truth.apply(local.flatten(2, 3)).reshape(local.shape)
    local[0, 0, 0, 0], world[0, 1, 1, 1] = torch.nan, torch.inf
    world[1, 2, 0] = 50.0
    valid = torch.ones(2, 3, 4, 5, dtype=torch.bool)
    valid[1, 2, 0] = False
    assert_same(align_maps(local, world, None, valid), truth)
    assert_same(align_maps(local, world, torch.rand(2, 3, 4, 5, generator=rng, dtype=float64) + 1, valid), truth)


def test_the_weighted_registration_equals_the_recording(fixtures):
    recorded = load_file(fixtures / "geometry" / "recordings.safetensors")
    case = {key.split("/")[1]: value for key, value in recorded.items() if key.startswith("rigid_registration")}
    fit = umeyama(case["src"], case["tgt"], case["weights"].float())
    torch.testing.assert_close(fit.scale, case["out_scale"][0], atol=1e-4, rtol=0)
    torch.testing.assert_close(fit.rotation, case["out_R"], atol=1e-4, rtol=0)
    torch.testing.assert_close(fit.translation, case["out_t"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("percentile", [0, 85])
def test_local_maps_aligned_to_world_maps_equal_the_recording(fixtures, percentile):
    recorded = load_file(fixtures / "geometry" / "recordings.safetensors")

    def views(name):
        return torch.stack([recorded[f"pose.view{view}.{name}"] for view in range(3)], dim=1)

    local, confidence = views("pts3d_local"), views("conf")
    level = torch.quantile(confidence.flatten(2), percentile / 100, dim=-1)[..., None, None]
    fit = align_maps(local, views("pts3d_in_other_view"), None, confidence >= level)
    aligned = fit.apply(local.flatten(2, 3)).reshape(local.shape)[:, :, ::4, ::4]
    for view in range(3):
        expected = recorded[f"align{percentile}.view{view}"]
        torch.testing.assert_close(aligned[:, view], expected, atol=1e-5, rtol=1e-5)
