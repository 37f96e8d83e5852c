// A log, as it is written. It stays at its end unless somebody scrolled up.
import { follow } from "./live.js";

const longest = 6000; // lines that a page keeps

export function showLog(box) {
  const state = document.getElementById("logstate"), whole = document.getElementById("whole"), kinds = document.getElementById("logs");
  let stream, lines = 0;

  function open(of) {
    stream?.end();
    box.replaceChildren();
    lines = 0;
    state.textContent = "follows";
    whole.href = `${box.dataset.src}.txt?of=${of}`;
    stream = follow(`${box.dataset.src}?of=${of}`, {
      quiet: true,
      kinds: {
        log: add,
        cut() { note("What came before is in the whole log."); },
        end(there) {
          stream.end();
          state.textContent = there ? "complete" : "";
          if (!there) note(of === "console" ? "Nothing is kept of the guest's console." : "The runner's program wrote nothing, or its log is no longer kept.");
        },
      },
    });
  }

  function add(text) {
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
    box.append(text);
    lines += text.split("\n").length - 1;
    while (lines > longest && box.childNodes.length > 1) {
      lines -= box.firstChild.textContent.split("\n").length - 1;
      box.firstChild.remove();
    }
    if (atEnd) box.scrollTop = box.scrollHeight;
  }

  function note(text) {
    const line = document.createElement("span");
    line.className = "dim";
    line.textContent = `${text}\n`;
    box.append(line);
  }

  kinds.hidden = false;
  kinds.addEventListener("click", (e) => {
    const button = e.target.closest("button");
    if (!button) return;
    for (const b of kinds.children) b.setAttribute("aria-pressed", String(b === button));
    open(button.dataset.of);
  });
  open("program");
}
