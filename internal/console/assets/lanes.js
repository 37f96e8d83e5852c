// The timeline: each slot is a lane, drawn on a canvas. A lane is [phase, start]
// pairs of the runners that were in it; the last phase of one that goes on
// reaches to now.
import { follow } from "./live.js";
import { clockOf, hostNow, human, setHostNow } from "./times.js";

const phases = { s: "starting", i: "idle", b: "busy", e: "ending", h: "held" };
const widths = { "15m": 15 * 60e3, "1h": 3600e3, "6h": 6 * 3600e3 };

export function lanes(address) {
  const runs = new Map(); // by runner
  let bySlot = new Map(), window = "1h", paint = colours(), hatch = new Map();
  const stream = follow(`${address}&window=${window}`, {
    parts: draw,
    kinds: {
      lanes(data) {
        setHostNow(data.now);
        if (data.whole) runs.clear();
        for (const lane of data.lanes) runs.set(lane.r, lane);
        sort();
        draw();
      },
    },
  });

  function sort() {
    const oldest = hostNow() - widths[window] - 60e3;
    bySlot = new Map();
    for (const [name, lane] of runs) {
      if (lane.e && lane.e < oldest) { runs.delete(name); continue; }
      if (!bySlot.has(lane.s)) bySlot.set(lane.s, []);
      bySlot.get(lane.s).push(lane);
    }
  }

  const from = () => hostNow() - widths[window];
  const stretches = function* (lane) {
    for (const [i, [phase, start]] of lane.t.entries()) {
      yield { phase: phases[phase], start, end: lane.t[i + 1]?.[1] ?? (lane.e || hostNow()), open: i + 1 === lane.t.length && !lane.e };
    }
  };

  function draw() {
    for (const canvas of document.querySelectorAll("#slots canvas")) drawLane(canvas);
    drawAxis(document.getElementById("axis"));
  }

  function drawLane(canvas) {
    const { ctx, width, height } = prepare(canvas);
    if (!width) return;
    const t0 = from(), scale = width / widths[window];
    ctx.fillStyle = paint.track;
    ctx.fillRect(0, 0, width, height);
    ctx.fillStyle = paint.line;
    for (const t of ticks(t0, width).at) ctx.fillRect(Math.round((t - t0) * scale), 0, 1, height);
    for (const lane of bySlot.get(Number(canvas.dataset.slot)) ?? []) {
      for (const s of stretches(lane)) {
        if (s.end < t0) continue;
        const x = Math.round(Math.max(0, (s.start - t0) * scale)), w = Math.max(1, Math.round((s.end - t0) * scale) - x);
        stretch(ctx, lane, s, x, w, height);
      }
      if (lane.e && lane.e > t0 && scale * 4000 > 1) { // a gap tells one runner from the next
        ctx.fillStyle = paint.panel;
        ctx.fillRect(Math.round((lane.e - t0) * scale) - 1, 0, 1, height);
      }
    }
  }

  // Each phase has a height too, and what failed is hatched: nobody needs the
  // colours to read them.
  function stretch(ctx, lane, s, x, w, height) {
    const heights = { busy: 1, held: 1, starting: .55, idle: .3, ending: .55 };
    const h = Math.round(height * heights[s.phase]), y = height - h;
    ctx.fillStyle = paint[s.phase];
    ctx.fillRect(x, y, w, h);
    const bad = lane.b && (s.phase === "busy" || lane.b === "failed");
    if (bad) {
      ctx.fillStyle = paint.failed;
      ctx.fillRect(x, y, w, h);
      ctx.fillStyle = hatched(ctx);
      ctx.fillRect(x, y, w, h);
    }
    if (s.phase !== "busy" || w < 46 || height < 26) return;
    const words = (lane.j || "job").split(" / ");
    ctx.save();
    ctx.beginPath();
    ctx.rect(x, y, w - 4, h);
    ctx.clip();
    ctx.fillStyle = bad ? paint.onFailed : paint.onBusy;
    ctx.font = `600 12px ${paint.font}`;
    ctx.textBaseline = "middle";
    ctx.fillText(words.at(-1), x + 6, height / 2 + .5);
    ctx.restore();
  }

  function hatched(ctx) {
    const key = paint.hatch + devicePixelRatio;
    if (!hatch.has(key)) {
      const tile = document.createElement("canvas"), r = devicePixelRatio;
      tile.width = tile.height = 6 * r;
      const t = tile.getContext("2d");
      t.scale(r, r);
      t.strokeStyle = paint.hatch;
      t.lineWidth = 1.4;
      t.beginPath();
      for (const d of [-6, 0, 6]) { t.moveTo(d, 6); t.lineTo(d + 6, 0); }
      t.stroke();
      const pattern = ctx.createPattern(tile, "repeat");
      pattern.setTransform(new DOMMatrix().scale(1 / r));
      hatch.set(key, pattern);
    }
    return hatch.get(key);
  }

  function drawAxis(canvas) {
    const { ctx, width, height } = prepare(canvas);
    if (!width) return;
    const t0 = from(), scale = width / widths[window];
    const { at, step } = ticks(t0, width);
    ctx.font = `11px ${paint.font}`;
    ctx.fillStyle = paint.dim;
    ctx.textBaseline = "top";
    for (const t of at) {
      const x = (t - t0) * scale, text = clockOf(t).slice(0, step < 60e3 ? 8 : 5), w = ctx.measureText(text).width;
      if (x - w / 2 < 0 || x + w / 2 > width - 30) continue;
      ctx.fillText(text, x - w / 2, height - 14);
    }
    ctx.fillText("now", width - 23, height - 14);
  }

  // ticks are whole minutes of the viewer's clock, as many as there is room for.
  function ticks(t0, width) {
    const steps = [60e3, 2 * 60e3, 5 * 60e3, 10 * 60e3, 15 * 60e3, 30 * 60e3, 3600e3, 2 * 3600e3];
    const step = steps.find((s) => s / widths[window] * width >= 70) ?? steps.at(-1);
    const zone = new Date(t0).getTimezoneOffset() * 60e3, at = [];
    for (let t = Math.ceil((t0 - zone) / step) * step + zone; t < t0 + widths[window]; t += step) at.push(t);
    return { at, step };
  }

  const tip = document.getElementById("tip");
  const slots = document.getElementById("slots");
  function under(e) {
    const canvas = e.target.closest?.("canvas");
    if (!canvas) return null;
    const box = canvas.getBoundingClientRect();
    const t = from() + (e.clientX - box.left) / box.width * widths[window], near = widths[window] / box.width;
    let best = null;
    for (const lane of bySlot.get(Number(canvas.dataset.slot)) ?? []) {
      for (const s of stretches(lane)) if (t >= s.start - near && t <= s.end + near) best = { lane, s };
    }
    return best;
  }
  slots.addEventListener("pointermove", (e) => {
    const hit = under(e);
    tip.hidden = !hit;
    if (!hit) return;
    const { lane, s } = hit, head = document.createElement("b");
    head.textContent = `${s.phase}${lane.b ? `, ${lane.b}` : ""} ${s.open ? "for " : ""}${human(s.end - s.start)}`;
    tip.replaceChildren(head, `${lane.j || "no job yet"} · ${lane.p} · ${lane.r.slice(lane.r.lastIndexOf("-") + 1)} · ${clockOf(s.start)}`);
    const w = tip.offsetWidth;
    tip.style.left = `${Math.max(8, Math.min(e.clientX + 12, innerWidth - w - 8))}px`;
    tip.style.top = `${e.clientY + 16 + tip.offsetHeight > innerHeight ? e.clientY - tip.offsetHeight - 10 : e.clientY + 16}px`;
  });
  slots.addEventListener("pointerleave", () => { tip.hidden = true; });
  slots.addEventListener("click", (e) => {
    const hit = under(e);
    if (hit) location.href = `/runs/${encodeURIComponent(hit.lane.r)}`;
  });

  const windows = document.getElementById("windows");
  windows.hidden = false;
  windows.addEventListener("click", (e) => {
    const button = e.target.closest("button");
    if (!button) return;
    window = button.dataset.window;
    for (const b of windows.children) b.setAttribute("aria-pressed", String(b === button));
    stream.turn(`${address}&window=${window}`);
    sort();
    draw();
  });

  const repaint = () => { paint = colours(); hatch = new Map(); draw(); };
  addEventListener("theme", repaint);
  new ResizeObserver(draw).observe(slots);
  setInterval(() => { if (!document.hidden) { sort(); draw(); } }, 1000);
  document.addEventListener("visibilitychange", draw);
  draw();
}

function prepare(canvas) {
  const r = devicePixelRatio, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * r) || canvas.height !== Math.round(height * r)) {
    canvas.width = Math.round(width * r);
    canvas.height = Math.round(height * r);
  }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(r, 0, 0, r, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return { ctx, width, height };
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  const out = { font: getComputedStyle(document.body).fontFamily, line: of("line"), panel: of("panel"), track: of("track"), dim: of("dim"), onBusy: of("on-busy"), onFailed: of("on-failed"), hatch: of("hatch") };
  for (const name of [...Object.values(phases), "failed"]) out[name] = of(name);
  return out;
}
