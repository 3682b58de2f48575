/** How a record is told in a row: its outcome, tokens and cost. Shared by Requests, Live and Me. */
import { h } from '../../dom.js';
import { clock, count, duration, exactly, short, usd } from '../../format.js';

const OUTCOMES = {
  completed: ['✓', 'Completed', ''],
  incomplete: ['▲', 'Cut short', 'warn'],
  disconnected: ['▲', 'Client left', 'warn'],
  cancelled: ['▲', 'Cancelled', 'warn'],
  interrupted: ['✕', 'Broken off', 'bad'],
  failed: ['✕', 'Failed', 'bad'],
};

export const OUTCOME_ITEMS = [{ value: '', label: 'Any' }, ...Object.entries(OUTCOMES).map(([value, [, label]]) => ({ value, label }))];

/** @param {object} row @returns {{sign: string, text: string, level: ''|'warn'|'bad'|'accent'}} */
export function outcomeOf(row) {
  if (row.cache === 'hit') return { sign: '↺', text: 'From cache', level: 'accent' };
  if (row.cache === 'joined' && row.outcome === 'completed') return { sign: '↺', text: 'Joined a call', level: 'accent' };
  const [sign, text, level] = OUTCOMES[row.outcome] ?? ['', row.outcome, ''];
  return { sign, text: row.outcome === 'failed' && row.status ? `${text}, ${row.status}` : text, level };
}

/** @param {object} row */
export function outcomeCell(row) {
  const { sign, text, level } = outcomeOf(row);
  return h('span.outcome', { class: level || 'text-2', title: row.error_code ?? null }, h('span', { 'aria-hidden': 'true' }, sign), h('span.outcome-text', ` ${text}`));
}

/** @param {object} row */
export function costCell(row) {
  if (row.cost_usd === null) return h('span.warn', '◇ unpriced');
  if (row.unpriced) return [h('span.warn', { title: 'It has no price yet: this is what is known of its cost' }, '◇ '), usd(row.cost_usd)];
  return [row.estimated && h('span.text-3', { title: 'An estimate: the upstream told no usage' }, '≈ '), usd(row.cost_usd)];
}

/** @param {object} row */
export const tokensOf = (row) => (row.input_tokens ?? 0) + (row.output_tokens ?? 0);

/**
 * Columns of a table of records.
 * @param {{tz: string, dated?: boolean, names?: string[]}} of `dated`: the day stands before the time; `names`: which columns
 */
export function recordColumns({ tz, dated = false, names }) {
  const all = {
    time: { key: 'time', label: 'Time', class: 'record-time num', cell: (row) => (dated ? timeWithDay(row.started_at, tz) : clock(row.started_at, tz, { seconds: true })), title: (row) => exactly(row.started_at, tz) },
    team: { key: 'team', label: 'Team', class: 'record-name wide-only', cell: (row) => h('span.cell-cut', { title: row.team.name }, row.team.name) },
    key: { key: 'key', label: 'Key', class: 'record-name', cell: (row) => h('span.cell-cut', { title: row.key.name }, row.key.name) },
    model: { key: 'model', label: 'Model', class: 'record-name', cell: (row) => h('span.cell-cut', { title: row.model }, row.model) },
    outcome: { key: 'outcome', label: 'Outcome', cell: outcomeCell },
    tokens: { key: 'tokens', label: 'Tokens', end: true, class: 'wide-only', cell: (row) => short(tokensOf(row)), title: (row) => `${count(row.input_tokens)} in, ${count(row.cached_tokens)} of them cached; ${count(row.output_tokens)} out` },
    first: { key: 'first', label: 'First byte', end: true, class: 'wide-only text-2', cell: (row) => duration(row.first_byte_ms) },
    took: { key: 'took', label: 'Took', end: true, class: 'wide-only', cell: (row) => duration(row.took_ms) },
    cost: { key: 'cost', label: 'Cost', end: true, cell: costCell },
  };
  return names.map((name) => all[name]);
}

/** "16:39:52" with "24 Nov" before it. */
function timeWithDay(at, tz) {
  const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', timeZone: tz }).format(new Date(at)).replace('Sept', 'Sep');
  return [h('span.text-3.wide-only', `${day} `), clock(at, tz, { seconds: true })];
}
