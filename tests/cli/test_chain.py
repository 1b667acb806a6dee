"""Every verb on a place rendered for the test, each from what the one before it left on the disk."""

import json

import numpy as np
import pytest
from PIL import Image

from distill3d import models
from distill3d.cache import CacheReader
from distill3d.checkpoints import read_info
from tests.cli.calls import SIZE, call, save_fresh_student, succeed


def test_the_manifest_lists_every_rendered_photo_with_its_truth(chain):
    said = chain.said["manifest"]
    assert said["frames"] == said["with_depth"] == said["with_poses"] == 18
    assert said["splits"] == {"test": 6, "train": 12}
    assert said["skipped"] == []
    assert succeed("manifest", "check", chain.manifest)["frames"] == 18


def test_the_cache_holds_the_groups_that_were_asked_for(chain):
    assert chain.said["cache"]["written"] == 4
    assert chain.said["cache"]["failed"] == 0
    assert len(CacheReader(chain.cache)) == 4
    shown = succeed("cache", "show", chain.cache)
    assert shown["header"]["teacher"] == "ground-truth"
    assert succeed("cache", "check", chain.cache)["damaged"] == 0


def test_training_leaves_a_student_that_says_where_it_comes_from(chain):
    assert chain.said["train"]["steps"] == 4
    assert np.isfinite(chain.said["train"]["loss"])
    info = read_info(chain.run)
    assert info.meta["teacher"] == "ground-truth"
    assert info.meta["cache"]["image_fit"]["long_side"] == SIZE


def test_the_evaluation_scores_student_teacher_and_two_baselines(chain):
    scores = chain.said["evaluate"]["scores"]
    assert chain.said["evaluate"]["order"] == ["student", "teacher", "mean pointmap", "constant depth"]
    assert all(np.isfinite(row["depth_rel"]) for row in scores.values())
    assert scores["teacher"]["rotation_deg"] < 0.1  # the noise is along the rays
    assert scores["teacher"]["depth_rel"] < scores["constant depth"]["depth_rel"]
    stored = json.loads((chain.evaluation / "scores.json").read_text())
    assert stored["methods"]["student"]["values"]["depth_rel"] == scores["student"]["depth_rel"]
    assert "| student |" in (chain.evaluation / "scores.md").read_text()


def test_the_table_for_people_has_a_column_per_method(chain, tmp_path):
    words = ("--groups", 2, "--views", 2, "--train-groups", 0, "--out", tmp_path)
    called = call("evaluate", "--model", chain.run, "--manifest", chain.manifest, *words)
    assert called.code == 0
    head, *rows = called.out.splitlines()
    assert head.split() == ["student"]
    assert rows[0].startswith("Rel ↓")
    assert "2 held-out groups" in called.out


def test_reconstruct_writes_every_format_at_the_size_of_the_training(chain):
    said = chain.said["reconstruct"]
    assert said["size"] == [SIZE, SIZE]  # nobody said so on the command line: the weights do
    assert len(said["views"]) == 18
    assert said["num_points"] > 0
    assert sorted(path.name for path in chain.reconstruction.iterdir()) == [
        "cameras.json", "depth", "info.json", "points.glb", "points.ply",
    ]  # fmt: skip
    cameras = json.loads((chain.reconstruction / "cameras.json").read_text())["cameras"]
    assert cameras[0]["source"]["height"] == SIZE
    assert np.isfinite([camera["world_from_camera"] for camera in cameras]).all()


def test_reconstruct_compares_with_known_cameras_without_using_them(chain, tmp_path):
    errors = chain.said["reconstruct"]["errors_against_known_cameras"]
    assert errors["num_pairs"] == 18 * 17 / 2
    assert 0 < errors["rotation_median_deg"] <= errors["rotation_max_deg"] <= 180
    assert len(errors["rotation_to_view_0_deg"]) == 17
    # The same photos without their scene.json: the same cameras, and nothing to compare with.
    said = succeed("reconstruct", chain.scene / "images", "--model", chain.run, "--out", tmp_path / "out")
    assert said["errors_against_known_cameras"] is None
    first, second = (
        json.loads((folder / "cameras.json").read_text())["cameras"]
        for folder in (chain.reconstruction, tmp_path / "out")
    )
    assert [camera["world_from_camera"] for camera in first] == [camera["world_from_camera"] for camera in second]


