"""Weights: read from any file, renamed, loaded strictly, saved with their configuration and where they come from."""

from distill3d.checkpoints.keys import load_strict, rename_keys, restore_keys
from distill3d.checkpoints.licences import all_licences, commercial_use, official_licence
from distill3d.checkpoints.load import LoadedInfo, file_sha256, load_model, load_with_info
from distill3d.checkpoints.official import fitting_variant, load_encoder, load_official, to_official
from distill3d.checkpoints.read import read_weights
from distill3d.checkpoints.saved import SavedInfo, find_weights, load_saved, read_info, save_model, weights_hash

__all__ = [
    "LoadedInfo",
    "SavedInfo",
    "all_licences",
    "commercial_use",
    "file_sha256",
    "find_weights",
    "fitting_variant",
    "load_encoder",
    "load_model",
    "load_official",
    "load_saved",
    "load_strict",
    "load_with_info",
    "official_licence",
    "read_info",
    "read_weights",
    "rename_keys",
    "restore_keys",
    "save_model",
    "to_official",
    "weights_hash",
]
