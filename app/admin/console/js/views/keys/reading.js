/** What the view Keys reads: keys, what each spent this month, the budgets of their teams. */
import { nano } from '../../format.js';
import { readAll, readUsage } from '../../pages.js';
import { memberId, usdOf } from '../../amounts.js';

/** Tabs: name as the API takes it, label, what it is when it is empty; those with a third part are always there. */
export const EVERY_TAB = [
  ['active', 'Active', 'no key works'],
  ['rotating', 'Rotating', 'no key has two secrets at this moment'],
  ['expiring', 'Expiring soon', 'no key ends within two weeks'],
  ['unused', 'Unused for 30 days', 'every key was used within 30 days'],
  ['revoked', 'Revoked', 'no key was revoked'],
  ['expired', 'Expired', null],
  ['all', 'All', null],
];

/**
 * @param {import('../../api.js').Api} api
 * @param {{tab: string, q: string, team: string, tz: string, signal: AbortSignal}} asked
 */
export async function readKeys(api, { tab, q, team, tz, signal }) {
  const [{ rows, isWhole }, usage, budgets] = await Promise.all([
    readAll(api, 'keys', { state: tab, q, team }, { signal }),
    readUsage(api, 'usage', { by: 'team,key', range: 'this_month', tz, team }, signal),
    readAll(api, 'budgets', { team, tz }, { signal }),
  ]);
  const keys = rows.sort((one, other) => compare(one.team.name, other.team.name) || compare(one.name, other.name));
  const spent = new Map(usage.rows.map((row) => [memberId(row, 'key'), row]));
  const teamSpent = new Map();
  for (const row of usage.rows) {
    const id = memberId(row, 'team');
    teamSpent.set(id, usdOf(nano(teamSpent.get(id) ?? '0') + nano(row.cost_usd ?? '0')));
  }
  const sum = keys.reduce((before, key) => before + nano(spent.get(key.id)?.cost_usd ?? '0'), 0n);
  const rest = nano(usage.total.cost_usd) - sum;
  return { keys, isWhole, spent, teamSpent, budgets: budgetsOfTeams(budgets.rows), sumUsd: usdOf(sum), allUsd: usage.total.cost_usd ?? '0', restUsd: rest > 0n && isWhole && tab === 'active' ? usdOf(rest) : null };
}

/** Of each team the budget for all it does: a month's before any other. */
function budgetsOfTeams(rows) {
  const found = new Map();
  for (const each of rows) {
    if (each.key || each.model || each.tag_name) continue;
    if (!found.has(each.team.id) || each.window === 'month') found.set(each.team.id, each);
  }
  return found;
}

/** @returns {Promise<Record<string, number>>} */
export function readCounts(api, { team, signal }) {
  return api.get('keys/counts', { team }, { signal });
}

const compare = (one, other) => one.localeCompare(other, 'en', { numeric: true });
