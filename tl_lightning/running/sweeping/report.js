// What belongs to a trial bears data-trial. The pointer lights it everywhere; a click keeps it lit; Escape lets it go.
const told = document.getElementById("told");
const parts = new Map();
for (const part of document.querySelectorAll("[data-trial]")) {
  const number = part.dataset.trial;
  parts.set(number, [...(parts.get(number) || []), part]);
}
let kept = null;
let lit = null;

function light(number) {
  if (number === lit) return;
  for (const part of parts.get(lit) || []) part.classList.remove("lit");
  lit = number;
  for (const part of parts.get(lit) || []) part.classList.add("lit");
  const row = (parts.get(lit) || []).find((part) => part.tagName === "TR");
  told.textContent = row ? row.dataset.told : "";
}
const trialAt = (event) => event.target.closest("[data-trial]")?.dataset.trial ?? null;
document.addEventListener("pointerover", (event) => light(trialAt(event) ?? kept));
document.addEventListener("click", (event) => {
  if (event.target.closest("a, button, .brush, #told")) return;
  const number = trialAt(event);
  kept = number === kept ? null : number;
  light(kept);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") light((kept = null));
});

// A click on a heading sorts by it; cells that are empty stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const numeric = head.classList.contains("number");
    const order = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return (up ? 1 : -1) * (numeric ? a - b : a.localeCompare(b));
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}

// A stroke along an axis of the parallel picture keeps the trials whose value lies within; a click there lets them go.
const ranges = new Map();
function keepWithin() {
  for (const line of document.querySelectorAll("[data-places]")) {
    const places = line.dataset.places.split(",");
    const out = [...ranges].some(([column, [low, high]]) => {
      const place = places[column];
      return place === "" || +place < low || +place > high;
    });
    for (const part of parts.get(line.dataset.trial)) part.classList.toggle("out", out);
  }
}
for (const brush of document.querySelectorAll(".brush")) {
  const column = +brush.dataset.column;
  const mark = brush.cloneNode();
  mark.setAttribute("class", "brushed");
  const placeOf = (event) => {
    const box = brush.getBoundingClientRect();
    return Math.min(Math.max(1 - (event.clientY - box.top) / box.height, 0), 1);
  };
  let start = null;
  brush.addEventListener("pointerdown", (event) => {
    start = placeOf(event);
    brush.setPointerCapture(event.pointerId);
  });
  brush.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const [low, high] = [start, placeOf(event)].sort((a, b) => a - b);
    const [top, height] = [+brush.getAttribute("y"), +brush.getAttribute("height")];
    mark.setAttribute("y", top + (1 - high) * height);
    mark.setAttribute("height", (high - low) * height);
    brush.after(mark);
    ranges.set(column, [low, high]);
    keepWithin();
  });
  brush.addEventListener("pointerup", (event) => {
    if (Math.abs(placeOf(event) - start) < 0.02) {
      ranges.delete(column);
      mark.remove();
      keepWithin();
    }
    start = null;
  });
}
