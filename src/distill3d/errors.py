"""Every error that distill3d raises on purpose.

A message says what was found, what was expected, and what to try. The command line turns any of these into its text
and exit code 2; anything else is a bug of ours and keeps its traceback.
"""


class Distill3dError(Exception):
    """Base of all errors that a user can cause and mend."""


class DataError(Distill3dError):
    """Photos, videos, scene folders or manifests that cannot be used."""


class CacheError(Distill3dError):
    """A teacher cache that is absent, damaged, from another version or made with other settings."""


class CheckpointError(Distill3dError):
    """Weights that cannot be read or do not fit the architecture."""


class ConfigError(Distill3dError):
    """Settings that contradict each other or name something unknown."""


class GeometryError(Distill3dError):
    """Geometry that cannot be solved: too few points, or points in a degenerate arrangement."""


class OutputError(Distill3dError):
    """A place to write to that is full, read-only or already taken."""
