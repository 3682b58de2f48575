/** What an entry of the audit says: the action as a verb, and what was different before and after. Pure. */

const VERBS = {
  create: 'made', make: 'made', update: 'changed', change: 'changed', rename: 'renamed', set: 'set', delete: 'took away', remove: 'took away', revoke: 'revoked',
  rotate: 'rotated', open: 'signed in', close: 'signed out', reprice: 'repriced', import: 'took over', test: 'tested', clear: 'emptied', probe: 'probed', prune: 'pruned',
};

/** "key.rotate" as "Rotated". @param {string} action */
export function sentence(action) {
  const verb = action.split(/[._]/).at(-1);
  const words = VERBS[verb] ?? verb.replaceAll('_', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/**
 * @param {{before: ?object, after: ?object}} row
 * @returns {{name: string, before: ?string, after: ?string}[]} what is not the same, in the order of the later
 */
export function changesOf({ before, after }) {
  const names = [...new Set([...Object.keys(after ?? {}), ...Object.keys(before ?? {})])];
  return names.map((name) => ({ name: name.replaceAll('_', ' '), before: textOf(before?.[name]), after: textOf(after?.[name]) })).filter((each) => each.before !== each.after);
}

function textOf(value) {
  if (value === undefined || value === null) return null;
  if (Array.isArray(value)) return value.map((each) => (typeof each === 'object' ? JSON.stringify(each) : String(each))).join(', ') || 'none';
  if (typeof value === 'object') return Object.entries(value).map(([name, each]) => `${name}=${typeof each === 'object' ? JSON.stringify(each) : each}`).join(', ') || 'none';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return String(value);
}
