// morph makes the children of one element those of another, and keeps the ones
// that are the same: what has the focus, or was drawn on, stays.
export function morph(from, to) {
  const keyed = new Map();
  for (const child of from.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let here = from.firstChild;
  for (const want of [...to.childNodes]) {
    const key = want.dataset?.key;
    const there = key && keyed.get(key);
    if (there) {
      if (there === here) here = here.nextSibling;
      else from.insertBefore(there, here);
      update(there, want);
    } else if (here && !key && !here.dataset?.key && here.nodeName === want.nodeName) {
      const next = here.nextSibling;
      update(here, want);
      here = next;
    } else {
      from.insertBefore(want, here);
    }
  }
  while (here) {
    const next = here.nextSibling;
    here.remove();
    here = next;
  }
}

function update(there, want) {
  if (there.nodeType !== Node.ELEMENT_NODE) {
    if (there.nodeValue !== want.nodeValue) there.nodeValue = want.nodeValue;
    return;
  }
  if (want.dataset?.keep !== undefined) return;
  for (const { name, value } of want.attributes) {
    if (there.getAttribute(name) !== value) there.setAttribute(name, value);
  }
  for (const { name } of [...there.attributes]) {
    if (!want.hasAttribute(name) && name !== "open" && name !== "tabindex") there.removeAttribute(name);
  }
  morph(there, want);
}
