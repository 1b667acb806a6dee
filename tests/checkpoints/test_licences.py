import logging

import pytest

from distill3d import models
from distill3d.checkpoints import all_licences, commercial_use, licences, official_licence


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


def test_commercial_use_that_a_licence_states_is_believed_unless_others_come_into_question():
    assert commercial_use("VGGT License v1 (commercial use allowed, military use excluded; gated)") is True
    assert commercial_use("Some terms (non-commercial use allowed)") is False
    assert commercial_use("not told by the file; one of: A (commercial use allowed) | B") is None


@pytest.mark.parametrize(
    ("parts", "allowed"),
    [(("MIT", "CC0", "MIT"), True), (("MIT", "unknown"), None), (("MIT", "unknown", "CC-BY-NC-4.0"), False)],
)
def test_what_is_made_from_several_things_may_be_used_as_far_as_each_of_them(parts, allowed):
    joined = all_licences(parts)
    assert commercial_use(joined) is allowed
    assert joined.count("MIT") == 1


@pytest.mark.parametrize(("licence", "level"), [("MIT", "INFO"), ("unknown", "INFO"), ("CC-BY-NC-4.0", "WARNING")])
def test_a_licence_is_told_once_and_louder_where_it_binds(licence, level, caplog, monkeypatch):
    monkeypatch.setattr(licences, "_told", set())
    with caplog.at_level(logging.DEBUG, logger="distill3d"):
        licences.tell_licence(licence, "model.pt")
        licences.tell_licence(licence, "model.pt")
    assert [(record.levelname, licence in record.message) for record in caplog.records] == [(level, True)]
