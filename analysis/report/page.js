"use strict";
{
  // Sorting: up, down, and back to the order of the plan. What has no number, where others have one, comes last.
  const next = { none: "ascending", ascending: "descending", descending: "none" };
  const spelled = new Intl.Collator(undefined, { numeric: true });

  const sort = (heading) => {
    const table = heading.closest("table");
    const order = next[heading.getAttribute("aria-sort")];
    for (const one of heading.parentElement.cells) one.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", order);
    const rows = [...table.tBodies[0].rows];
    rows.forEach((row, at) => { row.place ??= at; });
    const at = heading.cellIndex, sign = order === "descending" ? -1 : 1;
    const value = (row) => row.cells[at].dataset;
    const numbers = rows.some((row) => "number" in value(row));
    const compare = (a, b) => {
      if (order === "none") return a.place - b.place;
      const [x, y] = [value(a), value(b)];
      if (!numbers) return sign * spelled.compare(x.text, y.text) || a.place - b.place;
      if (("number" in x) !== ("number" in y)) return "number" in x ? -1 : 1;
      return sign * (x.number - y.number || 0) || a.place - b.place;
    };
    table.tBodies[0].append(...rows.sort(compare));
  };

  // A box opens by a click or a tap without this script. With a mouse, resting on the number is enough; a click keeps it.
  let timer;
  const later = (milliseconds, act) => { clearTimeout(timer); timer = setTimeout(act, milliseconds); };
  const opener = (target) => target.closest?.("button[popovertarget]");
  const box = (button) => document.getElementById(button.getAttribute("popovertarget"));

  document.addEventListener("click", (event) => {
    const heading = event.target.closest("button.sort");
    if (heading) sort(heading.parentElement);
    clearTimeout(timer);
    const button = opener(event.target);
    if (button && "hovered" in box(button).dataset) {
      delete box(button).dataset.hovered;
      event.preventDefault();
    }
  });
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return;
    const button = opener(event.target);
    if (button && !box(button).matches(":popover-open")) {
      later(250, () => {
        box(button).dataset.hovered = "";
        box(button).showPopover({ source: button });
      });
    } else if (button || event.target.closest("[popover]")) {
      clearTimeout(timer);
    } else {
      later(150, () => document.querySelectorAll("[data-hovered]:popover-open").forEach((one) => one.hidePopover()));
    }
  });
  document.addEventListener("toggle", (event) => {
    if (event.newState === "closed") delete event.target.dataset.hovered;
  }, true);
}
