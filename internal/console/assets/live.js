// One stream keeps the page up to date. It comes back after a break, each time
// a little later, and says where it was.
import { morph } from "./morph.js";
import { setHostNow, tellTimes } from "./times.js";

const silence = 25000; // ms; the host says something each 10 s
const longest = 30000;

// follow keeps a stream open. The handlers are parts, after parts of the page
// were replaced; kinds, by the name of a message; and quiet, for a stream that
// is not the page's own.
export function follow(address, handlers) {
  const say = handlers.quiet ? () => {} : tell;
  let source, last = "", tries = 0, watchdog, timer, ended = false;

  function heard() {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => lost(), silence);
    tries = 0;
    say("on", "live");
  }

  function open() {
    const url = new URL(address, location.href);
    if (last) url.searchParams.set("last", last);
    source = new EventSource(url);
    watchdog = setTimeout(() => lost(), silence);
    source.addEventListener("parts", (m) => {
      heard();
      for (const [id, html] of Object.entries(JSON.parse(m.data))) {
        const there = document.getElementById(id);
        if (!there) continue;
        const next = there.cloneNode(false);
        next.innerHTML = html;
        morph(there, next);
        tellTimes(there);
      }
      handlers.parts?.();
    });
    source.addEventListener("beat", (m) => { heard(); setHostNow(Number(m.data)); });
    source.addEventListener("over", () => over());
    for (const [kind, handle] of Object.entries(handlers.kinds ?? {})) {
      source.addEventListener(kind, (m) => {
        heard();
        if (m.lastEventId) last = m.lastEventId;
        handle(JSON.parse(m.data), m);
      });
    }
    source.onerror = () => lost();
  }

  async function lost() {
    if (ended) return;
    close();
    tries++;
    if (tries > 1) say("late", "not live: the host does not answer");
    const pause = Math.min(longest, 500 * 2 ** Math.min(tries, 6));
    timer = setTimeout(again, pause / 2 + Math.random() * pause / 2);
  }

  // again looks first whether the session is still good: a stream does not say.
  async function again() {
    try {
      const answer = await fetch("/", { method: "HEAD", cache: "no-store" });
      if (answer.status === 401) return over();
    } catch {
      return lost();
    }
    open();
  }

  function close() {
    source?.close();
    clearTimeout(watchdog);
    clearTimeout(timer);
  }

  function over() {
    ended = true;
    close();
    say("late", "not live");
    const banner = document.getElementById("banner");
    banner.textContent = "The session has ended. Open the console again on its host: tasuki console";
    banner.hidden = false;
  }

  addEventListener("pagehide", close);
  addEventListener("pageshow", (e) => { if (e.persisted && !ended) again(); });
  open();
  return {
    // turn goes on with another stream, from the beginning.
    turn(next) { close(); address = next; last = ""; open(); },
    end() { ended = true; close(); },
  };
}

function tell(state, text) {
  const pulse = document.getElementById("pulse");
  if (!pulse) return;
  if (pulse.dataset.state === state) return;
  pulse.dataset.state = state;
  pulse.querySelector(".text").textContent = text;
}
