"""Fin3R's released rule against recordings of tiny networks with seeded adapters, and the released files' names."""

import json

import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.adapters import adapters_off, lora_layers
from distill3d.adapters.official import load_fin3r
from distill3d.errors import CheckpointError
from distill3d.geometry.pose_encoding import decode_cameras
from distill3d.models.dust3r import Dust3RConfig
from tests.parity.official import fill_seeded, relative, relative_points, relative_values, shapes_of_manifest
from tests.parity.seeded_weights import seeded_tensor

VGGT, DUST3R = models.get("vggt"), models.get("dust3r")
TINY = Dust3RConfig(encoder_dim=64, encoder_depth=2, encoder_heads=4, decoder_dim=48, decoder_heads=4)


@pytest.fixture(scope="module")
def golden(fixtures):
    recorded = load_file(fixtures / "fin3r" / "golden.safetensors")
    return {name.removeprefix("vggt."): value for name, value in recorded.items() if name.startswith("vggt.")}


@pytest.fixture(scope="module")
def wrapped_file(fixtures):
    """A file as peft would save the whole wrapped network, filled by its wrapped names."""
    names = json.loads((fixtures / "fin3r" / "golden.json").read_text())["state_dict"]
    return {name: seeded_tensor(name, tuple(shape)) for name, shape in names}


def load(file, **options):
    model = VGGT.build(VGGT.variants["tiny"]).eval()
    return model, load_fin3r(model, VGGT, file, source="vggt_lora.pth", **options)


@torch.no_grad()
def test_a_whole_wrapped_file_gives_the_recorded_outputs(golden, wrapped_file):
    model, report = load(wrapped_file)
    assert report.rank == 8
    assert report.unexpected == ()
    assert report.base_entries + 2 * len(report.layers) == len(wrapped_file)
    tokens = model.encoder(model.normalise(golden["images"]).flatten(0, 1)).patches
    assert relative(tokens, golden["encoder.patch_tokens"]) < 1e-5
    found = model(golden["images"])
    assert relative_values(found.depth, golden["depth"][..., 0]) < 1e-4
    assert relative_values(found.confidence_depth, golden["depth_conf"]) < 1e-4
    assert relative_points(found.pointmap_world[:, :, ::4, ::4], golden["world_points_every4"]) < 1e-4
    pose, _ = decode_cameras(golden["pose_enc"], 56, 70)
    assert relative(found.world_from_camera, pose) < 1e-4


@torch.no_grad()
def test_zeroed_plain_and_absent_adapters_are_as_recorded(golden, wrapped_file):
    images = golden["images"].flatten(0, 1)
    model, _ = load(wrapped_file)
    with adapters_off(model):
        tokens = model.encoder(model.normalise(images)).patches
    assert relative(tokens, golden["no_adapter.encoder.patch_tokens"]) < 1e-5
    plain, _ = load(wrapped_file, rule="none")
    assert relative(plain.encoder(plain.normalise(images)).patches, golden["plain_lora.encoder.patch_tokens"]) < 1e-5
    for layer in lora_layers(model).values():
        layer.lora_B.zero_()
    assert relative(model.encoder(model.normalise(images)).patches, golden["zero_B.encoder.patch_tokens"]) < 1e-5


@torch.no_grad()
def test_the_same_rule_on_dust3r_is_as_recorded(fixtures):
    lora = load_file(fixtures / "fin3r" / "dust3r.safetensors")
    pair = load_file(fixtures / "dust3r" / "golden.safetensors")
    model = fill_seeded(DUST3R.build(TINY), DUST3R)
    file = {name.removeprefix("lora."): value for name, value in lora.items() if name.startswith("lora.")}
    report = load_fin3r(model, DUST3R, file, source="dust3r_lora.pth")
    assert report.base_entries == 0
    layer = lora_layers(model)["encoder.blocks.0.attn.qkv"]
    assert relative(layer(lora["qkv0.in"]), lora["qkv0.out"]) < 1e-5
    with adapters_off(model):
        assert relative(layer(lora["qkv0.in"]), lora["qkv0.base_out"]) < 1e-5
    images = [(pair[f"A.img{view}"] + 1) / 2 for view in (1, 2)]
    assert relative(model.encode(images[0]).tokens.tokens, lora["enc1"]) < 1e-5
    first, second = model.compare(*images)
    assert relative_points(first.pointmap_world[:, 0], lora["pts3d1"]) < 1e-4
    assert relative_values(first.confidence_world[:, 0], lora["conf1"]) < 1e-4
    assert relative_points(second.pointmap_world[:, 0], lora["pts3d2_in_1"]) < 1e-4


def test_the_released_file_fits_the_full_network(fixtures):
    shapes = shapes_of_manifest(fixtures / "fin3r" / "manifest.json")
    assert len(shapes) == 48
    with torch.device("meta"):
        model = VGGT.build(VGGT.variants["base"])
        file = {name: torch.empty(shape) for name, shape in shapes.items()}
        report = load_fin3r(model, VGGT, file, source="vggt_lora.pth")
    assert len(report.layers) == 24
    assert sum(tensor.numel() for tensor in file.values()) == 786_432


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace(".default", ""),
        lambda name: name.replace("base_model.model.", ""),
        lambda name: "module." + name,
        lambda name: name.replace("base_model.model.", "").replace(".default", ""),
    ],
)
def test_every_way_of_naming_adapters_is_understood(wrapped_file, rename):
    alone = {rename(name): value for name, value in wrapped_file.items() if ".lora_" in name}
    _, report = load(alone)
    assert (len(report.layers), report.base_entries, report.unexpected) == (3, 0, ())


def test_what_cannot_be_used_is_reported(wrapped_file):
    alone = {name: value for name, value in wrapped_file.items() if ".lora_" in name}
    extra = {"aggregator.patch_embed.blocks.0.attn.proj.weight": torch.zeros(2, 2), "epoch": torch.zeros(1)}
    _, report = load({**alone, **extra})
    assert report.unexpected == ("encoder.blocks.0.attn.proj.weight", "epoch")


def test_files_that_do_not_fit_are_refused_in_words(wrapped_file):
    alone = {name: value for name, value in wrapped_file.items() if ".lora_" in name}
    with pytest.raises(CheckpointError, match=r"holds no adapters \(no lora_A and lora_B among 1 entries"):
        load({"weight": torch.zeros(1)})
    cut = {name: value for name, value in alone.items() if "blocks.2." not in name}
    with pytest.raises(CheckpointError, match=r"lacks the adapters of 1 of 3 layers, e.g. 'encoder.blocks.2.attn.qkv'"):
        load(cut)
    half = {
        name: value
        for name, value in alone.items()
        if not name.endswith("blocks.0.attn.base_model.model.qkv.lora_A.default.weight")
    }
    with pytest.raises(CheckpointError, match="1 matrices missing"):
        load(half)
    foreign = {"aggregator.frame_blocks.9.attn.qkv.lora_A.weight": torch.zeros(8, 64)}
    with pytest.raises(CheckpointError, match="which this VGGT does not have"):
        load({**alone, **foreign})


def test_merged_weights_go_back_under_official_names(wrapped_file):
    from distill3d.adapters import merge

    model, _ = load(wrapped_file, rule="frobenius")
    images = torch.rand(1, 2, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        adapted = model(images)
        merge(model)
        official = checkpoints.to_official(model, VGGT)
        other = VGGT.build(VGGT.variants["tiny"]).eval()
        checkpoints.load_official(other, VGGT, official, source="merged")
        assert relative_values(other(images).depth, adapted.depth) < 1e-4
