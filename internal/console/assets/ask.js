// Questions before something is done are pages of their own; here they open
// over the page.
export function asks() {
  const dialog = document.getElementById("ask");
  document.addEventListener("click", async (e) => {
    const link = e.target.closest?.("a[data-ask]");
    if (!link || e.ctrlKey || e.metaKey || e.shiftKey || e.button) return;
    e.preventDefault();
    try {
      const answer = await fetch(link.href, { cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const question = answer.ok && page.getElementById("question");
      if (!question) throw new Error("no question");
      dialog.replaceChildren(...question.childNodes);
      dialog.setAttribute("aria-label", dialog.querySelector("h1").textContent);
      dialog.showModal();
    } catch {
      location.href = link.href;
    }
  });
  dialog.addEventListener("click", (e) => {
    if (!e.target.closest?.("[data-close]")) return;
    e.preventDefault();
    dialog.close();
  });
}
