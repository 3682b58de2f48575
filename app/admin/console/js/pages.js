/** Lists of several pages. */

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
