/** Lists of several pages. */

const USAGE_ROWS = 5000;
const USAGE_PAGES_MAX = 20;

/**
 * All of a list, up to a bound.
 * @param {import('./api.js').Api} api @param {string} path @param {object} query
 * @param {{signal?: AbortSignal, pagesMax?: number, of?: string}} [options] `of`: the member that holds the rows
 * @returns {Promise<{rows: object[], isWhole: boolean, first: object}>} `first`: the answer to the first page
 */
export async function readAll(api, path, query, { signal, pagesMax = 10, of = 'data' } = {}) {
  const rows = [];
  let cursor = null;
  let first = null;
  for (let page = 0; page < pagesMax; page += 1) {
    const answer = await api.get(path, { limit: 200, ...query, cursor }, { signal });
    first ??= answer;
    rows.push(...answer[of]);
    cursor = answer.next ?? null;
    if (!cursor) return { rows, isWhole: true, first };
  }
  return { rows, isWhole: false, first };
}

/**
 * An answer of usage with all of its rows: a chart of the first five thousand alone would show too little.
 * @param {import('./api.js').Api} api @param {string} path `usage` or `/me/usage` @param {object} query @param {AbortSignal} [signal]
 */
export async function readUsage(api, path, query, signal) {
  const { rows, isWhole, first } = await readAll(api, path, { limit: USAGE_ROWS, ...query }, { signal, pagesMax: USAGE_PAGES_MAX, of: 'rows' });
  return { ...first, rows, next: null, isWhole };
}

/** What to say under a list that was not read to its end; null where it was. @param {{rows: object[], isWhole: boolean}} read */
export const moreThan = ({ rows, isWhole }) => (isWhole ? null : `The first ${rows.length} are shown. There are more.`);
