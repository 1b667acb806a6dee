// The cloud and its cameras as three.js objects. Everything is in display axes: y up, z towards the viewer.
import {
  BufferAttribute, BufferGeometry, DepthTexture, DoubleSide, GLSL3, Group, LineBasicMaterial, LineSegments, Mesh,
  MeshBasicMaterial, NearestFilter, OrthographicCamera, PlaneGeometry, Points, RawShaderMaterial, Scene, Texture,
  UnsignedIntType, Vector2, WebGLRenderTarget,
} from "three";

// Every point is a disc that lies in its surface and covers what its pixel saw. viewer/render.py draws the same.
const POINT_VERTEX = `
precision highp float;
uniform mat4 modelViewMatrix, projectionMatrix;
uniform vec3 eye;
uniform float scale, size, largest, hideBacks;
in vec3 position, color, seenFrom, normal;
out vec3 tint;
out vec2 across;
out float flatness;
void main() {
  tint = color;
  vec4 view = modelViewMatrix * vec4(position, 1.0);
  gl_Position = projectionMatrix * view;
  float far = distance(position, seenFrom);
  float seenFacing = dot(normal, seenFrom - position) / max(far, 1e-9);
  gl_PointSize = clamp(size * far * inversesqrt(max(seenFacing, 0.25)) * scale / -view.z, 2.0, largest);
  float facing = dot(normalize(eye - position), normal);
  // A surface that faces away would only be in the way; w < 0 puts the point out of sight.
  if (hideBacks > 0.5 && facing < 0.0) gl_Position.w = -1.0;
  vec3 turned = mat3(modelViewMatrix) * normal;
  across = length(turned.xy) > 1e-3 ? normalize(turned.xy) : vec2(0.0);
  float ratio = max(abs(facing), 0.3);
  flatness = 1.0 / (ratio * ratio) - 1.0;
}`;
const POINT_FRAGMENT = `
precision highp float;
in vec3 tint;
in vec2 across;
in float flatness;
out vec4 result;
void main() {
  vec2 offset = vec2(gl_PointCoord.x - 0.5, 0.5 - gl_PointCoord.y);
  float along = dot(offset, across);
  if (dot(offset, offset) + along * along * flatness > 0.25) discard;
  result = vec4(tint, 1.0);
}`;

export function makePoints(cloud) {
  const geometry = new BufferGeometry();
  const seenFrom = new Float32Array(cloud.count * 3);
  for (let i = 0; i < cloud.count; i++) seenFrom.set(cloud.cameras[cloud.views[i]].center, i * 3);
  geometry.setAttribute("position", new BufferAttribute(cloud.positions, 3));
  geometry.setAttribute("color", new BufferAttribute(cloud.colors, 3, true));
  geometry.setAttribute("normal", new BufferAttribute(cloud.normals, 3, true));
  geometry.setAttribute("seenFrom", new BufferAttribute(seenFrom, 3));
  const material = new RawShaderMaterial({
    vertexShader: POINT_VERTEX, fragmentShader: POINT_FRAGMENT, glslVersion: GLSL3,
    uniforms: {
      size: { value: cloud.spacing }, scale: { value: 1 }, largest: { value: 64 }, hideBacks: { value: 1 },
      eye: { value: null },
    },
  });
  const points = new Points(geometry, material);
  points.frustumCulled = false;
  return points;
}

export function makeCameras(cloud, redraw) {
  const group = new Group();
  cloud.cameras.forEach((camera, index) => {
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", new BufferAttribute(new Float32Array(camera.corners.flat()), 3));
    geometry.setIndex(cloud.edges);
    const [red, green, blue] = cloud.viewColors.subarray(index * 3, index * 3 + 3);
    const color = (red << 16) | (green << 8) | blue;
    group.add(new LineSegments(geometry, new LineBasicMaterial({ color })));
    if (!camera.thumbnail) return;
    const quad = new BufferGeometry();
    const [, a, b, c, d] = camera.corners; // clockwise from the top left
    quad.setAttribute("position", new BufferAttribute(new Float32Array([a, b, c, d].flat()), 3));
    quad.setAttribute("uv", new BufferAttribute(new Float32Array([0, 1, 1, 1, 1, 0, 0, 0]), 2));
    quad.setIndex([0, 1, 2, 0, 2, 3]);
    const image = new Image();
    const map = new Texture(image);
    image.onload = () => { map.needsUpdate = true; redraw(); };
    image.src = camera.thumbnail;
    group.add(new Mesh(quad, new MeshBasicMaterial({ map, side: DoubleSide })));
  });
  return group;
}

// Eye-dome lighting (Boucheny 2009): darken a pixel by how much nearer its neighbours are, in log depth. It gives
// a cloud without normals its edges and folds.
const QUAD_VERTEX = `
in vec3 position;
out vec2 place;
void main() { place = position.xy * 0.5 + 0.5; gl_Position = vec4(position.xy, 0.0, 1.0); }`;
const QUAD_FRAGMENT = `
precision highp float;
uniform sampler2D colors, depths;
uniform vec2 pixel;
uniform float near, far, strength;
in vec2 place;
out vec4 result;
float logDepth(vec2 at) {
  float z = texture(depths, at).r;
  if (z >= 1.0) return 1e3;
  return log2(near * far / (far - z * (far - near)));
}
void main() {
  vec4 color = texture(colors, place);
  float here = logDepth(place), sum = 0.0;
  for (int i = 0; i < 8; i++) {
    float angle = 0.785398 * float(i);
    float there = logDepth(place + pixel * 1.4 * vec2(cos(angle), sin(angle)));
    sum += there < 999.0 ? clamp(here - there, 0.0, 0.6) : 0.0;
  }
  float shade = here < 999.0 ? exp(-strength * sum / 8.0) : 1.0;
  result = vec4(color.rgb * shade, color.a);
}`;

export class DomeLight {
  constructor() {
    this.target = new WebGLRenderTarget(1, 1, { minFilter: NearestFilter, magFilter: NearestFilter });
    this.target.depthTexture = new DepthTexture(1, 1, UnsignedIntType);
    this.material = new RawShaderMaterial({
      vertexShader: QUAD_VERTEX, fragmentShader: QUAD_FRAGMENT, glslVersion: GLSL3,
      depthTest: false, depthWrite: false, transparent: true,
      uniforms: {
        colors: { value: this.target.texture }, depths: { value: this.target.depthTexture },
        pixel: { value: new Vector2() }, near: { value: 0 }, far: { value: 1 }, strength: { value: 6 },
      },
    });
    this.scene = new Scene();
    this.scene.add(new Mesh(new PlaneGeometry(2, 2), this.material));
    this.camera = new OrthographicCamera(-1, 1, 1, -1, 0, 1);
  }

  resize(width, height) {
    this.target.setSize(width, height);
    this.material.uniforms.pixel.value.set(1 / width, 1 / height);
  }

  render(renderer, scene, camera) {
    const uniforms = this.material.uniforms;
    uniforms.near.value = camera.near;
    uniforms.far.value = camera.far;
    renderer.setRenderTarget(this.target);
    renderer.render(scene, camera);
    renderer.setRenderTarget(null);
    renderer.render(this.scene, this.camera);
  }
}
