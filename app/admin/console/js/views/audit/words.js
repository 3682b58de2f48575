/** What an entry of the audit says: the action as a verb, and what was different before and after. Pure. */
import { ownOf } from '../../amounts.js';
import { budgetName } from '../budgets/words.js';
import { limitText } from '../keys/words.js';

const VERBS = {
  create: 'made', make: 'made', update: 'changed', change: 'changed', rename: 'renamed', set: 'set', delete: 'took away', remove: 'took away', revoke: 'revoked',
  rotate: 'rotated', open: 'signed in', close: 'signed out', reprice: 'repriced', import: 'took over', test: 'tested', clear: 'emptied', probe: 'probed', prune: 'pruned', pause: 'paused', resume: 'resumed',
};

/** "key.rotate" as "Rotated". @param {string} action */
export function sentence(action) {
  const verb = action.split(/[._]/).at(-1);
  const words = VERBS[verb] ?? verb.replaceAll('_', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/**
 * What was changed, by its name; a rule has none of its own, and goes by whom it binds and how much it allows.
 * @param {{object: {kind: string, id: string, name: ?string}, before: ?object, after: ?object}} row
 */
export function objectName({ object, before, after }) {
  const rule = after ?? before;
  if (['budget', 'limit'].includes(object.kind) && rule?.team?.name) return `${budgetName(rule)}: ${limitText(rule)}`;
  return object.name || object.id;
}

const SKIPPED = new Set(['id', 'created_at', 'last_used_at', 'spent_month_usd', 'requests_month', 'keys_active', 'color']);

/**
 * @param {{before: ?object, after: ?object}} row
 * @returns {{name: string, before: ?string, after: ?string}[]} what is not the same; of what is new, what was given
 */
export function changesOf({ before, after }) {
  const names = [...new Set([...Object.keys(after ?? {}), ...Object.keys(before ?? {})])].filter((name) => !SKIPPED.has(name));
  return names.map((name) => ({ name: name.replaceAll('_', ' '), before: textOf(ownOf(before, name)), after: textOf(ownOf(after, name)) })).filter((each) => each.before !== each.after);
}

/** A value as one reads it; null for what is not there, or empty. */
function textOf(value) {
  if (value === undefined || value === null || value === '') return null;
  if (Array.isArray(value)) return value.map(itemText).join(', ') || null;
  if (typeof value === 'object') return typeof value.name === 'string' && 'id' in value ? value.name : Object.entries(value).map(([name, each]) => `${name}=${itemText(each)}`).join(', ') || null;
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return String(value);
}

function itemText(value) {
  if (value === null || typeof value !== 'object') return String(value);
  if ('kind' in value && 'window' in value) return narrowed(value);
  if ('state' in value && 'id' in value) return value.revoked_at ? `${value.id} revoked` : value.expires_at ? `${value.id} until ${value.expires_at.slice(0, 16).replace('T', ' ')}` : value.id;
  return Object.values(value).every((each) => each === null || typeof each !== 'object') ? Object.values(value).filter((each) => each !== null).join(' ') : JSON.stringify(value);
}

const narrowed = (limit) => [limitText(limit), limit.model, limit.tag_name && `${limit.tag_name}${limit.tag_value ? `=${limit.tag_value}` : ''}`].filter(Boolean).join(' ');
