// Sorts by a column, with empty cells last; shows the rows and columns that the filters ask for.
(() => {
  const find = selector => document.querySelector(`.results ${selector}`);
  const table = find("#matrix table"), body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells], rows = [...body.rows];
  const value = (row, i) => {
    const cell = row.cells[i], found = cell.dataset.value;
    return found === undefined ? cell.textContent : found === "" ? NaN :
      found === "inf" ? Infinity : Number(found);
  };
  function sort(i, up) {
    heads.forEach((head, j) => head.setAttribute("aria-sort",
      j !== i ? "none" : up ? "ascending" : "descending"));
    const holes = row => Number.isNaN(value(row, i));
    const order = (a, b) => a < b ? -1 : a > b ? 1 : 0;
    rows.sort((a, b) => holes(a) - holes(b) ||
      (holes(a) ? 0 : (up ? 1 : -1) * order(value(a, i), value(b, i))));
    body.append(...rows);
  }
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const was = head.getAttribute("aria-sort"), first = head.dataset.best !== "high";
    sort(i, was === "none" ? first : was !== "ascending");
  }));
  const search = find("#search"), kind = find("#family");
  const group = find("#group"), shown = find("#shown");
  function filter() {
    let count = 0;
    for (const row of rows) {
      row.hidden = !row.dataset.name.includes(search.value.trim().toLowerCase()) ||
        (kind.value !== "" && row.dataset.family !== kind.value);
      count += !row.hidden;
    }
    heads.forEach((head, i) => {
      const hide = i > 1 && group.value !== "" && head.dataset.group !== group.value;
      for (const cell of [head, ...rows.map(row => row.cells[i])]) cell.hidden = hide;
    });
    shown.textContent = `${count} of ${rows.length} schemes`;
  }
  for (const control of [search, kind, group]) control.addEventListener("input", filter);
  filter();
})();
