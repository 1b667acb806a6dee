"""Run every case of a file of recorded metric values through our metrics, and print the worst deviation of each.

    python -m tests.eval.check_goldens FILE.safetensors FILE.json

The JSON lists the cases (`cases`: name -> notes), the safetensors hold their inputs and, as `out_*`, what the reference
programs gave. A deviation is |ours - theirs| / max(1, |theirs|), the largest over all numbers of an output; an output
is good if it is not above 1e-6, or above its own bound where one is stated below with its reason. The recordings of
`tests/fixtures/eval` need none of these bounds (`test_goldens.py`); other inputs may. Outputs that we do not compute
are listed, not passed over. The exit code is 1 if a case is not good, or of a kind that is not known here.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from distill3d.eval.inputs import resize_like_pi3
from distill3d.eval.metrics import calibration, key_view, monocular, points, poses, registration, robust, trajectory
from distill3d.eval.metrics.boundary import boundary_f1
from distill3d.eval.metrics.depth import depth_scores
from distill3d.eval.metrics.nearest import nearest_points
from distill3d.eval.metrics.sample import nearest_valid_pixels

Arrays = Mapping[str, np.ndarray]
Outputs = dict[str, Any]
TOLERANCE = 1e-6
BOUNDS: Mapping[str, tuple[float, str]] = {
    "moge_align": (1e-5, "theirs is float32, and a shift is a difference of larger numbers"),
    "moge_metrics/*/fov_x": (1e-5, "theirs is float32, whose next number after 60 degrees is 4e-6 away"),
    "moge_metrics/*/boundary": (2e-4, "theirs is float32: a pair of pixels may lie on the other side of a threshold"),
    "moge_metrics/*.delta1": (5e-4, "theirs is float32: a pixel may lie on the other side of the threshold"),
    "moge_metrics": (1e-5, "theirs is float32"),
    "boundary_f1": (2e-4, "theirs is float32: a pair of pixels may lie on the other side of a threshold"),
    "pose_vggt": (1e-5, "theirs loses digits of small angles in an arc cosine"),
    "pose_pairs": (1e-5, "theirs loses digits of small angles in an arc cosine"),
    "rigid_registration_weighted": (1e-5, "theirs is float32"),
    "recon_cut3r_align": (1e-5, "theirs is float32"),
    "robustmvd": (1e-5, "theirs is float32"),
    "depth_eval/lad_scipy": (1e-3, "a search over kinks by numerical gradients ends where the last digit sends it"),
    "depth_eval/irls_scale": (1e-3, "ten steps with weights up to 1e8 are not converged: the last digit is amplified"),
}
"""How the name case/output begins (`*` stands for anything), what is allowed there, and why; the first that fits.

