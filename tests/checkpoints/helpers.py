"""A small student and files of it."""

from distill3d import models

SPEC = models.get("distill3r")
TINY = SPEC.variants["tiny"]


def tiny_student():
    return SPEC.build(TINY).eval()
