// Bundles src/main.js with three.js into the one file that the report page carries.
import { readFile, stat } from "node:fs/promises";
import { build } from "esbuild";

const outfile = new URL("../../src/distill3d/viewer/static/pointcloud.js", import.meta.url).pathname;
const { version } = JSON.parse(await readFile(new URL("node_modules/three/package.json", import.meta.url)));
const licence = (await readFile(new URL("node_modules/three/LICENSE", import.meta.url), "utf8")).trim();
const banner = `/*!
distill3d point cloud viewer (Apache-2.0), bundled with three.js ${version}. Built by tools/viewer; do not edit.

three.js: ${licence}
*/`;

await build({
  entryPoints: [new URL("src/main.js", import.meta.url).pathname],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2020",
  charset: "ascii",
  legalComments: "none", // the banner holds the licence once
  banner: { js: banner },
  outfile,
});

const text = await readFile(outfile, "utf8");
if (/<\/script/i.test(text)) throw new Error("the bundle would end the script element that carries it");
const { size } = await stat(outfile);
if (size > 800_000) throw new Error(`the bundle has ${size} bytes; expected at most 800000`);
console.log(`${outfile}: ${size} bytes, three.js ${version}`);