`test_goldens.py` shows that the two bounds of 1e-3 are needed: a change in the sixteenth digit of the inputs moves
these outputs by more than 1e-6 for some inputs.
"""


@dataclass(frozen=True)
class Checked:
    """One case: the worst deviation, where, and what was not compared."""

    case: str
    worst: float
    output: str
    bound: float
    """Of that output."""
    missing: tuple[str, ...]
    good: bool
    """No output is beyond its own bound."""


def bound_of(case: str, output: str) -> float:
    """What is allowed for one output."""
    name = f"{case}/{output}"
    return next((bound for start, (bound, _) in BOUNDS.items() if fnmatchcase(name, f"{start}*")), TOLERANCE)


def check(arrays: Arrays, cases: Mapping[str, Mapping[str, Any]]) -> list[Checked]:
    """Compare every case.

    Raises:
        ValueError: a case of a kind that is not known here.
    """
    return [check_case(arrays, case, notes) for case, notes in cases.items()]


def check_case(arrays: Arrays, case: str, notes: Mapping[str, Any]) -> Checked:
    """Compare one case."""
    kind = case.split("/")[0]
    if kind not in RUNNERS:
        raise ValueError(f"{case} is of an unknown kind; known are {', '.join(RUNNERS)}")
    own = {key.removeprefix(f"{case}/"): value for key, value in arrays.items() if key.startswith(f"{case}/")}
    shared = {
        key.split("/")[1]: value for key, value in arrays.items() if key.startswith(f"{kind}/") and key.count("/") == 1
    }
    expected = {key.removeprefix("out_"): value for key, value in own.items() if key.startswith("out_")}
    inputs = {key: value for key, value in {**shared, **own}.items() if not key.startswith("out_")}
    found = RUNNERS[kind](inputs, notes, expected, case)
    deviations = {name: deviation(found[name], value) for name, value in expected.items() if name in found}
    if not deviations:
        raise ValueError(f"{case}: not one of its outputs ({', '.join(expected)}) is computed here")
    bounds = {name: bound_of(case, name) for name in deviations}
    output = max(deviations, key=lambda name: (not deviations[name] <= bounds[name], deviations[name]))
    return Checked(
        case=case,
        worst=deviations[output],
        output=output,
        bound=bounds[output],
        missing=tuple(name for name in expected if name not in found),
        good=all(deviations[name] <= bounds[name] for name in deviations),
    )


def deviation(ours: Any, theirs: np.ndarray) -> float:
    """Largest |ours - theirs| / max(1, |theirs|); infinite for another shape."""
    mine, other = np.asarray(ours, dtype=np.float64), theirs.astype(np.float64)
    if mine.size != other.size:
        return float("inf")
    mine, other = mine.reshape(other.shape), other
    same = (mine == other) | (np.isnan(mine) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(mine - other) / np.maximum(1, np.abs(other)))
    apart = np.where(np.isnan(apart), np.inf, apart)  # one of the two is NaN
    return float(apart.max()) if apart.size else 0.0


def tensors(*values: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(value)) for value in values]


def moge_align(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    fit = robust.fit_scale(*tensors(inputs["x"], inputs["y"], inputs["w"]), notes["trunc"])
    return {"a": fit.scale, "loss": fit.loss, "index": fit.decided_by}


def moge_align_depth(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    source, target, weight = tensors(inputs["src"], inputs["tgt"], inputs["weight"])
    affine, squares = robust.fit_affine(source, target, weight), robust.fit_affine_least_squares(source, target)
    return {
        "scale_only": robust.fit_scale(source, target, weight).scale,
        "affine_scale": affine.scale,
        "affine_shift": affine.shift,
        "lstsq_scale": squares.scale,
        "lstsq_shift": squares.shift,
    }


def moge_align_points(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    source, target, weight = tensors(inputs["src"], inputs["tgt"], inputs["weight"])
    along_z = robust.fit_points_scale_shift_z(source, target, weight)
    along_all = robust.fit_points_scale_shift(source, target, weight)
    return {
        "scale_only": robust.fit_points_scale(source, target, weight).scale,
        "scale_zshift_scale": along_z.scale,
        "scale_zshift_shift": along_z.shift,
        "scale_xyzshift_scale": along_all.scale,
        "scale_xyzshift_shift": along_all.shift,
        "zshift": robust.fit_points_shift_z(source, target, weight).shift,
        "xyzshift": robust.fit_points_shift(source, target, weight).shift,
    }


def masked_nearest_resize(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    found, row, column = nearest_valid_pixels(inputs["mask"], expected["mask"].shape)
    # Rows and columns mean something only where a pixel was found.
    some = expected["mask"]
    return {
        "mask": found,
        "row": np.where(some, row, expected["row"]),
        "col": np.where(some, column, expected["col"]),
    }


def moge_metrics(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    said = {name.removeprefix("pred_"): value for name, value in inputs.items() if name.startswith("pred_")}
    camera = said.pop("intrinsics", None)
    labels = inputs.get("segmentation", np.zeros_like(inputs["mask"], dtype=np.int64))
    truth = monocular.MonocularTruth(
        depth=inputs["gt_depth"],
        points=inputs["gt_points"],
        valid=inputs["mask"],
        focal_x=float(inputs["gt_intrinsics_normalised"][0, 0]),
        is_metric=notes["is_metric"],
        sharp_boundary=notes["has_sharp_boundary"],
        segments=tuple(labels == label for label in np.unique(labels) if label > 0) if notes["segmentation"] else (),
    )
    focal = None if camera is None else float(camera[0, 0])
    claims = monocular.MonocularPrediction(**said, focal_x=focal)
    return dict(monocular.monocular_scores(claims, truth, signed_ratio=True))


def boundaries(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    return {
        f"radius{radius}": boundary_f1(inputs["pred_depth"], inputs["gt_depth"], inputs["mask"], radius)
        for radius in (1, 2, 3)
    }


def pose_vggt(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    ours, true = (np.linalg.inv(inputs[name]) for name in ("pred_w2c", "gt_w2c"))
    pairs = poses.all_pairs(len(ours))
    turned, moved = poses.pair_errors(ours, true, [(j, i) for i, j in pairs], translation="folded")
    worst = poses.worst_angle(turned, moved)
    found: Outputs = {
        "rot_err_deg": turned,
        "trans_err_deg": moved,
        "pair_i": [i for i, _ in pairs],
        "pair_j": [j for _, j in pairs],
    }
    for threshold in (3, 5, 15, 30):
        found |= {
            f"auc_np_{threshold}": poses.auc(worst, threshold, "binned"),
            f"auc_torch_{threshold}": poses.auc(worst, threshold, "histogram"),
            f"racc_{threshold}": poses.recall(turned, threshold),
            f"tacc_{threshold}": poses.recall(moved, threshold),
        }
    return found


def pose_fast3r(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    ours, true = inputs["pred_c2w"], inputs["gt_c2w"]
    pairs = poses.all_pairs(len(ours))
    turned, moved = poses.pair_errors(ours, true, pairs, translation="folded", rotation="extrapolated")
    worst = poses.worst_angle(turned, moved)
    found: Outputs = {"rot_err_deg": turned, "trans_err_deg": moved}
    found |= {"mAA_30": poses.auc(worst, 30, "histogram"), "mAA_30_np": poses.auc(worst, 30, "binned")}
    for threshold in (5, 15, 30):
        found |= {
            f"rra_{threshold}": poses.recall(turned, threshold),
            f"rta_{threshold}": poses.recall(moved, threshold),
        }
    return found


def pose_pairs(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    ours, true = inputs["pred_0to1"], inputs["gt_0to1"]
    count = len(ours)
    # One world per pair: view 2k is the identity, view 2k + 1 the given pose.
    eye = np.broadcast_to(np.eye(4), ours.shape)
    both = [np.stack([eye, given], axis=1).reshape(-1, 4, 4) for given in (ours, true)]
    pairs = [(2 * pair, 2 * pair + 1) for pair in range(count)]
    found: Outputs = {}
    for name, variant in (("superglue", "folded"), ("loftr", "folded"), ("reloc3r", "signed")):
        turned, moved = poses.pair_errors(*both, pairs, translation=variant)  # type: ignore[arg-type]
        worst = poses.worst_angle(turned, moved)
        found |= {
            f"{name}_rot_err": turned,
            f"{name}_trans_err": moved,
            f"{name}_auc_5_10_20": [poses.auc(worst, threshold) for threshold in (5, 10, 20)],
        }
    return found


def pose_auc_only(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    found = [poses.auc(inputs["errors"], threshold) for threshold in (5, 10, 20)]
    return {"superglue_auc_5_10_20": found, "loftr_auc_5_10_20": found}


def recon_pi3(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    ours, true = (inputs[name][inputs["valid_mask"]] for name in ("pred_points", "gt_points"))
    fit = points.fit_similarity(ours, true)
    aligned = fit.apply(torch.from_numpy(ours)).numpy()
    motion = points.refine_rigidly(aligned, true, 0.1)
    moved = aligned @ motion[:3, :3].T + motion[:3, 3]
    distance, _ = nearest_points(moved, true, max_distance=0.1)
    paired = np.isfinite(distance)
    normals = [points.estimate_normals(cloud) for cloud in (moved, true)]
    return {
        "umeyama_scale": float(fit.scale),
        "umeyama_R": fit.rotation,
        "umeyama_t": fit.translation,
        "icp_transform": motion,
        "icp_fitness": paired.mean(),
        "icp_inlier_rmse": np.sqrt((distance[paired] ** 2).mean()),
        "pred_points_after_icp": moved,
        "pred_normals": with_signs_of(expected["pred_normals"], normals[0]),
        "gt_normals": with_signs_of(expected["gt_normals"], normals[1]),
        **cloud_numbers(moved, true, *normals),
    }


def nn_metrics(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    ours, true = inputs["pred_points"], inputs["gt_points"]
    return {
        **cloud_numbers(ours, true, inputs["pred_normals"], inputs["gt_normals"]),
        "completion_ratio_005": points.completion_ratio(ours, true, 0.05),
        "completion_ratio_05": points.completion_ratio(ours, true, 0.5),
    }


def cloud_numbers(ours: np.ndarray, true: np.ndarray, our_normals: np.ndarray, true_normals: np.ndarray) -> Outputs:
    """Both directions with their own normal consistency, as the reference programs report them."""
    there = points.one_way_scores(ours, true, our_normals, true_normals)
    back = points.one_way_scores(true, ours, true_normals, our_normals)
    return {"acc_accmed_nc1_nc1med": there, "comp_compmed_nc2_nc2med": back}


def with_signs_of(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Normals have no sign; take the other's."""
    return ours * np.where((theirs * ours).sum(axis=-1, keepdims=True) < 0, -1, 1)


