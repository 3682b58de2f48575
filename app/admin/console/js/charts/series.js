/** Which names a chart shows, in which colour and order. */

const SHOWN_MAX = 8;
/** What is not shown by name. Names are of printable characters, so that none is this one. */
export const OTHER = '\u0001other';

/**
 * @typedef {{id: string, name: string, color: number, size: number}} Member `size`: what it is ranked by
 * @typedef {{id: string, name: string, color: number}} Series
 */

/**
 * Up to eight names as they are; above that the eight largest, then Other. Stack, legend ties and arrow keys go by name.
 * Two that share a slot: the later by name takes the lowest that is free.
 * @param {Member[]} members
 * @returns {{series: Series[], of: (id: string) => string}} `of` gives the series an id is part of
 */
export function seriesOf(members) {
  const ranked = members.filter((one) => one.id !== OTHER).sort((one, other) => other.size - one.size || compare(one, other));
  const shown = ranked.slice(0, SHOWN_MAX).sort(compare);
  const wanted = new Set(shown.map((one) => one.color));
  const taken = new Set();
  const series = shown.map(({ id, name, color }) => {
    let slot = color;
    if (taken.has(slot) || !(slot >= 1 && slot <= 8)) {
      slot = [1, 2, 3, 4, 5, 6, 7, 8].find((one) => !taken.has(one) && !wanted.has(one)) ?? [1, 2, 3, 4, 5, 6, 7, 8].find((one) => !taken.has(one)) ?? 0;
    }
    taken.add(slot);
    return { id, name, color: slot };
  });
  const ids = new Set(series.map((one) => one.id));
  const rest = Math.max(0, ranked.length - SHOWN_MAX);
  const hasMore = members.length > ranked.length;
  if (rest || hasMore) series.push({ id: OTHER, name: hasMore || !rest ? 'Other' : `Other (${rest})`, color: 0 });
  return { series, of: (id) => (ids.has(id) ? id : OTHER) };
}

const compare = (one, other) => one.name.localeCompare(other.name, 'en') || (one.id < other.id ? -1 : 1);

/**
 * Values by series: what is not shown by name adds up in Other.
 * @param {Iterable<[string, number]>} values by member id
 * @param {(id: string) => string} of
 * @returns {Map<string, number>} a map: names come from outside, and `constructor` is one
 */
export function bySeries(values, of) {
  const sums = new Map();
  for (const [id, value] of values) sums.set(of(id), (sums.get(of(id)) ?? 0) + value);
  return sums;
}

/** All values of a slot together. @param {Map<string, number>} values */
export const sumOf = (values) => [...values.values()].reduce((sum, value) => sum + value, 0);
