// Citations tell what they cite when pointed at or focused; a table that scrolls sideways says so and can be scrolled by
// keyboard; the logo belongs to a landmark.

function citationNotes() {
  const note = Object.assign(document.createElement("div"), { id: "citation-note", role: "tooltip", hidden: true });
  document.body.append(note);
  let shown = null;
  const hide = () => {
    shown?.removeAttribute("aria-describedby");
    note.hidden = true;
    shown = null;
  };
  const place = () => {
    const box = shown.getBoundingClientRect();
    const room = document.documentElement.clientWidth - note.offsetWidth - 8;
    note.style.left = `${Math.max(8, Math.min(box.left, room))}px`;
    const below = box.bottom + note.offsetHeight + 12 < innerHeight;
    note.style.top = `${below ? box.bottom + 6 : box.top - note.offsetHeight - 6}px`;
  };
  const show = (link) => {
    hide();
    shown = link;
    note.textContent = link.dataset.cite;
    note.hidden = false;
    link.setAttribute("aria-describedby", note.id);
    place();
  };
  for (const link of document.querySelectorAll("a.reference[href*='#id'][title]")) {
    link.dataset.cite = link.title;
    link.removeAttribute("title"); // else the browser shows it a second time, and to a mouse only
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("focus", () => show(link));
    link.addEventListener("mouseleave", (event) => event.relatedTarget === note || hide());
    link.addEventListener("blur", hide);
  }
  note.addEventListener("mouseleave", hide);
  addEventListener("scroll", () => shown && place(), { passive: true });
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
}

function focusWhatScrolls() {
  for (const table of document.querySelectorAll(".bd-article table")) {
    const wide = table.scrollWidth > table.clientWidth + 1;
    table.classList.toggle("scrolls", wide); // the style sheet says it in words
    if (wide) table.tabIndex = 0;
    else table.removeAttribute("tabindex");
  }
}

// Widths change with fonts, formulas and the window.
function watchTables() {
  const observer = new ResizeObserver(focusWhatScrolls);
  for (const part of document.querySelectorAll(".bd-article table, .bd-article tbody")) observer.observe(part);
}

// The theme's logo lies outside of every landmark.
function nameTheLogo() {
  const place = document.querySelector(".navbar-brand")?.parentElement;
  place?.setAttribute("role", "navigation");
  place?.setAttribute("aria-label", "front page");
}

addEventListener("DOMContentLoaded", citationNotes);
addEventListener("DOMContentLoaded", nameTheLogo);
addEventListener("DOMContentLoaded", watchTables);
addEventListener("toggle", focusWhatScrolls, { capture: true }); // a table in a fold has no width before
