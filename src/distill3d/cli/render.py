"""`distill3d render place|rooms`: scenes with exact depth and cameras, made here."""

from collections.abc import Sequence
from pathlib import Path

from distill3d.cli.outcome import Outcome, parse_subcommand
from distill3d.errors import ConfigError


def place(
    out: Path,
    size: tuple[int, int] = (112, 112),
    num_train: int = 2000,
    num_test: int = 240,
    seed: int = 0,
    supersample: bool = False,
    overwrite: bool = False,
) -> Outcome:
    """Photograph the demo's apartment: one scene folder with photos to train on and others held out.

    Args:
        out: the scene folder to write.
        size: height and width of the photos.
        num_train: photos to train on.
        num_test: photos held out, from other walks and other spots.
        seed: draws the cameras; the apartment is always the same.
        supersample: four rays a pixel, smoother and four times slower.
        overwrite: replace a scene made with other settings.
    """
    from distill3d.data.render.write import render_place

    if num_train < 0 or num_test < 0 or num_train + num_test < 1 or min(size) < 1:
        raise ConfigError(
            f"--num-train {num_train}, --num-test {num_test}, --size {size[0]} {size[1]}: expected photos to make "
            "(0 or more of each, at least one in all) of at least 1 pixel a side."
        )
    folder = render_place(
        out, size=size, num_train=num_train, num_test=num_test, seed=seed, supersample=supersample, overwrite=overwrite
    )
    return Outcome(
        {"scene": str(folder), "train": num_train, "test": num_test},
        f"{num_train} photos to train on and {num_test} held out are in {folder}",
    )


def rooms(
    out: Path,
    count: int = 100,
    views: int = 6,
    size: tuple[int, int] = (112, 112),
    seed: int = 0,
    split: str = "train",
    supersample: bool = False,
    overwrite: bool = False,
) -> Outcome:
    """Photograph different furnished rooms, as many as wanted: one scene folder each.

    Args:
        out: the folder of scene folders to write.
        count: how many rooms.
        views: photos of each room.
        size: height and width of the photos.
        seed: no two seeds share a room; room i of a seed is always the same.
        split: what the photos are for: train or test.
        supersample: four rays a pixel, smoother and four times slower.
        overwrite: replace rooms made with other settings.
    """
    from distill3d.data.render.write import render_rooms

    if count < 1 or views < 1:
        raise ConfigError(f"--count {count} rooms of --views {views} photos: expected 1 or more of both.")

    folders = render_rooms(
        out,
        count=count,
        views=views,
        size=size,
        seed=seed,
        split=split,
        supersample=supersample,
        overwrite=overwrite,
    )
    return Outcome({"scenes": len(folders), "folder": str(out)}, f"{len(folders)} rooms are in {out}")


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_subcommand({"place": place, "rooms": rooms}, "render", arguments)
