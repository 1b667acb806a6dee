"""A reader written from docs/cache.md alone: numpy, zstandard and the standard library, nothing of distill3d."""

import json
import struct
import tarfile

import numpy as np
import zstandard


def read_shard(path):
    """Key -> list of views, each a dict of arrays; photos are left as bytes under "photo"."""
    samples, views = {}, []
    with tarfile.open(path) as archive:
        for member in archive:
            data = archive.extractfile(member).read()
            name = member.name.split("/")[-1]
            if name.endswith(".labels"):
                views.append(read_labels(data))
            elif name == "sample.json":
                samples[json.loads(data)["key"]] = views
                views = []
            else:
                views[-1]["photo"] = data
    return samples


def read_labels(data):
    assert data[:4] == b"D3VB"
    (length,) = struct.unpack_from("<I", data, 4)
    head = json.loads(data[8 : 8 + length])
    arrays, offset = {}, 8 + length
    for row in head["arrays"]:
        arrays[row["name"]] = read_array(row, data[offset : offset + row["size"]])
        offset += row["size"]
    notes = head["notes"]
    maps = notes.get("maps", {})
    found = {name: array for name, array in arrays.items() if name.rsplit(".", 1)[0] not in maps}
    local, world = "prediction.pointmap_camera", "prediction.pointmap_world"
    for name in sorted(maps, key=lambda name: name == world):
        note = maps[name]
        if note["kind"] == "points":
            made = points_of(name, arrays, maps)
            if "frame" in note:
                made = move(made, note["frame"]["scale"], note["frame"]["rotation"], note["frame"]["translation"])
        elif note["kind"] == "similarity":
            made = move(found[local], *(arrays[f"similarity.{part}"] for part in ("scale", "rotation", "translation")))
        elif note["kind"] == "depth":
            made = np.exp(note["step"] * arrays[name + ".logarithm"])
        elif note["kind"] == "confidence":
            share = arrays[name + ".levels"] / note["levels"]
            low, high = note["low"], note["high"]
            made = low * (high / low) ** share if note["logarithmic"] else low + (high - low) * share
        elif note["kind"] == "normal":
            u, v = (arrays[name + part] * note["step"] for part in (".face_u", ".face_v"))
            z = 1 - abs(u) - abs(v)
            u, v = (side - np.where(z < 0, np.where(side < 0, z, -z), 0) for side in (u, v))
            made = np.stack([u, v, z], axis=-1)
            made /= np.linalg.norm(made, axis=-1, keepdims=True)
        made = np.array(made, dtype=np.float32)
        if name + ".escaped" in arrays:
            made[arrays[name + ".escaped"]] = arrays[name + ".values"]
        found[name] = made
    if notes.get("world") == "similarity":
        made = move(found[local], *(arrays[f"similarity.{part}"] for part in ("scale", "rotation", "translation")))
        made[~np.isfinite(found[local]).all(axis=-1)] = np.nan
        found[world] = made
    if notes.get("depth") == "z":
        found["prediction.depth"] = found[local][..., 2]
    for name, twin in notes.get("same", {}).items():
        found[name] = found[twin]
    return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in found.items()}


def move(points, scale, rotation, translation):
    with np.errstate(invalid="ignore"):
        return points.astype(np.float64) @ (scale * np.asarray(rotation)).T + np.asarray(translation)


def rays_of(name, arrays, maps):
    note = maps[name]
    if "relative_to" in note:
        x, y = rays_of(note["relative_to"], arrays, maps)
    else:
        height, width = arrays[name + ".ray_x"].shape
        v, u = np.mgrid[:height, :width]
        x, y = (p[0] + p[1] * u + p[2] * v for p in note["pinhole"])
    return x + note["ray_step"] * arrays[name + ".ray_x"], y + note["ray_step"] * arrays[name + ".ray_y"]


def points_of(name, arrays, maps):
    note = maps[name]
    n = arrays[name + ".distance"].astype(np.int64)
    if "relative_to" in note:
        other = note["relative_to"]
        n = n + arrays[other + ".distance"] * round(maps[other]["distance_step"] / note["distance_step"])
    x, y = rays_of(name, arrays, maps)
    z = np.exp(note["distance_step"] * n) / np.sqrt(1 + x * x + y * y)
    return np.stack([x * z, y * z, z], axis=-1)


def read_array(row, data):
    shape, kind, encoding = tuple(row["shape"]), np.dtype(row["dtype"]), row["encoding"]
    count = int(np.prod(shape))
    if encoding == "raw":
        return np.frombuffer(data, kind).reshape(shape)
    if encoding == "bits":
        return np.unpackbits(np.frombuffer(unzstd(data), np.uint8))[:count].astype(bool).reshape(shape)
    if encoding == "delta-shuffle":
        unsigned = unshuffle(unzstd(data), kind.itemsize).astype(np.int64)
        differences = (unsigned >> 1) ^ -(unsigned & 1)
        moved = (shape[-1], *shape[:-1]) if len(shape) > 2 else shape
        bits = np.cumsum(differences.reshape(moved), axis=-1).astype(f"i{kind.itemsize}")
        return np.ascontiguousarray(np.moveaxis(bits, 0, -1) if len(shape) > 2 else bits).view(kind)
    (length,) = struct.unpack_from("<I", data)
    u = np.frombuffer(unzstd(data[4 : 4 + length]), np.uint8).astype(np.int64)
    if data[4 + length :]:
        u[u == 48] += unshuffle(unzstd(data[4 + length :]), kind.itemsize)
    differences = (u >> 1) ^ -(u & 1)
    if encoding == "plane-pyramid":
        return pyramid(differences, shape, kind)
    plane = differences.reshape(shape)
    return (plane.cumsum(axis=0).cumsum(axis=1) if encoding == "plane-delta" else plane).astype(kind)


def pyramid(differences, shape, kind):
    """Pixel by pixel, as the page says it."""
    height, width = shape
    if min(shape) < 32:
        return differences.reshape(shape).cumsum(axis=0).cumsum(axis=1).astype(kind)
    plane = np.zeros(shape, dtype=kind)
    coarse = plane[::2, ::2].shape
    known = coarse[0] * coarse[1]
    for row, column in ((1, 1), (0, 1), (1, 0)):
        known += plane[row::2, column::2].size
    start = len(differences) - known
    assert start >= 0
    plane[::2, ::2] = pyramid(differences[: start + coarse[0] * coarse[1]], coarse, kind)
    start += coarse[0] * coarse[1]

    def at(v, u, dv, du):
        if not 0 <= v + dv < height:
            dv = -dv
        if not 0 <= u + du < width:
            du = -du
        return int(plane[v + dv, u + du])

    diagonal, straight = [(-1, -1), (-1, 1), (1, -1), (1, 1)], [(0, -1), (0, 1), (-1, 0), (1, 0)]
    for row, column, neighbours in ((1, 1, diagonal), (0, 1, straight), (1, 0, straight)):
        for v in range(row, height, 2):
            for u in range(column, width, 2):
                four = sorted(at(v, u, *step) for step in neighbours)
                mean = np.int64(four[1] + four[2]).astype(kind) >> 1
                plane[v, u] = (differences[start] + mean).astype(kind)
                start += 1
    return plane


def unshuffle(data, size):
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(size, -1).T).view(f"<u{size}")[:, 0]


def unzstd(data):
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 30)
