/** What a key's limits, state and rotation are called. Pure; money is decimal dollars. */
import { moment, plural, short, until, usdLimit } from '../../format.js';

const DAY_MS = 86_400_000;
const WINDOWS = { minute: 'min', hour: 'h', day: 'day', week: 'week', month: 'month', total: 'in total' };

/** The rules that count every request of their owner. @param {object[]} limits */
const plain = (limits) => limits.filter((each) => !each.model && !each.tag_name);

/** @param {object} limit @returns {string} "600 / min", "2M tokens / min", "20 at once", "$2,000 / month" */
export function limitText(limit) {
  const window = WINDOWS[limit.window];
  if (limit.kind === 'concurrency') return `${whole(limit.maximum)} at once`;
  if (limit.kind === 'money') return limit.window === 'total' ? `${usdLimit(limit.maximum_usd)} in total` : `${usdLimit(limit.maximum_usd)} / ${window}`;
  return limit.kind === 'tokens' ? `${round(limit.maximum)} tokens / ${window}` : `${whole(limit.maximum)} / ${window}`;
}

const whole = (value) => (value >= 100_000 ? round(value) : value.toLocaleString('en-US'));
const round = (value) => short(value).replace(/\.0(?=\D)/, '');

/**
 * The two lines of the column Limits: requests, then tokens; what there is less of counts as the rest.
 * @param {object[]} limits @returns {[string, string]}
 */
export function limitLines(limits) {
  const found = plain(limits).filter((each) => each.kind !== 'money');
  const one = (kind) => found.find((each) => each.kind === kind && each.window === 'minute') ?? found.find((each) => each.kind === kind);
  const told = [one('requests'), one('tokens'), one('concurrency')].filter(Boolean).slice(0, 2).map(limitText);
  if (told.length === 0) return ['no limit', ''];
  const others = found.length - told.length;
  return [told[0], [told[1], others > 0 && told.length > 1 && others > 1 ? `${others} more` : null].filter(Boolean).join(' · ')];
}

export const NO_ISOLATION = 'With * every path is passed on, known or not: teams are not kept apart there, and it leaves no record.';

/**
 * What a key or a team was given of the API. @param {?string[]} endpoints @param {string} otherwise where it was given nothing
 * @returns {string} "files, batches", "every path (*): …"
 */
export function endpointsText(endpoints, otherwise) {
  if (!endpoints) return otherwise;
  return endpoints.includes('*') ? 'every path (*), without isolation or records of what is not known' : endpoints.join(', ') || 'none';
}

/** All in one line: "60 requests, 400k tokens / min, 20 at once". @param {object[]} limits */
export function limitsSentence(limits) {
  const texts = plain(limits).map((each) => (each.kind === 'requests' ? limitText(each).replace(' / ', ' requests / ') : limitText(each)));
  const narrow = limits.length - plain(limits).length;
  if (narrow > 0) texts.push(`${plural(narrow, 'narrower rule')}`);
  return texts.join(', ') || 'none of its own';
}

/** The budget that the list shows: a month's before any other. @param {object[]} limits @returns {?object} */
export function budgetOf(limits) {
  const budgets = plain(limits).filter((each) => each.kind === 'money');
  return budgets.find((each) => each.window === 'month') ?? budgets[0] ?? null;
}

/**
 * @param {object} key @param {string} tz @param {number} now
 * @returns {{kind: 'plain'|'warn'|'accent'|'bad', text: string, mark: string}} how the column State says it
 */
export function stateOf(key, tz, now) {
  if (key.state === 'revoked') return { kind: 'plain', text: key.revoked_at ? `Revoked ${moment(key.revoked_at, tz, { now })}` : 'Revoked', mark: '' };
  if (key.state === 'expired') return { kind: 'plain', text: key.expires_at ? `Expired ${moment(key.expires_at, tz, { now })}` : 'Expired', mark: '' };
  const live = liveSecrets(key, now);
  if (live.length > 1) return { kind: 'accent', text: `Rotating, ${live.length} secrets`, mark: '◐' };
  if (key.expires_at && Date.parse(key.expires_at) - now < 14 * DAY_MS) return { kind: 'warn', text: `Expires ${until(key.expires_at, { now }).replace(/ \d+ hours?$/, '')}`, mark: '▲' };
  return { kind: 'plain', text: key.expires_at ? `Active until ${lastDay(key.expires_at, tz, now)}` : 'Active', mark: '' };
}

/** A key that stops at midnight works until the day before. */
const lastDay = (at, tz, now) => moment(new Date(Date.parse(at) - 1).toISOString(), tz, { now }).split(',')[0];

/** Secrets that still work, the newest first. @param {object} key @param {number} now */
export function liveSecrets(key, now) {
  return (key.secrets ?? [])
    .filter((each) => !each.revoked_at && !(each.expires_at && Date.parse(each.expires_at) <= now))
    .sort((one, other) => Date.parse(other.created_at) - Date.parse(one.created_at) || (one.id < other.id ? 1 : -1));
}

/** "sk-hg-9t2xkd-…": what may be shown of a secret. @param {string} id */
export const secretStem = (id) => `sk-hg-${id}-…`;
