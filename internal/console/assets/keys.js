// The keyboard: letters alone, and never while somebody types.
export function listen() {
  const dialog = document.getElementById("keys"), help = document.getElementById("help");
  help.hidden = false;
  help.addEventListener("click", () => dialog.showModal());
  let went = 0;
  addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, select, textarea, dialog")) return;
    const press = (id) => document.getElementById(id)?.click();
    if (e.timeStamp - went < 1200) {
      const to = { n: "/", r: "/runs", i: "/images" }[e.key];
      went = 0;
      if (to) return void (location.href = to);
    }
    switch (e.key) {
      case "g": went = e.timeStamp; break;
      case "t": press("theme"); break;
      case "?": dialog.showModal(); break;
      case "/": {
        const field = document.querySelector("[data-filter]");
        if (!field) return;
        field.focus();
        e.preventDefault();
        break;
      }
      case "j": step(1); break;
      case "k": step(-1); break;
      case "[": case "]": other(e.key === "]" ? 1 : -1); break;
    }
  });
}

// step goes to the link of the next row, or of the one before.
function step(by) {
  const links = [...document.querySelectorAll("[data-row]")].map((row) => row.querySelector("a")).filter(Boolean);
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const to = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + by));
  links[to].focus();
}

// other takes the choice beside the one of now.
function other(by) {
  const all = [...document.querySelectorAll("#windows > *")];
  const at = all.findIndex((b) => b.getAttribute("aria-pressed") === "true" || b.hasAttribute("aria-current"));
  all[at + by]?.click();
}
