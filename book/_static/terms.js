// What a term means, where it is first said: shown while the pointer is on the word or the keyboard's focus is, gone with Escape.
(function () {
  const CLOSE = 150;  // milliseconds to move the pointer from the word to its definition
  let shown = null, closing = 0;

  function box() {
    const found = document.getElementById("term-definition");
    if (found) return found;
    const made = document.createElement("div");
    made.id = "term-definition";
    made.setAttribute("role", "tooltip");
    made.hidden = true;
    made.addEventListener("pointerenter", () => clearTimeout(closing));
    made.addEventListener("pointerleave", later);
    document.body.append(made);
    return made;
  }

  function show(link) {
    clearTimeout(closing);
    const tip = box();
    const name = document.createElement("strong");
    name.textContent = link.dataset.term;
    tip.replaceChildren(name, link.dataset.definition.slice(link.dataset.term.length));
    tip.hidden = false;
    if (shown && shown !== link) shown.removeAttribute("aria-describedby");
    shown = link;
    link.setAttribute("aria-describedby", tip.id);
    const word = link.getClientRects()[0], width = tip.offsetWidth, height = tip.offsetHeight;
    const left = Math.max(8, Math.min(word.left, document.documentElement.clientWidth - width - 8));
    const above = word.top - height - 6;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 8 ? above : word.bottom + 6) + scrollY}px`;
  }

  function hide() {
    clearTimeout(closing);
    if (!shown) return;
    shown.removeAttribute("aria-describedby");
    shown = null;
    box().hidden = true;
  }

  function later() {
    clearTimeout(closing);
    closing = setTimeout(hide, CLOSE);
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("a.glossed").forEach((link) => {
      link.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") show(link); });
      link.addEventListener("pointerleave", later);
      link.addEventListener("focus", () => show(link));
      link.addEventListener("blur", later);
      link.addEventListener("click", (event) => {  // on a screen to be touched, the first touch explains and the second follows
        if (event.pointerType === "touch" && link.dataset.touched !== "yes") {
          event.preventDefault();
          link.dataset.touched = "yes";
          show(link);
        }
      });
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  });
})();
