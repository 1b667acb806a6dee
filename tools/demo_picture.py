"""Draw the README's picture from a finished demo: `python tools/demo_picture.py demo docs/images/demo.png`."""

import sys
from pathlib import Path

from PIL import Image

from distill3d.checkpoints import load_saved
from distill3d.cli.demo import FULL, REACH
from distill3d.data.fit import ImageFit
from distill3d.data.groups import load_group
from distill3d.data.sampling import nearby
from distill3d.data.table import load_manifest
from distill3d.infer.reconstruct import reconstruct
from distill3d.viewer import scene_from_reconstruction
from distill3d.viewer.pointcloud import picture_of_scene


def main(demo: str, out: str) -> None:
    manifest = load_manifest(Path(demo) / "manifest.parquet")
    group = nearby(manifest, FULL.photos, count=1, seed=0, split="test", reach=REACH)[0]
    views = load_group(manifest, group, ImageFit(long_side=112))
    student, _ = load_saved(Path(demo) / "run")
    scene = scene_from_reconstruction(reconstruct(student, views, confidence_percentile=30.0))
    picture = Image.fromarray(picture_of_scene(scene, (540, 960), background=(22, 25, 31)))
    photos = (views.images[0, :6] * 255).byte().permute(0, 2, 3, 1).numpy()
    sheet = Image.new("RGB", (960, 540 + 160), (22, 25, 31))
    sheet.paste(picture, (0, 160))
    for index, photo in enumerate(photos):
        sheet.paste(Image.fromarray(photo).resize((152, 152), Image.Resampling.LANCZOS), (4 + index * 160, 4))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(160).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
