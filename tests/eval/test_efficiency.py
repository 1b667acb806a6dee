import pytest
import torch
from torch import nn

from distill3d import models
from distill3d.errors import ConfigError
from distill3d.eval.efficiency import PUBLISHED, Cost, costs_markdown, feature_norm, measure_costs


@pytest.fixture(scope="module")
def student():
    spec = models.get("distill3r")
    torch.manual_seed(0)
    return spec.build(spec.variant("tiny")).eval()


def test_every_number_of_views_is_measured(student):
    costs = measure_costs(student, (1, 3), (28, 28), repeats=1)
    assert [cost.num_views for cost in costs] == [1, 3]
    assert all(cost.seconds is not None and cost.seconds > 0 for cost in costs)
    assert costs[1].peak_gb >= costs[0].peak_gb > 0.01
    for wrong in ((), (3, 1)):
        with pytest.raises(ConfigError, match="ascending"):
            measure_costs(student, wrong, (28, 28))


def test_what_does_not_fit_is_told(student, monkeypatch):
    def full(model, views, **options):
        if views.images.shape[1] > 1:
            raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr("distill3d.eval.efficiency.predict", full)
    costs = measure_costs(student, (1, 2), (28, 28), repeats=1)
    assert costs[1] == Cost(num_views=2, seconds=None, peak_gb=None)


def test_the_table_has_published_rows():
    costs = [Cost(num_views=12, seconds=1.5, peak_gb=2.25), Cost(num_views=96, seconds=None, peak_gb=None)]
    table = costs_markdown("ours", costs, "a card", (378, 518))
    assert "| ours | 1.50 / 2.25 | OOM |" in table
    assert "| *VGGT, published* | 0.59 / 15.28 | OOM |" in table
    assert len(PUBLISHED) == 3


def test_the_norm_of_features_is_that_of_the_encoder(student):
    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    norm = feature_norm(student, images)
    with torch.no_grad():
        caught = []
        handle = student.encoder.register_forward_hook(lambda module, given, output: caught.append(output.patches))
        for image in images:
            student(image[None, None])
        handle.remove()
    assert norm == pytest.approx(float(torch.cat(caught).norm(dim=-1).mean()), rel=1e-5)
    with pytest.raises(ConfigError, match="no part called"):
        feature_norm(nn.Linear(1, 1), images)
