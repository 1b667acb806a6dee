import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distill3d.cache import CacheReader
from distill3d.checkpoints import load_saved
from distill3d.errors import CheckpointError, ConfigError, OutputError
from distill3d.train import distil
from distill3d.train.config import OptimConfig, SamplingConfig, ValidationConfig
from distill3d.train.distil import train
from distill3d.train.logs import read_metrics
from distill3d.train.samples import CacheDataset
from distill3d.train.students import build_student, start_at_mean
from tests.train.helpers import make_cache, run_two_processes, tiny_config
from tests.train.run_tiny import config_from

SCRIPT = Path(__file__).parent / "run_tiny.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


def losses(out):
    return [record["loss"] for record in read_metrics(out) if record["kind"] == "train"]


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(cache, tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train(tiny_config(steps=3, seed=seed), cache, tmp_path / name)
    assert losses(tmp_path / "one") == losses(tmp_path / "same")
    assert losses(tmp_path / "one") != losses(tmp_path / "other")


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one_with_twice_the_accumulation(cache, tmp_path):
    settings = {"steps": 5, "optim": {"lr": 1e-3, "warmup_steps": 1, "clip_norm": 0.5}}
    alone, pair = {**settings, "accumulation": 4}, {**settings, "accumulation": 2}
    train(config_from(alone), cache, tmp_path / "alone")
    run_two_processes(SCRIPT, cache, tmp_path / "pair", json.dumps(pair))
    assert losses(tmp_path / "pair") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
    ours, theirs = (load_file(tmp_path / name / "student.safetensors") for name in ("pair", "alone"))
    for name, value in theirs.items():
        # AdamW divides by the gradient's size, so rounding shows where a gradient is nearly zero.
        assert torch.allclose(ours[name], value, atol=2e-4), name


def test_one_batch_is_learned_by_heart(cache, tmp_path):
    config = tiny_config(steps=80, overfit=True, optim=OptimConfig(optimizer="muon", lr=3e-3, warmup_steps=5))
    train(config, cache, tmp_path)
    curve = losses(tmp_path)
    assert curve[-1] < 0.25 * curve[0]


def test_validation_watches_groups_that_are_not_trained_on_and_draws_them(cache, tmp_path):
    config = tiny_config(steps=4, validation=ValidationConfig(every_steps=2, groups=2, held_out=0.4, pictures=1))
    summary = train(config, cache, tmp_path)
    records = [record for record in read_metrics(tmp_path) if record["kind"] == "validation"]
    assert [record["step"] for record in records] == [2, 4]
    assert {"loss", "depth_rel", "rotation_deg"} <= summary.validation.keys()
    assert all(value == value for value in summary.validation.values())
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == ["step-0000002-0.png", "step-0000004-0.png"]
    assert json.loads((tmp_path / "config.json").read_text())["cache"]["samples"] == 4


def test_watching_changes_nothing_that_is_learned(cache, tmp_path):
    other = make_cache(tmp_path / "other", samples=2, seed=5)
    watch = ValidationConfig(every_steps=1, pictures=0)
    train(tiny_config(), cache, tmp_path / "blind")
    train(tiny_config(validation=watch), cache, tmp_path / "watched", validation_cache=other)
    assert losses(tmp_path / "blind") == losses(tmp_path / "watched")


def test_the_run_folder_says_where_the_student_comes_from(cache, tmp_path):
    train(tiny_config(steps=1, tensorboard=True), cache, tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    assert about["settings"]["variant"] == "tiny"
    assert about["cache"]["teacher"] == "wall"
    assert about["versions"]["torch"] == torch.__version__
    assert list((tmp_path / "tensorboard").iterdir())
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 1


def test_a_step_without_a_finite_loss_is_left_out_and_three_end_the_run(cache, tmp_path, monkeypatch):
    calls, exact = [], distil.distill_loss

    def sometimes_broken(prediction, target, valid, config):
        calls.append(1)
        terms = exact(prediction, target, valid, config)
        return dataclasses.replace(terms, total=terms.total * float("nan")) if broken(len(calls)) else terms

    monkeypatch.setattr(distil, "distill_loss", sometimes_broken)
    broken = {2, 4, 5}.__contains__
    summary = train(tiny_config(steps=6), cache, tmp_path / "sometimes")
    assert summary.skipped == 3
    calls.clear()
    broken = {2, 3, 4}.__contains__
    with pytest.raises(ConfigError, match=r"not finite 3 times in a row.*lower optim.lr"):
        train(tiny_config(steps=6), cache, tmp_path / "often")


def test_an_output_folder_that_holds_something_is_refused(cache, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match=r"already holds"):
        train(tiny_config(), cache, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_recomputing_activations_changes_no_loss(cache, tmp_path):
    for name, again in (("kept", False), ("again", True)):
        train(tiny_config(steps=2, gradient_checkpointing=again), cache, tmp_path / name)
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "again"), rel=1e-5)


def test_bfloat16_layers_follow_the_float32_curve(cache, tmp_path):
    for name in ("fp32", "bf16"):
        train(tiny_config(steps=3, precision=name), cache, tmp_path / name)
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.05)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")


