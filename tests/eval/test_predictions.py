import pytest
import torch

from distill3d.data.fit import ImageFit
from distill3d.errors import ConfigError, DataError
from distill3d.eval.predictions import (
    load_prediction,
    predict_heldout,
    predict_with_truth,
    prediction_path,
    read_settings,
    save_prediction,
)
from distill3d.types import Prediction
from tests.eval.annotated import FIT, GROUPS, exact, write_scenes


@pytest.fixture
def manifest(tmp_path):
    return write_scenes(tmp_path / "scenes")


def test_a_prediction_round_trips(tmp_path):
    prediction = Prediction(
        pointmap_world=torch.randn(1, 2, 3, 4, 3),
        valid=torch.ones(1, 2, 3, 4, dtype=torch.bool),
        depth=torch.ones(1, 2, 3, 4),
    )
    save_prediction(tmp_path / "p.safetensors", prediction)
    found = load_prediction(tmp_path / "p.safetensors")
    assert torch.equal(found.pointmap_world, prediction.pointmap_world)
    assert found.valid is not None
    assert found.valid.dtype == torch.bool
    assert found.pointmap_camera is None


def test_a_second_run_goes_on_where_the_first_was_stopped(manifest, tmp_path):
    seen = []

    def stops(views):
        seen.append(views.images.shape[1])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return exact(views)

    with pytest.raises(KeyboardInterrupt):
        predict_heldout(stops, manifest, GROUPS, FIT, tmp_path / "p")
    summary = predict_heldout(stops, manifest, GROUPS, FIT, tmp_path / "p")
    assert (summary.written, summary.present) == (2, 1)
    assert seen == [3, 4, 4, 2]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == sorted(
        ["settings.json", *(prediction_path(tmp_path, group).name for group in GROUPS)]
    )


def test_methods_see_nothing_but_the_photos_unless_they_are_made_from_the_truth(manifest, tmp_path):
    def look(views):
        assert views.depth is None
        assert views.world_from_camera is None
        assert views.intrinsics is None
        return exact(views)

    predict_heldout(look, manifest, GROUPS[:1], FIT, tmp_path / "blind")

    def copy(views):
        return Prediction(depth=views.depth, intrinsics=views.intrinsics, world_from_camera=views.world_from_camera)

    predict_with_truth(copy, manifest, GROUPS[:1], FIT, tmp_path / "truth")
    assert load_prediction(prediction_path(tmp_path / "truth", GROUPS[0])).depth is not None


def test_other_settings_are_not_mixed_into_a_folder(manifest, tmp_path):
    predict_heldout(exact, manifest, GROUPS[:1], FIT, tmp_path / "p", settings={"weights": "a"})
    with pytest.raises(ConfigError, match=r"method.weights: a there, b now"):
        predict_heldout(exact, manifest, GROUPS, FIT, tmp_path / "p", settings={"weights": "b"})
    with pytest.raises(ConfigError, match="fit"):
        predict_heldout(exact, manifest, GROUPS, ImageFit(long_side=32), tmp_path / "p", settings={"weights": "a"})


def test_a_group_that_cannot_be_read_is_skipped_and_listed(manifest, tmp_path):
    (tmp_path / "scenes" / "known" / "images" / "000003.png").write_bytes(b"broken")
    summary = predict_heldout(exact, manifest, GROUPS, FIT, tmp_path / "p")
    assert [key for key, _ in summary.skipped] == [GROUPS[0].key]
    assert "000003.png" in summary.skipped[0][1]
    assert summary.written == 2


def test_a_folder_without_predictions_and_a_damaged_file_are_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no predictions"):
        read_settings(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"x\.safetensors"):
        load_prediction(tmp_path / "x.safetensors")