def rigid_registration_weighted(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    fit = registration.weighted_similarity(inputs["src"], inputs["tgt"], inputs["weights"].astype(np.float64))
    return {"R": fit.rotation, "t": fit.translation, "scale": fit.scale}


def recon_cut3r_align(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    camera_from_world = np.linalg.inv(inputs["first_camera_c2w"].astype(np.float64))
    world = inputs["gt_points_world"].astype(np.float64)
    truth = world @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    found = registration.align_by_medians(inputs["pred_points"].astype(np.float64), truth, inputs["valid_mask"])
    return {
        "gt_aligned": found.truth,
        "pred_aligned": found.predicted,
        "gt_shift_z": found.truth_shift_z,
        "pred_shift_z": found.predicted_shift_z,
        "gt_scale": found.truth_scale,
        "pred_scale": found.predicted_scale,
    }


def robustmvd(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    truth, low = inputs["gt_depth"], inputs["pred_depth_lowres"]
    resized = key_view.resize_nearest(low, truth.shape)
    known = truth > 0
    plain, median = (key_view.key_view_scores(low, truth, align) for align in ("none", "median"))
    aligned = key_view.align_key_view(low, truth, "median")
    error = np.abs(aligned[known] - truth[known]) / truth[known]
    curves = calibration.calibration(error, inputs["uncertainty"][known])
    return {
        "pred_resized": resized,
        "none_absrel": plain.absrel,
        "none_inliers103": plain.inliers103,
        "median_ratio": np.median(truth[known]) / np.median(resized[known]),
        "median_absrel": median.absrel,
        "median_inliers103": median.inliers103,
        "sparsification_oracle": curves.by_error,
        "sparsification_pred": curves.by_uncertainty,
        "ause": curves.ause,
    }


METHODS = {
    "align_with_lstsq": "affine",
    "align_with_lad": "lad_bfgs",
    "align_with_lad2": "lad_adam",
    "align_with_scale": "scale",
    "metric_scale": "none",
}
"""Options of the reference program -> our alignments; without any of them, the ratio of the medians."""


def depth_eval(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    options = notes["kwargs"]
    unknown = sorted({*options} - {*METHODS, "max_depth", "post_clip_max", "lr"})
    if unknown:
        raise ValueError(f"options {', '.join(unknown)} are not known here")
    scores = depth_scores(
        inputs["pred_depth"],
        inputs["gt_depth"],
        align=next((METHODS[option] for option, on in options.items() if option in METHODS and on), "median"),
        max_depth=options.get("max_depth"),
        clip=options.get("post_clip_max"),
        **({"adam_step": options["lr"]} if "lr" in options else {}),
    )
    return {
        "abs_rel": scores.abs_rel,
        "sq_rel": scores.sq_rel,
        "rmse": scores.rmse,
        "log_rmse": scores.log_rmse,
        "d1": scores.delta1,
        "d2": scores.delta2,
        "d3": scores.delta3,
        "valid_pixels": scores.num_pixels,
    }


def trajectories(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    ours, true = inputs["pred_c2w"], inputs["gt_c2w"]
    scores = trajectory.trajectory_scores(ours, true)
    fit = points.fit_similarity(ours[:, :3, 3], true[:, :3, 3])
    return {
        "ate_rmse": scores.ate,
        "ate_mean": scores.errors.mean(),
        "ate_errors": scores.errors,
        "rpe_rot_deg_rmse": scores.rpe_rotation_deg,
        "rpe_trans_rmse": scores.rpe_translation,
        "align_R": fit.rotation,
        "align_t": fit.translation,
        "align_s": scores.scale,
        "ate_rmse_se3": trajectory.trajectory_scores(ours, true, with_scale=False).ate,
    }


def resize_pi3(inputs: Arrays, notes: Mapping[str, Any], expected: Arrays, case: str) -> Outputs:
    width, height = (int(side) for side in inputs["in_size_wh"])
    size, intrinsics = resize_like_pi3(inputs["in_K"], (height, width))
    return {"size_wh": size[::-1], "K": intrinsics}


RUNNERS: dict[str, Callable[[Arrays, Mapping[str, Any], Arrays, str], Outputs]] = {
    "moge_align": moge_align,
    "moge_align_depth": moge_align_depth,
    "moge_align_points": moge_align_points,
    "masked_nearest_resize": masked_nearest_resize,
    "moge_metrics": moge_metrics,
    "boundary_f1": boundaries,
    "pose_vggt": pose_vggt,
    "pose_fast3r": pose_fast3r,
    "pose_pairs": pose_pairs,
    "pose_auc_only": pose_auc_only,
    "recon_pi3": recon_pi3,
    "nn_metrics": nn_metrics,
    "rigid_registration_weighted": rigid_registration_weighted,
    "recon_cut3r_align": recon_cut3r_align,
    "robustmvd": robustmvd,
    "depth_eval": depth_eval,
    "trajectory": trajectories,
    "resize_pi3": resize_pi3,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tensors", help="FILE.safetensors")
    parser.add_argument("notes", help="FILE.json")
    arguments = parser.parse_args()
    arrays = load_file(arguments.tensors)
    with open(arguments.notes, encoding="utf-8") as file:  # noqa: PTH123
        cases = json.load(file)["cases"]
    bad = 0
    for case, notes in cases.items():
        try:
            found = check_case(arrays, case, notes)
        except Exception as error:  # whatever one case does, the others are to be told
            print(f"FAIL {case:<42} {type(error).__name__}: {error}")  # noqa: T201
            bad += 1
            continue
        bad += not found.good
        remark = f"  allowed {found.bound:.0e}" if found.bound != TOLERANCE else ""
        remark += f"  not computed: {', '.join(found.missing)}" if found.missing else ""
        print(f"{'ok  ' if found.good else 'FAIL'} {case:<42} {found.worst:.1e} in {found.output}{remark}")  # noqa: T201
    print(f"{len(cases) - bad} of {len(cases)} cases within their bounds (1e-6 unless stated)")  # noqa: T201
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
