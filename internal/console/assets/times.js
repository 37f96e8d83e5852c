// Times come in UTC. People read them in their own zone, and durations.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

// skew is how far the host's clock is ahead of the viewer's, in ms.
let skew = 0;

export const hostNow = () => Date.now() + skew;
export const setHostNow = (ms) => { skew = ms - Date.now(); };

export function human(ms) {
  let s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s}s`;
  const units = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
  const i = units.findIndex(([size]) => s >= size);
  const [size, name] = units[i], [next, nextName] = units[i + 1];
  const rest = Math.floor((s % size) / next);
  return `${Math.floor(s / size)}${name}${rest ? ` ${rest}${nextName}` : ""}`;
}

export const clockOf = (ms) => clock.format(ms);

// tellTimes writes every time below a node as its data-as says.
export function tellTimes(node) {
  for (const t of node.querySelectorAll("time[data-as]")) {
    const at = Date.parse(t.dateTime);
    let text;
    switch (t.dataset.as) {
      case "since": text = human(hostNow() - at); break;
      case "ago": text = human(hostNow() - at) + " ago"; break;
      case "date": text = date.format(at); break;
      default: text = clock.format(at);
    }
    if (t.textContent !== text) t.textContent = text;
  }
}
