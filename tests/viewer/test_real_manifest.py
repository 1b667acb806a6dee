"""Other people's photos, in place: a folder of all kinds goes through build, check and show."""

from distill3d.data.check import check_manifest
from distill3d.data.manifest import build_manifest
from distill3d.viewer.contact_sheet import write_contact_sheet


def test_real_photos_go_through_build_check_and_show(shared_data, tmp_path):
    manifest, skipped = build_manifest(shared_data)
    assert len(manifest) + len(skipped) > 100
    assert {"buddha", "charuco_desk", "lund_street"} <= set(manifest.scenes())
    assert [row.image.path for row in manifest.rows("buddha")][:3] == [
        f"buddha/images/{number}.jpg" for number in ("00006", "00007", "00010")
    ]
    checked = check_manifest(manifest, frames=20)
    assert (checked.broken, checked.scenes) == ((), ())
    page = write_contact_sheet(tmp_path / "sheet.html", manifest, title="photos", scenes=3, frames=2).read_text()
    assert page.count("data:image/jpeg") == 6
