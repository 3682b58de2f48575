/** What rules of alerts and their results are called. Pure. */
import { usdLimit } from '../../format.js';

export const KINDS = [
  { value: 'budget.threshold', title: 'A budget runs out', parameters: [{ name: 'percents', label: 'At percent of it', value: '80', kind: 'numbers', hint: 'For budgets without marks of their own; 100 always counts' }] },
  { value: 'spend.velocity', title: 'A key spends faster than ever', parameters: [{ name: 'times', label: 'Times the busiest ten minutes of its week', value: '3', kind: 'number' }, { name: 'minimum_usd', label: 'From dollars in ten minutes', value: '5', kind: 'dollars' }] },
  { value: 'model.unpriced', title: 'A model has no price', parameters: [] },
  { value: 'upstream.down', title: 'An upstream is down', noTeam: true, parameters: [{ name: 'after_s', label: 'After seconds', value: '60', kind: 'number' }, { name: 'failed_percent', label: 'Or percent failed', value: '90', kind: 'number' }] },
  { value: 'key.expiring', title: 'A key is about to end', parameters: [{ name: 'days', label: 'Days before', value: '7, 1', kind: 'numbers' }] },
];

/** @param {string} kind */
export const kindTitle = (kind) => KINDS.find((each) => each.value === kind)?.title ?? kind;

/** When it fires, in words. @param {object} rule */
export function parametersText({ kind, parameters: of = {} }) {
  switch (kind) {
    case 'budget.threshold': return `at ${(of.percents ?? []).map((each) => `${each}%`).join(', ') || '100%'}, or at the budget’s own marks`;
    case 'spend.velocity': return `ten minutes cost ${of.times} times the week’s busiest, and ${usdLimit(String(of.minimum_usd ?? 0))} or more`;
    case 'model.unpriced': return 'requests of a day have no price';
    case 'upstream.down': return `unreachable for ${of.after_s} s, or ${of.failed_percent}% fail`;
    case 'key.expiring': return `${(of.days ?? []).join(' and ')} ${(of.days ?? []).at(-1) === 1 ? 'day' : 'days'} before`;
    default: return JSON.stringify(of);
  }
}

/** @param {string} state @param {?number} status @param {?string} error */
export function resultOf(state, status, error) {
  if (state === 'delivered') return { sign: '✓', text: status ? `delivered, ${status}` : 'delivered', level: 'good' };
  if (state === 'waiting') return { sign: '…', text: error ? `tries again: ${error}` : 'on its way', level: error ? 'warn' : 'text-2' };
  if (state === 'gone') return { sign: '✕', text: 'gone: the target wants no more', level: 'bad' };
  return { sign: '✕', text: error ?? (status ? `answered ${status}` : 'failed'), level: 'bad' };
}
