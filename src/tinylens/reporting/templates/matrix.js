// One stop of the tab key for all cells of the matrix; the arrow keys go to the next one that opens.
const cells = [...document.querySelectorAll(".matrix button")];
const place = (cell) => [cell.closest("tr").rowIndex, cell.closest("td").cellIndex];
for (const [number, cell] of cells.entries()) {
  cell.tabIndex = number ? -1 : 0;
  cell.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [row, column] = place(cell);
    const along = (other) => {
      const [otherRow, otherColumn] = place(other);
      const [down, right] = [otherRow - row, otherColumn - column];
      const ahead = down * step[0] + right * step[1];
      return ahead > 0 && down * step[1] + right * step[0] === 0 ? ahead : Infinity;
    };
    const next = cells.reduce((best, other) => (along(other) < along(best) ? other : best), cell);
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
