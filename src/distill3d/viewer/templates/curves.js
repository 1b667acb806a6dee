// Follow the pointer over a panel: a line at the nearest step, and the values there in the legend.
for (const panel of document.querySelectorAll(".panel")) {
  const series = JSON.parse(panel.dataset.series);
  const svg = panel.querySelector("svg"), cursor = panel.querySelector(".cursor");
  const step = panel.querySelector("[data-step]"), labels = [...panel.querySelectorAll("[data-value]")];
  const last = labels.map((label) => label.textContent);
  const nearest = (xs, x) => xs.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(xs[best] - x) ? i : best), 0);
  const format = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const at = series.map((line) => nearest(line.x, x));
    cursor.setAttribute("x1", series[0].x[at[0]]);
    cursor.setAttribute("x2", series[0].x[at[0]]);
    cursor.setAttribute("visibility", "visible");
    step.textContent = "at " + Math.round(series[0].steps[at[0]]);
    labels.forEach((label, i) => { label.textContent = format(series[i].values[at[i]]); });
  });
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    step.textContent = "";
    labels.forEach((label, i) => { label.textContent = last[i]; });
  });
}
