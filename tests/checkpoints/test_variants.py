import pytest
import torch

import distill3d
from distill3d import checkpoints, models
from distill3d.errors import CheckpointError

SPEC = models.get("moge")


@pytest.mark.parametrize("variant", ["tiny1", "tiny2"])
def test_official_weights_say_which_variant_they_are_of(tmp_path, variant):
    model = SPEC.build(SPEC.variants[variant])
    file = tmp_path / "model.pt"
    torch.save({"model_config": {"remap_output": "exp"}, "model": checkpoints.to_official(model, SPEC)}, file)
    loaded = distill3d.load_model("moge", weights=file)
    assert loaded.config == SPEC.variants[variant]
    assert checkpoints.weights_hash(loaded) == checkpoints.weights_hash(model)


def test_every_published_size_is_known_by_its_shapes():
    for name, config in SPEC.variants.items():
        with torch.device("meta"):
            weights = checkpoints.to_official(SPEC.build(config), SPEC)
        assert checkpoints.fitting_variant(SPEC, weights, source="meta") == name


def test_weights_that_fit_nothing_are_compared_with_the_default(tmp_path):
    file = tmp_path / "model.pt"
    torch.save({"model": {"stem.weight": torch.zeros(3)}}, file)
    with pytest.raises(CheckpointError, match=r"model.pt does not fit .*1 left over \['stem.weight'\]"):
        distill3d.load_model("pi3", weights=file, variant="tiny")
    weights = {"stem.weight": torch.zeros(3)}
    assert checkpoints.fitting_variant(models.get("pi3"), weights, source="x") == "pi3"
