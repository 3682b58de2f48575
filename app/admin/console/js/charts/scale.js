/** From values to pixels. */

const STEPS = [1, 2, 2.5, 5, 10];
const TALLEST = 0.95;
const STRIDES = [1, 2, 5, 7, 10, 14, 15, 30, 61, 91, 182];

/**
 * Lines at 1, 2, 2.5 or 5 times a power of ten; the largest value reaches 95% of the height.
 * @param {number} max the largest value, not negative
 * @param {number} [most] at most so many lines above zero
 * @returns {{top: number, values: number[]}} `top` is the value at the upper edge; values begin with 0
 */
export function ticks(max, most = 5) {
  if (!(max > 0)) return { top: 1, values: [0] };
  const top = max / TALLEST;
  const power = 10 ** Math.floor(Math.log10(top / most));
  const step = (STEPS.find((one) => top / (one * power) < most + 1) ?? 10) * power;
  const values = [];
  for (let index = 0; index * step <= top * 1.0001; index += 1) values.push(Number((index * step).toPrecision(12)));
  return { top, values };
}

/**
 * Which labels of a row of slots are shown, so that none touches another. The marked one always is.
 * @param {string[]} labels
 * @param {number} width of one slot in pixels
 * @param {number} [marked] index
 * @returns {Set<number>}
 */
export function shownLabels(labels, width, marked = -1) {
  const room = Math.max(1, ...labels.map((label) => label.length)) * 6.2 + 8;
  const named = labels.map((label, index) => index).filter((index) => labels[index] !== '');
  const gap = named.length > 1 ? ((named[named.length - 1] - named[0]) / (named.length - 1)) * width : width;
  const needed = room / gap;
  const stride = STRIDES.find((one) => one >= needed) ?? Math.ceil(needed);
  const clear = (index, from) => Math.abs(index - from) * width >= room;
  const shown = new Set(named.filter((index, place) => place % stride === 0 && (marked < 0 || index === marked || clear(index, marked))));
  if (marked >= 0) shown.add(marked);
  const last = named[named.length - 1];
  if (stride > 1 && [...shown].every((index) => clear(last, index))) shown.add(last);
  return shown;
}
