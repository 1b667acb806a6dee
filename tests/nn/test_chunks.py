import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from distill3d import models
from distill3d.nn.chunks import in_chunks, max_views_per_chunk
from distill3d.nn.conv_head import ConvHead
from distill3d.nn.dpt import DPTHead
from distill3d.nn.heads import LinearHead
from tests.live_memory import LiveMemory


@pytest.mark.parametrize(("chunk", "passes"), [(None, [5]), (2, [2, 2, 1]), (9, [5]), (0, [1] * 5)])
def test_every_view_passes_once_in_order(chunk, passes):
    seen = []

    def head(levels, grid):
        seen.append(len(levels[0]))
        return (levels[0] + levels[1]).transpose(1, 2).unflatten(2, grid)

    levels = [torch.arange(5.0 * 6 * 2).view(5, 6, 2), torch.ones(5, 6, 2)]
    found = in_chunks(head, levels, (2, 3), chunk)
    assert seen == passes
    assert torch.equal(found, (levels[0] + 1).transpose(1, 2).view(5, 2, 2, 3))


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_the_same_with_and_without_recomputing(recompute):
    weight = torch.tensor(2.0, requires_grad=True)
    calls = []

    def head(levels, grid):
        calls.append(grid)
        return (weight * levels[0]).square().transpose(1, 2).unflatten(2, grid)

    in_chunks(head, [torch.ones(3, 4, 1)], (2, 2), 1, recompute=recompute).sum().backward()
    assert weight.grad.item() == pytest.approx(2 * 2.0 * 12)
    assert len(calls) == (6 if recompute else 3)


def dpt(form, patch_size, out_channels=4):
    return DPTHead((64,) * 4, patch_size=patch_size, out_channels=out_channels, form=form, positions=form == "vggt")


HEADS = {
    "dpt": (lambda: dpt("dust3r", 16), 16, 64, 4),
    "dpt of vggt": (lambda: dpt("vggt", 14), 14, 64, 4),
    "features of vggt": (lambda: dpt("vggt", 14, None), 14, 64, 4),
    "linear": (lambda: LinearHead(768, patch_size=16), 16, 768, 1),
    "linear with a hidden layer": (lambda: LinearHead(768, patch_size=16, hidden=3072), 16, 768, 1),
}


@pytest.mark.parametrize("grid", [(16, 16), (24, 32), (37, 37)])
@pytest.mark.parametrize("name", HEADS)
def test_a_token_head_holds_no_more_than_it_says_and_not_much_less(name, grid):
    make, patch, dim, levels = HEADS[name]
    with FakeTensorMode(), torch.no_grad():
        head = make()
        inputs = [torch.empty(1, grid[0] * grid[1], dim) for _ in range(levels)]
        with LiveMemory(ignore=[*head.parameters(), *inputs]) as memory:
            head(inputs, grid)
    said = head.bytes_per_view((grid[0] * patch, grid[1] * patch))
    assert memory.peak <= said <= 3 * memory.peak


@pytest.mark.parametrize("grid", [(16, 16), (24, 32), (37, 37)])
@pytest.mark.parametrize("options", [{"in_dims": [64] * 4, "project": 512}, {"in_dims": [1024]}], ids=["moge", "pi3x"])
def test_a_convolutional_head_holds_no_more_than_it_says_and_not_much_less(options, grid):
    size = (grid[0] * 14, grid[1] * 14)
    with FakeTensorMode(), torch.no_grad():
        head = ConvHead(out_channels=(2, 1), **options)
        inputs = [torch.empty(1, dim, *grid) for dim in options["in_dims"]]
        with LiveMemory(ignore=[*head.parameters(), *inputs]) as memory:
            head(inputs, size)
    assert memory.peak <= head.bytes_per_view(size) <= 3 * memory.peak


@pytest.mark.parametrize("variant", ["moge-vitl", "moge-2-vitl-normal", "moge-2-vits-normal"])
@pytest.mark.parametrize("size", [(112, 112), (480, 640)])
def test_a_photo_takes_moge_no_more_than_it_says_and_not_much_less(variant, size):
    with FakeTensorMode(), torch.no_grad():
        spec = models.get("moge")
        model = spec.build(spec.variant(variant)).eval()
        image = torch.empty(1, 1, 3, *size)
        with LiveMemory(ignore=[*model.parameters(), *model.buffers(), image]) as memory:
            model(image)
    assert memory.peak <= model.bytes_per_view(size) <= 3 * memory.peak


def test_the_memory_that_is_left_decides_how_many_views_pass_at_once():
    gigabyte = 2**30
    with torch.device("meta"):
        model = nn.ModuleDict({"small": LinearHead(64, patch_size=16), "large": dpt("dust3r", 16)})
    # Four maps of 128 channels in float32 at 512 x 512 are half a gigabyte: the larger head decides.
    assert max_views_per_chunk(model, (512, 512), gigabyte) == 2
    assert max_views_per_chunk(model, (512, 512), 8 * gigabyte) == 16
    assert max_views_per_chunk(model, (256, 512), gigabyte) == 4
    assert max_views_per_chunk(model, (512, 512), 0) == 1  # less than a view does not pass
    assert max_views_per_chunk(nn.Linear(2, 2), (512, 512)) is None


@pytest.mark.parametrize("name", sorted(set(models.names()) - {"dune"}))
def test_every_network_with_maps_has_a_limit(name):
    spec = models.get(name)
    with torch.device("meta"):
        model = spec.build(spec.variant())
    chunk = max_views_per_chunk(model, (448, 448))
    assert chunk is not None
    assert 1 <= chunk < 128
