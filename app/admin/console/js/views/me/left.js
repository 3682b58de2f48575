/** What is left before calls are refused: the tightest limit, and when it is gone at this pace. Pure. */
import { day, short, usdCents, usdLimit } from '../../format.js';
import { today } from '../../range.js';

const DAY_MS = 86_400_000;
const LENGTHS = { minute: 60_000, hour: 3_600_000, day: DAY_MS, week: 7 * DAY_MS, month: 30 * DAY_MS };

/** How much of a limit is used, 0 to 1. @param {object} limit */
export function shareOf(limit) {
  const [used, maximum] = limit.kind === 'money' ? [Number(limit.used_usd), Number(limit.maximum_usd)] : [limit.used, limit.maximum];
  return maximum > 0 ? Math.min(1, used / maximum) : 1;
}

/**
 * What becomes of a budget if spending goes on as in its window so far.
 * @param {object} limit @param {number} now
 * @returns {{goneAt: ?number, isKnown: boolean}} the moment that it is gone, null where it lasts until it begins anew
 */
export function paceOf(limit, now) {
  if (limit.exhausted_at) return { goneAt: Date.parse(limit.exhausted_at), isKnown: true };
  if (limit.kind !== 'money' || !limit.resets_at) return { goneAt: null, isKnown: false };
  const end = Date.parse(limit.resets_at);
  const start = startOf(limit.window, end);
  const used = Number(limit.used_usd);
  const left = Number(limit.left_usd);
  if (now - start < (end - start) / 10 || !(used > 0)) return { goneAt: null, isKnown: false };
  const at = now + left / (used / (now - start));
  return { goneAt: at < end ? at : null, isKnown: true };
}

/** @param {object} limit @param {number} now @returns {?number} */
export const goneAt = (limit, now) => paceOf(limit, now).goneAt;

function paceWords({ goneAt: gone, isKnown }, tz) {
  if (gone !== null) return `At this pace it is gone on ${day(today(tz, gone))}. Then calls answer 429 insufficient_quota.`;
  return isKnown ? 'At this pace it lasts.' : 'Too early to say whether it lasts.';
}

/** When the window began that ends at a moment. A month has as many days as the one it is. */
function startOf(window, end) {
  if (window !== 'month') return end - (LENGTHS[window] ?? DAY_MS);
  const last = new Date(end - 12 * 3_600_000);
  return end - new Date(Date.UTC(last.getUTCFullYear(), last.getUTCMonth() + 1, 0)).getUTCDate() * DAY_MS;
}

/**
 * The lead: what is left, of what, until when.
 * @param {object} limit @param {?string} team @param {string} tz @param {number} now
 */
export function leadOf(limit, team, tz, now) {
  const whose = limit.scope === 'key' ? 'for this key' : team ? `for team ${team}` : 'for your team';
  const until = limit.resets_at ? ` until ${day(today(limit.time_zone ?? tz, Date.parse(limit.resets_at) - 1), { day: 'numeric', month: 'short' })}` : limit.kind === 'money' && limit.window === 'total' ? ' in all' : '';
  if (limit.kind !== 'money') return { name: `Left ${whose} ${windowWords(limit)}`, figure: `${short(limit.left)} ${limit.kind === 'concurrency' ? 'at once' : limit.kind}`, beside: `${short(limit.used)} of ${short(limit.maximum)} used`, note: null, level: 'good' };
  const pace = paceOf(limit, now);
  const spent = Number(limit.left_usd) <= 0;
  return {
    name: `Left ${whose}${until}${narrowed(limit)}`, figure: usdCents(limit.left_usd), beside: `${usdCents(limit.used_usd)} of ${usdLimit(limit.maximum_usd)} spent`,
    note: spent ? `Gone. Calls answer 429 insufficient_quota${limit.resets_at ? ' until then' : ''}.` : limit.resets_at || pace.isKnown ? paceWords(pace, tz) : '',
    level: spent ? 'bad' : pace.goneAt === null ? 'good' : 'warn',
  };
}

/** "this minute", "a day". @param {object} limit */
export const windowWords = (limit) => ({ minute: 'this minute', hour: 'this hour', day: 'this day' }[limit.window] ?? '');

function narrowed(limit) {
  const of = [limit.model, limit.tag_name && `${limit.tag_name}${limit.tag_value ? `=${limit.tag_value}` : ''}`].filter(Boolean);
  return of.length ? `, only ${of.join(' and ')}` : '';
}
