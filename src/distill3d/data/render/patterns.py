"""The procedural patterns: wood, tiles, bricks, cloth, books, pictures and rugs, each over one square that repeats.

A pattern says, for each texel, how much of a material's second and third colour shows and how bright it is. Coordinates
run from 0 to 1 over the square, x to the right and y upward.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

RESOLUTION = 256
"""Texels along a side."""


def _grid() -> tuple[Tensor, Tensor]:
    """x and y of the texel centres."""
    steps = (torch.arange(RESOLUTION) + 0.5) / RESOLUTION
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return x, y


def _noise(generator: torch.Generator, scale_x: float, scale_y: float | None = None, slope: float = 1.5) -> Tensor:
    """Periodic noise of zero mean and unit variance; scales are feature sizes in repeats."""
    white = torch.randn(RESOLUTION, RESOLUTION, generator=generator)
    frequency = torch.fft.fftfreq(RESOLUTION, 1 / RESOLUTION)
    radius = ((frequency[None] * scale_x) ** 2 + (frequency[:, None] * (scale_y or scale_x)) ** 2).sqrt()
    shaped: Tensor = torch.fft.ifft2(torch.fft.fft2(white) / (1 + radius**2) ** slope).real
    return (shaped - shaped.mean()) / shaped.std()


def _pattern(second: Tensor | float = 0.0, third: Tensor | float = 0.0, brightness: Tensor | float = 1.0) -> Tensor:
    size = (RESOLUTION, RESOLUTION)
    parts = [torch.as_tensor(part, dtype=torch.float32).expand(size) for part in (second, third, brightness)]
    return torch.stack([parts[0].clamp(0, 1), parts[1].clamp(0, 1), parts[2].clamp(0, 1.3)])


def _cells(generator: torch.Generator, x: Tensor, y: Tensor, columns: int, rows: int) -> Tensor:
    """A random number in [0, 1) per cell of a grid, looked up at (x, y)."""
    table = torch.rand(rows, columns, generator=generator)
    return table[(y * rows).long() % rows, (x * columns).long() % columns]


def _seam(x: Tensor, count: int, width: float) -> Tensor:
    """1 on the lines between `count` cells, 0 inside; width in repeats."""
    phase = (x * count) % 1
    return (torch.minimum(phase, 1 - phase) < width * count / 2).float()


def _plain(generator: torch.Generator) -> Tensor:
    return _pattern(brightness=1 + 0.012 * _noise(generator, 0.05))


def _plaster(generator: torch.Generator) -> Tensor:
    cloud = _noise(generator, 0.3)
    return _pattern(0.5 + 0.22 * cloud, 0.0, 1 + 0.02 * _noise(generator, 0.02, slope=1.0))


def _planks(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    row = (y * 8).long()
    shift = torch.rand(8, generator=generator)[row]
    along = (x + shift) % 1
    tone = _cells(generator, along, y, 2, 8)
    grain = _noise(generator, 0.35, 0.012)
    gap = torch.maximum(_seam(y, 8, 0.008), _seam(along, 2, 0.006))
    return _pattern(0.15 + 0.6 * tone + 0.13 * grain, 0.0, (1 + 0.03 * grain) * (1 - 0.5 * gap))


def _grain(generator: torch.Generator) -> Tensor:
    fine, coarse = _noise(generator, 0.4, 0.015), _noise(generator, 0.6, 0.08)
    return _pattern(0.45 + 0.16 * fine + 0.16 * coarse, 0.0, 1 + 0.03 * fine)


def _herringbone(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    column = (x * 4).long()
    slanted = torch.where(column % 2 == 0, y + x, y - x) % 1
    tone = _cells(generator, x, slanted, 4, 8)
    gap = torch.maximum(_seam(x, 4, 0.008), _seam(slanted, 8, 0.01))
    return _pattern(0.1 + 0.8 * tone, 0.0, (1 + 0.03 * _noise(generator, 0.1, 0.02)) * (1 - 0.4 * gap))


def _tiles(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    gap = torch.maximum(_seam(x, 4, 0.02), _seam(y, 4, 0.02))
    tone = _cells(generator, x, y, 4, 4)
    return _pattern(0.35 * tone * (1 - gap) + 0.06 * _noise(generator, 0.1), gap, 1 + 0.0 * x)


def _checker(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    odd = ((x * 4).long() + (y * 4).long()) % 2
    return _pattern(odd.float(), 0.0, 1 - 0.25 * torch.maximum(_seam(x, 4, 0.01), _seam(y, 4, 0.01)))


def _bricks(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    shifted = (x + ((y * 8).long() % 2) / 8) % 1
    gap = torch.maximum(_seam(y, 8, 0.018), _seam(shifted, 4, 0.018))
    tone = _cells(generator, shifted, y, 4, 8)
    return _pattern(tone * (1 - gap), gap, 1 + 0.05 * _noise(generator, 0.03))


def _stripes(generator: torch.Generator) -> Tensor:
    x, _ = _grid()
    return _pattern(((x * 4) % 1 > 0.5).float(), ((x * 4) % 1 > 0.92).float(), 1 + 0.015 * _noise(generator, 0.03))


def _marble(generator: torch.Generator) -> Tensor:
    veins = 1 - (_noise(generator, 0.45).abs() * 2.2).clamp(max=1)
    return _pattern(veins**3, 0.0, 1 + 0.02 * _noise(generator, 0.3))


def _terrazzo(generator: torch.Generator) -> Tensor:
    first, second = _noise(generator, 0.06, slope=2.5), _noise(generator, 0.07, slope=2.5)
    return _pattern((first > 1.2).float(), (second > 1.3).float())


def _fabric(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    weave = torch.sin(2 * math.pi * 64 * x) * torch.sin(2 * math.pi * 64 * y)
    return _pattern(0.4 + 0.25 * _noise(generator, 0.06), 0.0, 1 + 0.06 * weave + 0.03 * _noise(generator, 0.01))


def _carpet(generator: torch.Generator) -> Tensor:
    return _pattern(0.5 + 0.3 * _noise(generator, 0.02, slope=1.0), 0.0, 1 + 0.05 * _noise(generator, 0.15))


def _gingham(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    across, down = ((x * 6) % 1 > 0.5).float(), ((y * 6) % 1 > 0.5).float()
    return _pattern((across + down) / 2, 0.0, 1 + 0.02 * _noise(generator, 0.01))


def _dots(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    shifted = x + ((y * 6).long() % 2) / 12
    distance = (((shifted * 6) % 1 - 0.5) ** 2 + ((y * 6) % 1 - 0.5) ** 2).sqrt()
    return _pattern(((0.28 - distance) * 20).clamp(0, 1), 0.0, 1 + 0.015 * _noise(generator, 0.02))


def _diamonds(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    distance = ((x * 4) % 1 - 0.5).abs() + ((y * 4) % 1 - 0.5).abs()
    return _pattern(((distance - 0.46).abs() < 0.05).float(), (distance < 0.14).float())


def _curtain(generator: torch.Generator) -> Tensor:
    x, _ = _grid()
    fold = torch.sin(2 * math.pi * (5 * x + 0.1 * torch.sin(4 * math.pi * x)))
    return _pattern(0.5 + 0.2 * fold, 0.0, 0.86 + 0.14 * fold + 0.01 * _noise(generator, 0.02))


def _leaves(generator: torch.Generator) -> Tensor:
    blotch = _noise(generator, 0.12, slope=2.5)
    return _pattern((blotch > 0.4).float(), (blotch < -0.9).float(), 1 + 0.1 * _noise(generator, 0.04))


def _books(generator: torch.Generator) -> Tensor:
    """Spines of differing width, height and colour with a dark gap above them."""
    x, y = _grid()
    edges = torch.cumsum(0.5 + torch.rand(14, generator=generator), 0)
    which = torch.bucketize(x[0].contiguous() * edges[-1], edges).clamp(max=13)
    kind, height = torch.rand(14, generator=generator)[which], 0.72 + 0.25 * torch.rand(14, generator=generator)[which]
    tone = 0.75 + 0.4 * torch.rand(14, generator=generator)[which]
    gap = functional.pad((which[1:] != which[:-1]).float(), (1, 0))
    label = ((y - 0.3).abs() < 0.04) & (torch.rand(14, generator=generator)[which] > 0.5)
    shade = torch.where(y < height, tone * (1 - 0.6 * gap), torch.tensor(0.12))
    return _pattern(((kind > 0.35) & ~label).float(), ((kind > 0.7) | label).float(), shade)


def _door(generator: torch.Generator) -> Tensor:
    """Four sunk panels."""
    x, y = _grid()
    shade = torch.ones_like(x)
    for low, high in ((0.07, 0.46), (0.54, 0.93)):
        for left, right in ((0.12, 0.45), (0.55, 0.88)):
            depth = torch.stack([x - left, right - x, y - low, high - y]).amin(0)
            shade = torch.where((depth > 0) & (depth < 0.025), 0.72, shade)
    return _pattern(0.5 + 0.15 * _noise(generator, 0.015, 0.4), 0.0, shade)


def _landscape(generator: torch.Generator) -> Tensor:
    """A picture: sky, hills and a field."""
    x, y = _grid()
    ridge = 0.5 + 0.12 * _noise(generator, 0.4)[0]
    meadow = 0.28 + 0.06 * _noise(generator, 0.5)[0]
    sun = ((x - 0.7) ** 2 + (y - 0.78) ** 2).sqrt() < 0.09
    hills, field = (y < ridge).float(), (y < meadow).float()
    return _pattern((hills - field).clamp(0, 1), torch.maximum(field, sun.float()), 1 + 0.08 * _noise(generator, 0.1))


def _circles(generator: torch.Generator) -> Tensor:
    """A picture: overlapping discs."""
    x, y = _grid()
    second, third = torch.zeros_like(x), torch.zeros_like(x)
    for number in range(9):
        cx, cy, radius = (torch.rand(3, generator=generator) * torch.tensor([0.8, 0.8, 0.18]) + 0.1).tolist()
        inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        target, other = (second, third) if number % 2 else (third, second)
        target[inside], other[inside] = 1.0, 0.0
    return _pattern(second, third)


def _blocks(generator: torch.Generator) -> Tensor:
    """A picture: rectangles between dark bars."""
    x, y = _grid()
    across = torch.bucketize(x.contiguous(), torch.tensor([0.28, 0.62, 0.85]))
    down = torch.bucketize(y.contiguous(), torch.tensor([0.2, 0.55, 0.8]))
    kind = torch.rand(4, 4, generator=generator)[down, across]
    bars = torch.zeros_like(x)
    for line, edges in ((x, (0.28, 0.62, 0.85)), (y, (0.2, 0.55, 0.8))):
        for edge in edges:
            bars = torch.maximum(bars, ((line - edge).abs() < 0.015).float())
    return _pattern((kind > 0.45).float() * (kind < 0.75), (kind >= 0.75).float(), 1 - 0.85 * bars)


def _portrait(generator: torch.Generator) -> Tensor:
    """A picture: a head and shoulders."""
    x, y = _grid()
    head = ((x - 0.5) / 0.16) ** 2 + ((y - 0.6) / 0.2) ** 2 < 1
    body = ((x - 0.5) / 0.36) ** 2 + ((y - 0.05) / 0.38) ** 2 < 1
    return _pattern((body & ~head).float(), head.float(), 0.9 + 0.07 * _noise(generator, 0.25))


def _medallion(generator: torch.Generator) -> Tensor:
    """A rug: borders and a medallion."""
    x, y = _grid()
    edge = torch.stack([x, 1 - x, y, 1 - y]).amin(0)
    centre = ((x - 0.5) / 0.3) ** 2 + ((y - 0.5) / 0.3) ** 2
    petals = torch.cos(8 * torch.atan2(y - 0.5, x - 0.5)) * 0.2
    border = ((edge > 0.05) & (edge < 0.13)).float()
    motif = ((centre + petals) < 1).float() - ((centre + petals) < 0.4).float()
    ticks = (((x * 24) % 1 > 0.5) ^ ((y * 24) % 1 > 0.5)).float() * border
    return _pattern(
        torch.maximum(border, motif),
        torch.maximum(ticks, (centre + petals < 0.4).float()),
        1 + 0.04 * _noise(generator, 0.02),
    )


def _rings(generator: torch.Generator) -> Tensor:
    """A rug or plate: concentric rings."""
    x, y = _grid()
    radius = ((x - 0.5) ** 2 + (y - 0.5) ** 2).sqrt()
    return _pattern(((radius * 12) % 1 > 0.55).float(), (radius < 0.1).float(), 1 + 0.03 * _noise(generator, 0.02))


def _kilim(generator: torch.Generator) -> Tensor:
    """A rug: zigzag bands."""
    x, y = _grid()
    zigzag = (y * 7 + ((x * 8) % 1 - 0.5).abs() * 1.2) % 3
    return _pattern((zigzag < 1).float(), (zigzag > 2.2).float(), 1 + 0.04 * _noise(generator, 0.02))


def _panes(generator: torch.Generator) -> Tensor:
    """Drawers or cupboard doors: two by three fronts with handles."""
    x, y = _grid()
    gap = torch.maximum(_seam(x, 2, 0.012), _seam(y, 3, 0.012))
    handle = (((x * 2) % 1 - 0.5).abs() < 0.12) & (((y * 3) % 1 - 0.8).abs() < 0.035)
    return _pattern(0.5 + 0.12 * _noise(generator, 0.3, 0.02), handle.float(), 1 - 0.55 * gap)


PATTERNS: dict[str, Callable[[torch.Generator], Tensor]] = {
    "plain": _plain,
    "plaster": _plaster,
    "planks": _planks,
    "grain": _grain,
    "herringbone": _herringbone,
    "tiles": _tiles,
    "checker": _checker,
    "bricks": _bricks,
    "stripes": _stripes,
    "marble": _marble,
    "terrazzo": _terrazzo,
    "fabric": _fabric,
    "carpet": _carpet,
    "gingham": _gingham,
    "dots": _dots,
    "diamonds": _diamonds,
    "curtain": _curtain,
    "leaves": _leaves,
    "books": _books,
    "door": _door,
    "landscape": _landscape,
    "circles": _circles,
    "blocks": _blocks,
    "portrait": _portrait,
    "medallion": _medallion,
    "rings": _rings,
    "kilim": _kilim,
    "panes": _panes,
}
