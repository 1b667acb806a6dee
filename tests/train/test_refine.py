"""Refining by the same loop: what learns, what stays, what is watched, and going on from a stop."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from distill3d import adapters, checkpoints, models
from distill3d.adapters.files import read_adapter
from distill3d.data.fit import ImageFit
from distill3d.data.manifest import build_manifest
from distill3d.errors import ConfigError
from distill3d.train.bases import BASES
from distill3d.train.config import CheckpointConfig, OptimConfig, SamplingConfig, ValidationConfig
from distill3d.train.features import EncoderWatch
from distill3d.train.logs import read_metrics
from distill3d.train.mixing import MixedBatch
from distill3d.train.photos import PhotoBatches, single_photos
from distill3d.train.refine import RefineJob, finetune
from distill3d.train.refine_config import MixConfig, RefineConfig
from distill3d.train.refine_data import RefineSources
from distill3d.train.refine_recipes import RECIPES, fin3r
from distill3d.train.resume import list_checkpoints
from distill3d.types import Prediction
from tests.train.helpers import make_cache


def config(**changes):
    settings = RefineConfig(
        base="distill3r",
        variant="tiny",
        batch=2,
        steps=6,
        epochs=None,
        precision="fp32",
        device="cpu",
        optim=OptimConfig(lr=1e-2, weight_decay=0.0),
        data=SamplingConfig(color_jitter=0.1),
        mix=MixConfig(photos_per_epoch=None, replay_per_epoch=2, replay_views=2),
        validation=ValidationConfig(every_steps=3, groups=2, held_out=0.2, pictures=1),
        checkpoint=CheckpointConfig(every_steps=2, every_seconds=0, keep=5),
        base_features_every=2,
        tensorboard=False,
    )
    return replace(settings, **changes)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def sources(cache):
    return RefineSources(photo_caches=[cache], replay_caches=[cache])


@pytest.fixture(scope="module")
def straight(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "straight"
    return finetune(config(), sources, out)


def curve(out):
    return [
        {name: value for name, value in record.items() if name not in ("samples_per_s", "seconds")}
        for record in read_metrics(out)
    ]


def test_only_the_adapter_is_written_and_it_has_learned(straight):
    info = read_adapter(straight.out)
    assert (info.model, info.rule, info.rank) == ("distill3r", "frobenius", 8)
    tensors = load_file(straight.weights)
    assert set(tensors) == {f"{layer}.lora_{which}" for layer in info.layers for which in "AB"}
    assert all(tensors[f"{layer}.lora_B"].abs().max() > 0 for layer in info.layers)
    assert info.meta["training"]["settings"]["variant"] == "tiny"
    assert any(line.startswith("labels of wall (photos)") for line in info.meta["licence_chain"])
    assert not any("head" in name for name in torch.load(list_checkpoints(straight.out)[-1])["model"])


def test_what_is_logged_lets_the_features_and_both_tasks_be_watched(straight):
    records = read_metrics(straight.out)
    steps = [record for record in records if record["kind"] == "train"]
    assert all({"loss", "depth", "feature_norm", "feature_norm_pre"} <= record.keys() for record in steps)
    assert [record["step"] for record in steps if "feature_cosine" in record] == [1, 3, 5]
    assert steps[0]["feature_cosine"] == pytest.approx(1, abs=1e-5)
    assert steps[0]["feature_norm_pre"] == pytest.approx(steps[0]["feature_norm_pre_base"])
    assert steps[4]["feature_shift"] > 0
    assert any("points" in record for record in steps)
    assert any("points" not in record for record in steps)
    scores = straight.validation
    for name in ("photo_depth_rel", "photo_boundary_f1", "feature_norm_pre", "replay_depth_rel", "replay_points_error",
                 "replay_rotation_deg"):  # fmt: skip
        assert scores[name] == scores[name], name
        assert f"{name}_base" in scores
    assert (straight.out / "pictures" / "step-0000006.png").stat().st_size > 1000


def test_stopped_and_resumed_equals_uninterrupted(straight, sources, tmp_path):
    finetune(config(), sources, tmp_path / "run")
    for path in list_checkpoints(tmp_path / "run")[1:]:
        path.unlink()
    (tmp_path / "run" / "summary.json").unlink()
    resumed = finetune(config(), sources, tmp_path / "run", resume=tmp_path / "run")
    assert resumed.steps_now == 4
    assert curve(resumed.out) == curve(straight.out)
    ours, theirs = load_file(resumed.weights), load_file(straight.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_other_data_or_settings_are_refused_on_resume(straight, cache, tmp_path):
    fewer = RefineSources(photo_caches=[cache])
    with pytest.raises(ConfigError, match="another cache"):
        finetune(config(), fewer, straight.out, resume=straight.out)
    other = config(lora=adapters.LoraConfig(renormalise="row"))
    both = RefineSources(photo_caches=[cache], replay_caches=[cache])
    with pytest.raises(ConfigError, match=r"lora.renormalise was 'frobenius', now 'row'"):
        finetune(other, both, straight.out, resume=straight.out)


def test_the_merged_network_is_the_adapted_one(straight):
    spec = models.get("distill3r")
    model = spec.build(spec.variants["tiny"]).eval()
    adapters.load_adapter(straight.out, model)
    images = torch.rand(1, 2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(images)
        adapters.merge(model)
        after = model(images)
    assert torch.allclose(before.pointmap_camera, after.pointmap_camera, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(BASES))
def test_every_base_learns_from_photos_and_replayed_views_and_only_in_its_encoder(name, tmp_path):
    spec = models.get(name)
    side = 2 * (spec.patch_size or 14)
    cache = make_cache(tmp_path / "cache", samples=2, size=(side, side))
    settings = config(base=name, validation=ValidationConfig(every_steps=0), gradient_checkpointing=name != "pi3")
    job = RefineJob(settings, RefineSources(photo_caches=[cache], replay_caches=[cache]))
    model = job.build()
    job.train_mode(model)
    assert not model.training
    for source in job.batches.sources:
        total = job.loss(model, MixedBatch(source.name, source.batches[0]), torch.device("cpu"), None, 0)
        torch.autograd.backward(total.total)
        assert ("replay" in source.name) == (not total.terms["points"].isnan())
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == set(adapters.adapter_state(model))
    assert all("encoder.blocks" in name for name in moved)
    last = adapters.adapter_state(model)[sorted(name for name in moved if name.endswith("lora_B"))[-1]]
    assert last.grad.isfinite().all()
    assert last.grad.abs().max() > 0


def test_a_network_that_cannot_be_refined_is_refused(sources):
    with pytest.raises(ConfigError, match=r"'moge' cannot be refined; choose one of: dust3r"):
        RefineJob(config(base="moge"), sources)
    with pytest.raises(ConfigError, match="nothing to learn from"):
        RefineJob(config(), RefineSources())


def test_the_recipe_of_the_paper_has_its_numbers():
    recipe = fin3r()
    assert (recipe.mix.photos_per_epoch, recipe.mix.replay_per_epoch, recipe.epochs) == (20_000, 1000, 10)
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.loss.confidence_lambda) == (8, 8, 0.2)
    assert set(RECIPES) == {"fin3r", "photos", "small"}


def test_epochs_become_steps_and_few_photos_shrink_the_replay_alike(cache):
    mix = MixConfig(photos_per_epoch=24, replay_per_epoch=8, replay_views=2)
    settings = config(epochs=3, mix=mix, validation=ValidationConfig(every_steps=0))
    job = RefineJob(settings, RefineSources(photo_caches=[cache], replay_caches=[cache]))
    # Six groups of photos in batches of two are a quarter of the 24: two of the eight samples are replayed.
    assert [source.per_epoch for source in job.batches.sources] == [3, 2]
    assert job.config.steps == 15


class FlatTeacher:
    """Says that everything is two units away, and that the upper half is sky."""

    name, licence, weights_hash = "flat", "CC0", None

    def settings(self):
        return {}

    def predict(self, views):
        points = torch.zeros(*views.images.shape[:2], *views.images.shape[3:], 3)
        points[..., 2] = 2.0
        valid = torch.ones(points.shape[:-1], dtype=torch.bool)
        valid[..., : valid.shape[2] // 2, :] = False
        return Prediction(pointmap_camera=points, valid=valid)


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for index in range(5):
        pixels = (torch.rand(28, 28, 3, generator=generator) * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def test_a_teacher_can_look_while_training_and_its_sky_teaches_nothing(folder, tmp_path):
    manifest, _ = build_manifest(folder)
    sources = RefineSources(photos=manifest, teacher=FlatTeacher(), fit=ImageFit(long_side=28))
    settings = config(steps=2, validation=ValidationConfig(every_steps=0))
    done = finetune(settings, sources, tmp_path / "run")
    assert done.loss == done.loss
    job = RefineJob(settings, sources)
    batch = job.batches[0].batch
    _, valid = job._target(batch, batch.views, batch.valid)
    assert not valid[:, :, :14].any()
    assert valid[:, :, 14:].all()
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["data"]["identity"]["online"]["teacher"] == "flat"


def test_some_of_the_photos_that_a_teacher_looks_at_are_held_back_and_drawn(folder, tmp_path):
    manifest, _ = build_manifest(folder)
    sources = RefineSources(photos=manifest, teacher=FlatTeacher(), fit=ImageFit(long_side=28))
    settings = config(steps=2, validation=ValidationConfig(every_steps=2, groups=2, held_out=0.4, pictures=1))
    job = RefineJob(settings, sources)
    assert len(job.data.watched_photos) == 2
    held = {key for number in range(2) for key in job.data.watched_photos[number].keys}
    trained = {key for number in range(len(job.batches)) for key in job.batches[number].keys}
    assert len(held) == 2
    assert len(trained) == 3
    assert not held & trained
    done = finetune(settings, sources, tmp_path / "run")
    assert {"photo_depth_rel", "photo_depth_rel_base"} <= done.validation.keys()
    assert (tmp_path / "run" / "pictures" / "step-0000002.png").exists()


def test_the_same_base_may_lie_elsewhere_on_resume_and_another_may_not(cache, tmp_path):
    sources = RefineSources(photo_caches=[cache])
    spec, settings = models.get("distill3r"), config(steps=4)
    for name, change in (("here", 0.0), ("there", 0.0), ("other", 1e-3)):
        model = spec.build(spec.variants["tiny"])
        with torch.no_grad():
            next(model.parameters()).add_(change)
        checkpoints.save_model(
            tmp_path / f"{name}.safetensors", model, model_name="distill3r", config=spec.variants["tiny"], meta={}
        )

    def based_on(name, **changes):
        return replace(
            settings, base="distill3r", variant=None, weights=str(tmp_path / f"{name}.safetensors"), **changes
        )

    flat = replace(settings.optim, min_lr_ratio=1.0)
    finetune(based_on("here", steps=2, optim=flat), sources, tmp_path / "run")
    with pytest.raises(ConfigError, match="base was"):
        finetune(based_on("other", optim=flat), sources, tmp_path / "run", resume=tmp_path / "run")
    done = finetune(based_on("there", optim=flat), sources, tmp_path / "run", resume=tmp_path / "run")
    assert done.steps_now == 2


def test_an_unreadable_photo_is_told_of_once_and_its_neighbour_takes_its_place(folder, caplog):
    manifest, _ = build_manifest(folder)
    broken = folder / "2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    batches = PhotoBatches(manifest, single_photos(manifest), ImageFit(long_side=28), batch=1, seed=0)
    seen = [batches[number].keys[0] for number in range(10)]
    assert len(set(seen)) == 4
    assert len(batches.unreadable) == 1
    assert sum("photo left out" in record.message for record in caplog.records) == 1
    again = PhotoBatches(manifest, single_photos(manifest), ImageFit(long_side=28), batch=1, seed=0)
    assert [again[number].keys[0] for number in reversed(range(10))] == seen[::-1]


def test_features_of_the_base_are_those_without_adapters():
    spec = models.get("distill3r")
    model = spec.build(spec.variants["tiny"]).eval()
    images = torch.rand(1, 1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with EncoderWatch(model.encoder) as plain, torch.no_grad():
        model(images)
    adapters.add_lora(model, spec.lora_targets)
    with torch.no_grad():
        for name, tensor in adapters.adapter_state(model).items():
            tensor.add_(0.3 if name.endswith("lora_B") else 0.0)
        with EncoderWatch(model.encoder) as moved:
            model(images)
    found = moved.against_base()
    assert found["feature_norm_base"] == plain.norms()["feature_norm"]
    assert found["feature_norm_pre_base"] == plain.norms()["feature_norm_pre"]
    assert found["feature_cosine"] < 0.999
    assert moved.norms()["feature_norm_pre"] != plain.norms()["feature_norm_pre"]


def test_a_run_starts_from_saved_weights_and_keeps_their_licence(sources, tmp_path):
    spec = models.get("distill3r")
    model = spec.build(spec.variants["tiny"])
    file = tmp_path / "base.safetensors"
    checkpoints.save_model(
        file, model, model_name="distill3r", config=spec.variants["tiny"], meta={"licence": "made up"}
    )
    settings = config(weights=str(file), variant=None, steps=1, validation=ValidationConfig(every_steps=0))
    done = finetune(settings, sources, tmp_path / "run")
    assert read_adapter(done.weights).meta["licence"] == "made up"
