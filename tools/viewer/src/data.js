// Reads what viewer/pointcloud.py wrote: base64 arrays, little-endian.

function bytes(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

export function decodeCloud(record) {
  const count = record.count;
  const packed = new Uint16Array(bytes(record.positions).buffer);
  const positions = new Float32Array(count * 3);
  for (let i = 0; i < count * 3; i++) positions[i] = record.origin[i % 3] + packed[i] * record.step[i % 3];
  return {
    count,
    positions,
    colors: bytes(record.colors),
    confidence: bytes(record.confidence),
    views: new Uint16Array(bytes(record.views).buffer),
    viewColors: bytes(record.view_colors),
    ramp: bytes(record.ramp),
    cameras: record.cameras,
    edges: record.edges.flat(),
    target: record.target,
    radius: record.radius,
    spacing: record.spacing,
    direction: record.direction,
    fit: record.fit,
    normals: new Int8Array(bytes(record.normals).buffer),
  };
}

export function paint(cloud, mode) {
  if (mode === "photo") return cloud.colors;
  const out = new Uint8Array(cloud.count * 3);
  const table = mode === "confidence" ? cloud.ramp : cloud.viewColors;
  const index = mode === "confidence" ? cloud.confidence : cloud.views;
  for (let i = 0; i < cloud.count; i++) out.set(table.subarray(index[i] * 3, index[i] * 3 + 3), i * 3);
  return out;
}
