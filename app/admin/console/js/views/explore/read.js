/** The answer to a question: the ranked names, the rows of the table, and the figures of each period. */
import { OTHER, seriesOf } from '../../charts/series.js';
import { ownOf } from '../../amounts.js';
import { readUsage } from '../../pages.js';
import { askedGroups, groupsOf, measureOf, memberOf, nameOf, tableQuery } from './question.js';

const SHOWN_MAX = 8;
const RANKED = 200;

/**
 * @typedef {object} Answer
 * @property {import('../../charts/series.js').Series[]} series
 * @property {(id: string) => string} of the series a member is part of
 * @property {object[]} rows of the table
 * @property {object} total of all rows
 * @property {object[]} periods sums by period
 * @property {object[]} parts sums by period and member, of the members shown
 * @property {string} from
 * @property {string} to
 * @property {boolean} isWhole whether periods and parts are all there are
 * @property {string|null} next cursor of the table
 */

/**
 * @param {import('../../shell.js').Context} ctx
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 */
export async function readAnswer(ctx, signal) {
  const { state, api } = ctx;
  const by = state.get('by');
  const per = state.get('per');
  const measure = measureOf(state);
  const ask = (query) => api.get('usage', query, { signal });
  const rankQuery = state.query({ by: askedGroups([by]), sort: `-${measure.name}`, limit: RANKED });
  const asked = { ...tableQuery(state), limit: RANKED };
  const isSame = JSON.stringify(asked) === JSON.stringify(rankQuery);
  const [ranked, table, periods] = await Promise.all([ask(rankQuery), isSame ? null : ask(asked), readUsage(api, 'usage', state.query({ by: per }), signal)]);
  const { series, of } = seriesOf(ranked.rows.map((row) => {
    const id = memberOf(row, by);
    return { id, name: nameOf(row, by), color: ownOf(ranked.colors, id) ?? 0, size: Number(row[measure.field]) };
  }));
  const rest = series.find((one) => one.id === OTHER);
  if (rest && ranked.next) rest.name = 'Other'; // How many they are is not known: there is a page after this.
  const isCut = ranked.rows.length > SHOWN_MAX;
  const named = series.filter((one) => of(one.id) === one.id && one.color !== 0);
  // A comma parts the values of a filter, so that a name with one cannot be asked for: then all are read.
  const only = isCut && !named.some((one) => one.id.includes(',')) ? { [by]: named.map((one) => one.id).join(',') } : {};
  const parts = await readUsage(api, 'usage', { ...state.query({ by: `${by},${per}` }), ...only }, signal);
  const shown = table ?? ranked;
  return { series, of, rows: shown.rows, next: shown.next, total: shown.total, periods: periods.rows, parts: parts.rows, isWhole: periods.isWhole && parts.isWhole, from: periods.from, to: periods.to, groups: groupsOf(state) };
}

/** The page after. @param {import('../../shell.js').Context} ctx @param {string} cursor */
export const readMore = (ctx, cursor) => ctx.api.get('usage', { ...tableQuery(ctx.state), limit: RANKED, cursor }, { signal: ctx.signal });
