// The switch of colours: light, dark, or as the system wants. The host reads
// the cookie, so that no page flashes.
const order = ["", "light", "dark"];
const words = { "": "as the system wants", light: "light", dark: "dark" };
const signs = { "": "◐", light: "☀", dark: "☾" };

export function themes(button) {
  const now = () => document.documentElement.dataset.theme ?? "";
  const show = () => {
    button.textContent = signs[now()];
    button.setAttribute("aria-label", `Colours: ${words[now()]}`);
    button.title = `Colours: ${words[now()]} (t)`;
    dispatchEvent(new Event("theme"));
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(now()) + 1) % order.length];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    document.cookie = `tasuki-theme=${next}; path=/; max-age=${next ? 31536000 : 0}; samesite=strict`;
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}