def test_few_formats_few_views_and_another_size_can_be_asked_for(chain, tmp_path):
    words = ("--max-views", 3, "--long-side", 28, "--formats", "ply", "png", "--mode", "crop", "--percentile", 50)
    said = succeed("reconstruct", chain.scene, "--model", chain.run, "--out", tmp_path / "out", *words)
    assert len(said["views"]) == 3
    assert said["size"] == [28, 28]
    assert sorted(said["files"]) == ["depth", "ply"]
    assert sorted(path.suffix for path in (tmp_path / "out" / "depth").iterdir()) == [".json", ".png", ".png", ".png"]
    assert said["num_points"] <= 3 * 28 * 28 / 2 + 1


def test_windows_and_chunks_bound_the_memory(chain, tmp_path):
    words = ("--window", 6, "--head-chunk", 2, "--formats", "info")
    said = succeed("reconstruct", chain.scene, "--model", chain.run, "--out", tmp_path / "out", *words)
    info = json.loads((tmp_path / "out" / "info.json").read_text())["reconstruction"]
    assert len(said["views"]) == 18
    assert len(info["windows"]) > 1
    assert max(map(len, info["windows"])) <= 6


def test_portrait_and_landscape_photos_share_one_canvas(chain, tmp_path):
    (tmp_path / "photos").mkdir()
    generator = np.random.default_rng(0)
    for number, (height, width) in enumerate([(40, 80), (80, 40), (64, 64)]):
        pixels = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    said = succeed("reconstruct", tmp_path / "photos", "--model", chain.run, "--out", tmp_path / "out")
    assert said["size"] == [SIZE, SIZE]
    cameras = json.loads((tmp_path / "out" / "cameras.json").read_text())["cameras"]
    assert [(camera["source"]["height"], camera["source"]["width"]) for camera in cameras] == [
        (40, 80),
        (80, 40),
        (64, 64),
    ]


def test_weights_may_be_named_apart_from_the_architecture(chain, tmp_path):
    weights = save_fresh_student(tmp_path / "fresh.safetensors")
    words = ("--model", "distill3r", "--weights", weights, "--formats", "info", "--max-views", 2)
    said = succeed("reconstruct", chain.scene, *words, "--out", tmp_path / "out")
    assert said["network"]["licence"] == "CC0-1.0"
    assert said["network"]["name"] == "fresh"


def test_a_network_that_ships_with_the_package_is_a_model(chain, tmp_path):
    if call("models", "show", "place").code == 2:
        pytest.skip("the weights of the place teacher are not part of this checkout")
    words = ("--model", "place", "--formats", "info", "--max-views", 2, "--long-side", SIZE)
    assert succeed("reconstruct", chain.scene, *words, "--out", tmp_path / "out")["network"]["name"] == "place"


def test_models_list_counts_the_papers_parameters(monkeypatch):
    monkeypatch.setattr(models, "names", lambda: ["distill3r"])  # the large ones of the zoo take seconds
    found = {model["name"]: model for model in succeed("models", "list")["models"]}
    assert found["distill3r"]["variants"]["paper"] == 71_969_288
    assert found["distill3r"]["licences"]["DUNE encoder"]["commercial_use"] is False
    assert found["distill3r"]["licences"]["DINOv2 encoder"]["commercial_use"] is True


def test_models_show_tells_settings_of_a_variant_and_the_history_of_a_run(chain):
    assert succeed("models", "show", "distill3r", "--variant", "demo")["settings"]["encoder_dim"] == 96
    shown = call("models", "show", chain.run).out
    assert "labels of teacher ground-truth" in shown
    assert f"long_side {SIZE}" in shown
