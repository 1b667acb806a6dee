from distill3d import models
from distill3d.checkpoints import commercial_use, official_licence


def test_a_hub_id_its_cache_and_a_file_of_its_name_have_its_licence():
    spec = models.get("vggt")
    free = spec.licences["facebook/VGGT-1B-Commercial"]
    bound = spec.licences["facebook/VGGT-1B"]
    assert official_licence(spec, "facebook/VGGT-1B") == bound
    assert official_licence(spec, "facebook/VGGT-1B-Commercial") == free
    assert official_licence(spec, "hub/models--facebook--VGGT-1B/snapshots/c0/model.pt") == bound
    assert official_licence(spec, "hub/models--facebook--VGGT-1B-Commercial/snapshots/c0/model.pt") == free
    assert official_licence(spec, "weights/VGGT-1B.safetensors") == bound


def test_where_nothing_tells_all_that_come_into_question_are_named():
    found = official_licence(models.get("vggt"), "model.pt")
    assert all(licence in found for licence in models.get("vggt").licences.values())
    assert commercial_use(found) is False
    assert official_licence(models.get("moge"), "model.pt") == "MIT"
