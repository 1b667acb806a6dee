import torch

from distill3d.data.render.shade import display, soften


def test_the_display_curve_rises_and_stays_in_range():
    shown = display(torch.linspace(0, 20, 1000))
    assert (shown.diff() >= 0).all()
    assert shown.min() == 0
    assert shown.max() <= 1


def test_soft_rims_blur_within_a_primitive_and_stop_at_its_edge():
    visible = torch.zeros(1, 8, 8)
    visible[:, :, 4:] = 1.0
    one, two = torch.zeros(1, 8, 8, dtype=torch.int64), torch.zeros(1, 8, 8, dtype=torch.int64)
    two[:, :, 4:] = 1
    assert 0 < soften(visible, one, 1)[0, 4, 4] < 1
    assert torch.equal(soften(visible, two, 2), visible)
