/** The limits that were checked for a request: who has them, how much was used, what this one needed. */

/**
 * @typedef {object} Checked
 * @property {string} owner "Key", "Team", "openai" …
 * @property {string} what "requests a minute"
 * @property {boolean} isMoney amounts are decimal dollars, else whole numbers
 * @property {?number} used before this request, where it is known
 * @property {?number} needed by this request
 * @property {number} maximum
 * @property {number} left after it
 * @property {boolean} refused it stood in the way
 * @property {boolean} tight less than a tenth is left
 */

const OWNERS = { key: 'key', team: 'team', key_model: 'key and model', team_model: 'team and model', tag: 'tag', upstream: 'upstream' };

/** @param {string} scope @returns {string} */
export function ownerWords(scope) {
  return OWNERS[scope] ?? scope.replaceAll('_', ' ');
}

/** @param {string} name a limit as the gateway names it: `requests_per_minute`, `budget_usd_per_month` @returns {string} */
export function limitWords(name) {
  if (name === 'concurrency') return 'calls at once';
  if (name.startsWith('budget')) {
    const window = /_per_(\w+)$/.exec(name)?.[1];
    return window ? `budget a ${window}` : 'budget in total';
  }
  const [, unit, window] = /^(\w+?)_per_(\w+)$/.exec(name) ?? [];
  return unit ? `${unit} a ${window}` : name.replaceAll('_', ' ');
}

/** @param {string} name of a limit, in a table that says who has it @returns {string} */
function shortWords(name) {
  if (name === 'concurrency') return 'at once';
  if (name.startsWith('budget')) return `budget${/_per_(\w+)$/.exec(name) ? ` a ${/_per_(\w+)$/.exec(name)[1]}` : ' in total'}`;
  return limitWords(name);
}

/**
 * @param {import('./account.js').Account} account
 * @returns {Checked[]} money in nano-dollars
 */
export function checkedLimits(account) {
  const told = account.decision;
  const limits = Array.isArray(told.limits) ? told.limits : [];
  const used = account.told?.limits_checked;
  if (Array.isArray(used)) return used.map(fromRow);
  return limits.filter((each) => Array.isArray(each) && each.length === 4).map((each) => fromStanding(each, account));
}

/** A limit with names for its parts, where the answer has such. */
function fromRow(row) {
  const isMoney = String(row.name).startsWith('budget');
  const [maximum, left] = [row.maximum_nanousd ?? row.maximum, row.left_nanousd ?? row.left];
  return checked(row.scope, row.scope_id, row.name, isMoney, maximum, left, row.needed ?? null, row.refused === true);
}

function fromStanding([scope, name, maximum, left], account) {
  const isMoney = String(name).startsWith('budget');
  const told = account.decision;
  const refused = account.refused && told.scope === scope && told.limit === name;
  return checked(scope, null, name, isMoney, maximum, left, needed(name, isMoney, account, refused), refused);
}

/** What the request took of the limit, where that can be told from what is kept. */
function needed(name, isMoney, account, refused) {
  if (refused && typeof account.decision.needed === 'number') return account.decision.needed;
  if (name === 'concurrency' || name.startsWith('requests')) return 1;
  return isMoney ? account.reservedNano : null;
}

function checked(scope, scopeId, name, isMoney, maximum, left, need, refused) {
  const own = refused ? 0 : need ?? 0;
  const owner = scope === 'upstream' && scopeId ? scopeId : ownerWords(String(scope));
  return {
    owner: owner.charAt(0).toUpperCase() + owner.slice(1),
    what: shortWords(String(name)),
    isMoney,
    used: typeof left === 'number' ? Math.max(0, maximum - left - own) : null,
    needed: need,
    maximum,
    left,
    refused,
    tight: !refused && maximum > 0 && typeof left === 'number' && left < maximum / 10,
  };
}
