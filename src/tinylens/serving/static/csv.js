// Tables as RFC 4180 wants them, with cells that no spreadsheet takes for a formula.

// with the wide forms, which some take for the narrow ones; the list is OWASP's
const FORMULA = /^[=+\-@＝＋－＠\t\r\n]/;
const QUOTED = /[",\r\n]/;

/** Return a cell: null is empty, numbers stay as they are, words get an apostrophe before = + - @. */
export function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const safe = FORMULA.test(value) ? `'${value}` : value;
  return QUOTED.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Return rows as a file: lines end in CR LF, and a mark says that it is UTF-8, or Excel guesses. */
export function csv(rows) {
  return `\ufeff${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}
