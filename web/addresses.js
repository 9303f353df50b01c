/** The addresses of the views, as links write them. */

/** @param {...string} parts @returns {string} */
export function address(...parts) {
  return `#/${parts.join("/")}`;
}