def test_a_student_that_starts_at_the_mean_is_nearer_to_its_labels(cache):
    reader = CacheReader(cache)
    batches = CacheDataset(reader, reader.keys(), SamplingConfig(), views=2, batch=2, seed=0)
    batch = batches[0]
    errors = []
    for from_mean in (False, True):
        student = build_student(tiny_config())
        if from_mean:
            start_at_mean(student, (batches[number] for number in range(len(batches))))
        prediction = student(batch.views.images, generator=torch.Generator().manual_seed(0))
        depth = prediction.pointmap_camera[..., 2].detach()
        truth = batch.target.pointmap_camera[..., 2]
        errors.append(float((depth / depth.mean() - truth / truth.mean()).abs().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_a_run_starts_from_the_weights_of_another(cache, tmp_path):
    train(tiny_config(steps=30, overfit=True, optim=OptimConfig(lr=3e-3)), cache, tmp_path / "first")
    again = tiny_config(steps=1, overfit=True, initial_weights=str(tmp_path / "first"))
    train(again, cache, tmp_path / "second")
    assert losses(tmp_path / "second")[0] < 1.05 * losses(tmp_path / "first")[-1] < losses(tmp_path / "first")[0]
    about = json.loads((tmp_path / "second" / "config.json").read_text())
    assert about["settings"]["initial_weights"] == str(tmp_path / "first")


def test_weights_of_another_architecture_are_refused_as_a_start(cache, tmp_path):
    train(tiny_config(steps=1), cache, tmp_path / "tiny")
    with pytest.raises(CheckpointError, match=r"other settings than variant 'demo'"):
        train(tiny_config(variant="demo", initial_weights=str(tmp_path / "tiny")), cache, tmp_path / "demo")


def test_a_pretrained_encoder_is_taken_up_and_its_licence_is_not_forgotten(cache, tmp_path):
    donor = build_student(tiny_config(seed=9)).encoder.state_dict()
    save_file({name: value.contiguous() for name, value in donor.items()}, tmp_path / "encoder.safetensors")
    frozen = OptimConfig(lr=1e-3, encoder_lr=1e-12)
    config = tiny_config(steps=1, optim=frozen, pretrained_encoder=str(tmp_path / "encoder.safetensors"))
    train(config, cache, tmp_path / "run")
    student, info = load_saved(tmp_path / "run")
    for name, value in student.encoder.state_dict().items():
        assert torch.allclose(value, donor[name], atol=1e-6), name
    assert any("encoder.safetensors" in line for line in info.meta["licence_chain"])
    assert info.meta["teacher"] == "wall"


def test_a_device_that_is_not_there_is_refused(cache, tmp_path):
    with pytest.raises(ConfigError, match="device is quantum, but this machine has cpu"):
        train(tiny_config(device="quantum"), cache, tmp_path)
