"""Weights: read from any file, renamed, loaded strictly, saved with their configuration and where they come from."""

from distill3d.checkpoints.keys import load_strict, rename_keys, restore_keys
from distill3d.checkpoints.load import load_model
from distill3d.checkpoints.official import fitting_variant, load_encoder, load_official, to_official
from distill3d.checkpoints.read import read_weights
from distill3d.checkpoints.saved import SavedInfo, find_weights, load_saved, read_info, save_model, weights_hash

__all__ = [
    "SavedInfo",
    "find_weights",
    "fitting_variant",
    "load_encoder",
    "load_model",
    "load_official",
    "load_saved",
    "load_strict",
    "read_info",
    "read_weights",
    "rename_keys",
    "restore_keys",
    "save_model",
    "to_official",
    "weights_hash",
]
