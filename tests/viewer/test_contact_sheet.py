import re

import pytest
import torch

from distill3d.data.check import check_manifest
from distill3d.data.datasets.annotated import write_annotated_scene
from distill3d.data.manifest import build_manifest
from distill3d.viewer.contact_sheet import write_contact_sheet
from tests.data.pictures import save_picture


@pytest.fixture
def manifest(tmp_path):
    for name in ("good", "<b>tricky"):
        poses = torch.eye(4).repeat(4, 1, 1)
        poses[:, 0, 3] = torch.arange(4) * 0.1
        write_annotated_scene(
            tmp_path / "data" / name,
            torch.rand(4, 3, 24, 32),
            intrinsics=torch.tensor([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]).repeat(4, 1, 1),
            world_from_camera=poses,
            depth=torch.full((4, 24, 32), 2.0),
            is_metric=True,
        )
    save_picture(tmp_path / "photos/1.png")
    return build_manifest(tmp_path / "data")[0]


def page_of(path, manifest, **options):
    return write_contact_sheet(path, manifest, title="rooms & more", **options).read_text()


def test_the_page_shows_every_scene_and_needs_nothing_else(tmp_path, manifest):
    page = page_of(tmp_path / "sheet.html", manifest, frames=3)
    assert "rooms &amp; more" in page
    assert "&lt;b&gt;tricky" in page
    assert "<b>tricky" not in page
    assert page.count("data:image/jpeg") == 6
    assert page.count('alt="Depth of frame') == 6
    assert page.count('<svg class="cameras"') == 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "4 frames of 32×24 · unit: metres" in page


def test_suspicious_scenes_come_first_with_what_is_wrong(tmp_path, manifest):
    checks = check_manifest(manifest).scenes
    assert all(check.is_good for check in checks)
    worried = [check.__class__(**{**vars(check), "mistake": "it is upside down"}) for check in checks[1:]]
    page = page_of(tmp_path / "sheet.html", manifest, checks=[checks[0], *worried], scenes=1)
    assert "it looks as if it is upside down" in page
    assert page.count('class="sheet-scene bad"') == 1
    assert "1 of 2 scenes are shown" in page


def test_frames_that_cannot_be_read_say_so(tmp_path, manifest):
    (manifest.root / "good/images/000000.png").unlink()
    (manifest.root / "good/depth/000003.npy").write_bytes(b"x")
    page = page_of(tmp_path / "sheet.html", manifest, frames=4)
    assert "000000.png does not exist" in page
    assert page.count('alt="Depth of frame') == 7
