"use strict";
// Tables are sorted by their headings; the cells of the confusion matrix open their pictures.
for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const place = head.cellIndex;
    const text = button.dataset.sort === "text";
    const first = text ? "ascending" : "descending";
    const other = text ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of head.parentNode.cells) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    const body = button.closest("table").tBodies[0];
    const value = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const compare = (a, b) => Number(value(a)) - Number(value(b));
    const alphabetical = (a, b) => value(a).localeCompare(value(b), "en");
    const rows = Array.from(body.rows).sort(text ? alphabetical : compare);
    body.append(...(order === "ascending" ? rows : rows.reverse()));
  });
}

const cells = document.getElementById("cells");
if (cells) {
  const known = JSON.parse(cells.textContent);
  const dialog = document.getElementById("pictures");
  const gallery = dialog.querySelector(".gallery");
  const show = (key) => {
    const cell = known.cells[key];
    const places = key.split(",");
    const [given, label] = places.map((place) => known.classes[place]);
    const right = places[0] === places[1];
    const what = right ? given + ", answered rightly" : given + " taken for " + label;
    const order = right ? "the least sure first" : "the surest first";
    const number = cell.count.toLocaleString("en");
    dialog.querySelector("h3").textContent = what;
    dialog.querySelector("p").textContent = cell.pictures.length < cell.count
      ? `${cell.pictures.length} of ${number} pictures, ${order}`
      : `${number} ${cell.count === 1 ? "picture" : "pictures"}, ${order}`;
    gallery.replaceChildren(...cell.pictures.map(([index, percent]) => {
      const figure = document.createElement("figure");
      const picture = document.createElement("img");
      const caption = document.createElement("figcaption");
      picture.src = "data:image/png;base64," + known.png[index];
      picture.alt = "Example " + index;
      caption.textContent = `no. ${index}: ${label} ${percent}`;
      figure.append(picture, caption);
      return figure;
    }));
    dialog.showModal();
  };
  for (const button of document.querySelectorAll("[data-cell]")) {
    button.addEventListener("click", () => show(button.dataset.cell));
  }
  document.getElementById("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
