// Starts the viewer when it scrolls into sight. Without WebGL the picture that the page came with stays.
import { ColorManagement, PerspectiveCamera, Scene, Vector3, WebGLRenderer } from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { decodeCloud, paint } from "./data.js";
import { DomeLight, makeCameras, makePoints } from "./scene.js";

const FIELD_OF_VIEW = 45;
ColorManagement.enabled = false; // photos are sRGB, and so is the screen: bytes go through as they are

function start(host) {
  const cloud = decodeCloud(JSON.parse(document.getElementById(host.dataset.cloud).textContent));
  const renderer = new WebGLRenderer({ antialias: false, alpha: true, powerPreference: "high-performance" });
  const canvas = renderer.domElement;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Point cloud. Arrow keys turn it, plus and minus zoom, R resets.");

  const scene = new Scene();
  const camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, cloud.radius / 300, cloud.radius * 60);
  const points = makePoints(cloud);
  const eye = (points.material.uniforms.eye.value = new Vector3());
  let pending = false;
  const redraw = () => { if (!pending) { pending = true; requestAnimationFrame(frame); } };
  const cameras = makeCameras(cloud, redraw);
  scene.add(points, cameras);
  const light = new DomeLight();

  const controls = new OrbitControls(camera, canvas);
  controls.enableDamping = true;
  controls.dampingFactor = 0.12;
  controls.minDistance = cloud.radius * 0.01;
  controls.maxDistance = cloud.radius * 12;
  controls.autoRotateSpeed = 1.2;
  controls.enableZoom = false; // the wheel scrolls the page until the cloud has been clicked
  canvas.addEventListener("focus", () => { controls.enableZoom = true; });
  canvas.addEventListener("blur", () => { controls.enableZoom = false; });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    if (event.pointerType === "touch") controls.enableZoom = true;
  });
  controls.addEventListener("change", redraw);

  function frame() {
    pending = false;
    controls.update(); // emits "change" while it still moves
    eye.copy(camera.position);
    light.render(renderer, scene, camera);
    if (controls.autoRotate) redraw();
  }

  function resize() {
    const { clientWidth: width, clientHeight: height } = host;
    if (!width || !height) return;
    renderer.setPixelRatio(Math.min(devicePixelRatio || 1, 2));
    renderer.setSize(width, height, false);
    const ratio = renderer.getPixelRatio();
    light.resize(Math.round(width * ratio), Math.round(height * ratio));
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    points.material.uniforms.scale.value = (height * ratio) / (2 * Math.tan((camera.fov * Math.PI) / 360));
    redraw();
  }

  function overview() {
    camera.fov = FIELD_OF_VIEW;
    camera.up.set(0, 1, 0);
    controls.target.fromArray(cloud.target);
    const distance = Math.max(cloud.fit[0] / camera.aspect, cloud.fit[1]);
    camera.position.copy(controls.target).addScaledVector(new Vector3().fromArray(cloud.direction), distance);
    controls.update();
    resize();
  }

  function lookFrom(index) {
    const view = cloud.cameras[index];
    // A little behind the photographer, so that the whole photo fits.
    const forward = new Vector3().fromArray(view.forward);
    camera.fov = Math.min(view.fov_deg * 1.25, 100);
    camera.position.fromArray(view.center).addScaledVector(forward, -0.02 * cloud.radius);
    controls.target.fromArray(view.center).addScaledVector(forward, view.distance);
    controls.update();
    resize();
  }

  const turn = (azimuth, polar) => {
    const offset = camera.position.clone().sub(controls.target);
    offset.applyAxisAngle(camera.up, azimuth);
    const side = new Vector3().crossVectors(camera.up, offset).normalize();
    const tilted = offset.clone().applyAxisAngle(side, polar);
    const lean = tilted.angleTo(camera.up);
    camera.position.copy(controls.target).add(lean > 0.05 && lean < Math.PI - 0.05 ? tilted : offset);
    controls.update();
    redraw();
  };
  const zoom = (factor) => {
    camera.position.sub(controls.target).multiplyScalar(factor).add(controls.target);
    controls.update();
    redraw();
  };
  const keys = {
    ArrowLeft: () => turn(-0.1, 0), ArrowRight: () => turn(0.1, 0),
    ArrowUp: () => turn(0, -0.08), ArrowDown: () => turn(0, 0.08),
    "+": () => zoom(0.9), "=": () => zoom(0.9), "-": () => zoom(1 / 0.9), r: reset, R: reset,
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  const control = (name) => host.closest("[data-viewer]").querySelector(`[data-control="${name}"]`);
  const on = (name, event, action) => control(name)?.addEventListener(event, (e) => { action(e.target); redraw(); });
  const setSize = () => { points.material.uniforms.size.value = cloud.spacing * 2 ** Number(control("size").value); };
  on("size", "input", setSize);
  on("color", "change", (input) => {
    points.geometry.attributes.color.array = paint(cloud, input.value);
    points.geometry.attributes.color.needsUpdate = true;
    if (legend) legend.hidden = input.value !== "confidence";
  });
  on("cameras", "change", (input) => { cameras.visible = input.checked; });
  const legend = host.closest("[data-viewer]").querySelector("[data-legend]");
  on("backs", "change", (input) => { points.material.uniforms.hideBacks.value = input.checked ? 1 : 0; });
  on("spin", "change", (input) => { controls.autoRotate = input.checked; });
  on("from", "change", (input) => {
    const index = input.value === "" ? null : Number(input.value);
    cameras.visible = index === null && (control("cameras")?.checked ?? true); // else a photo would hide the cloud
    if (index === null) overview(); else lookFrom(index);
  });
  on("reset", "click", reset);

  function reset() {
    if (control("from")) control("from").value = "";
    cameras.visible = control("cameras")?.checked ?? true;
    overview();
  }

  // A browser restores form fields on reload: obey them.
  setSize();
  for (const name of ["color", "cameras", "backs", "spin"]) control(name)?.dispatchEvent(new Event("change"));
  const edge = renderer.getContext().getParameter(renderer.getContext().ALIASED_POINT_SIZE_RANGE);
  points.material.uniforms.largest.value = Math.min(edge[1], 128);

  host.replaceChildren(canvas);
  host.closest("[data-viewer]").classList.add("live");
  new ResizeObserver(resize).observe(host);
  resize();
  overview();
  canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", redraw);
}

function tryStart(host) {
  try {
    start(host);
  } catch (error) {
    // The still picture is the answer for browsers without WebGL; say why only to those who look.
    console.info(`distill3d: the point cloud stays a picture (${error.message})`);
    host.closest("[data-viewer]").classList.add("still");
  }
}

const hosts = document.querySelectorAll("[data-cloud]");
if ("IntersectionObserver" in window) {
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      tryStart(entry.target);
    }
  }, { rootMargin: "200px" });
  hosts.forEach((host) => watcher.observe(host));
} else {
  hosts.forEach(tryStart);
}
