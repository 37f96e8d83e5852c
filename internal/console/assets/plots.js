// The plots of Runs, by uPlot.

// uPlot is a script of before modules.
const load = (name, of) => new Promise((done, fail) => {
  const node = document.createElement(name);
  Object.assign(node, of, { onload: done, onerror: fail });
  document.head.append(node);
});

export async function plots(box) {
  const data = JSON.parse(document.getElementById("series").textContent);
  if (!data.at.length) return;
  const at = (name) => new URL(name, import.meta.url).href;
  await Promise.all([load("script", { src: at("uplot.min.js") }), load("link", { rel: "stylesheet", href: at("uplot.min.css") })]);
  box.hidden = false;
  let drawn = [];
  const draw = () => {
    for (const p of drawn) p.destroy();
    drawn = [...box.querySelectorAll("[data-plot]")].map((place) => plot(place, data));
  };
  addEventListener("theme", draw);
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    draw();
  }).observe(box);
}

function plot(place, data) {
  const uPlot = globalThis.uPlot, css = getComputedStyle(document.documentElement);
  const of = (name) => css.getPropertyValue(`--${name}`).trim();
  const family = getComputedStyle(document.body).fontFamily;
  const axis = { stroke: of("dim"), font: `11px ${family}`, grid: { stroke: of("line-2"), width: 1 }, ticks: { show: false } };
  const line = (label, color, dash) => ({ label, stroke: color, width: 1.75, dash, spanGaps: true, points: { show: data.at.length < 3, size: 5 }, value: (_, v) => (v == null ? "–" : brief(v)) });
  const bars = (label, color) => ({
    label, fill: color, stroke: color, width: 0, points: { show: false },
    paths: uPlot.paths.bars({ size: [.8, 40], align: 1 }), value: (u, v, s, i) => (i == null ? "–" : String(raw[s - 1][i])),
  });
  const raw = [data.other.map((n, i) => n + data.bad[i] + data.good[i]), data.good, data.bad];
  const kinds = {
    // Drawn behind one another: all, then good and bad, then bad alone.
    jobs: {
      series: [bars("all", of("idle")), bars("success", of("busy")), bars("failure", of("failed"))],
      data: [raw[0], data.good.map((n, i) => n + data.bad[i]), data.bad], values: (_, all) => all.map((v) => (Number.isInteger(v) ? v : "")), least: 4,
    },
    waits: {
      series: [line("queue P50", of("busy")), line("queue P95", of("starting"), [6, 3]), line("turnaround P50", of("held"), [2, 3])],
      data: [data.queue50, data.queue95, data.turnaround], values: (_, all) => all.map(brief), least: 1,
    },
    full: {
      series: [{ label: "busy", stroke: of("busy"), fill: of("busy-bg"), width: 1.75, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), value: (_, v) => (v == null ? "–" : `${Math.round(v)} %`) }],
      data: [data.full], values: (_, all) => all.map((v) => `${v}`), least: 100,
    },
  };
  const kind = kinds[place.dataset.plot];
  return new uPlot({
    width: place.clientWidth, height: 166, cursor: { sync: { key: "runs" }, points: { size: 6 }, drag: { x: false, y: false } },
    legend: { live: true }, padding: [8, 8, 0, 0],
    scales: {
      x: { range: [data.at[0], data.at.at(-1) + data.step] },
      y: { range: (_, lo, hi) => [0, Math.max(kind.least, (hi ?? 0) * 1.08)] },
    },
    axes: [{ ...axis, space: 60, values: stamps }, { ...axis, size: 44, values: kind.values }],
    series: [{ label: "", value: (_, v) => (v == null ? "–" : new Date(v * 1000).toLocaleString(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" })) }, ...kind.series],
  }, [data.at, ...kind.data], place);
}

function stamps(_, all) {
  return all.map((s) => {
    const d = new Date(s * 1000);
    if (d.getHours() === 0 && d.getMinutes() === 0) return d.toLocaleDateString(undefined, { month: "short", day: "numeric" });
    return d.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  });
}

// brief writes seconds in one unit.
function brief(s) {
  if (s == null) return "";
  if (s >= 7200) return `${Math.round(s / 360) / 10} h`;
  if (s >= 120) return `${Math.round(s / 6) / 10} m`;
  return `${Math.round(s * 10) / 10} s`;
}
