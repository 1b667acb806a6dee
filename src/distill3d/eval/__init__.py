"""Scores: metrics as pure functions, trivial baselines, and the evaluation on held-out views in two steps."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill3d.eval import metrics as metrics
    from distill3d.eval.baselines import Baselines as Baselines
    from distill3d.eval.baselines import fit_baselines as fit_baselines
    from distill3d.eval.heldout import score_heldout as score_heldout
    from distill3d.eval.predictions import predict_heldout as predict_heldout
    from distill3d.eval.run import evaluate as evaluate
    from distill3d.eval.run import load_evaluation as load_evaluation
    from distill3d.eval.scores import HeldoutScores as HeldoutScores
    from distill3d.eval.scores import load_scores as load_scores

_HOMES = {
    "Baselines": "distill3d.eval.baselines",
    "HeldoutScores": "distill3d.eval.scores",
    "evaluate": "distill3d.eval.run",
    "fit_baselines": "distill3d.eval.baselines",
    "load_evaluation": "distill3d.eval.run",
    "load_scores": "distill3d.eval.scores",
    "predict_heldout": "distill3d.eval.predictions",
    "score_heldout": "distill3d.eval.heldout",
}

__all__ = [*_HOMES, "metrics"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "metrics":
        return importlib.import_module("distill3d.eval.metrics")
    raise AttributeError(f"module 'distill3d.eval' has no attribute {name!r}")
