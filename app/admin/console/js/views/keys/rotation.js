/** How far a rotation has come: which secrets there are, who uses which, what happens next. Pure. */
import { moment, until } from '../../format.js';
import { liveSecrets } from './words.js';

/**
 * @typedef {object} Rotation
 * @property {object} fresh the newest secret
 * @property {object[]} old secrets that still work beside it
 * @property {?string} endsAt when the last old one stops; null: never by itself
 * @property {?number} movedPercent of the last hour's requests those with the new one; null where there were none
 * @property {number} oldLastHour
 * @property {{title: string, detail: string, state: 'done'|'now'|'next'}[]} steps
 */

/**
 * @param {object} key @param {object[]} uses what `keys/{id}/secrets` says of each secret
 * @param {{tz: string, now: number, by?: ?string}} of `by`: who rotated, where that is known
 * @returns {?Rotation} null where one secret, or none, works
 */
export function rotationOf(key, uses, { tz, now, by = null }) {
  const live = liveSecrets(key, now);
  if (live.length < 2) return null;
  const used = new Map(uses.map((each) => [each.id, each]));
  const [fresh, ...old] = live.map((each) => ({ ...each, ...used.get(each.id) }));
  const newHour = fresh.requests_last_hour ?? 0;
  const oldLastHour = old.reduce((sum, each) => sum + (each.requests_last_hour ?? 0), 0);
  const ends = old.map((each) => each.expires_at);
  const endsAt = ends.includes(null) ? null : ends.reduce((last, each) => (Date.parse(each) > Date.parse(last) ? each : last));
  const movedPercent = newHour + oldLastHour > 0 ? Math.floor((100 * newHour) / (newHour + oldLastHour)) : null;
  return { fresh, old, endsAt, movedPercent, oldLastHour, steps: stepsOf({ fresh, endsAt, oldLastHour, movedPercent }, { tz, now, by }) };
}

function stepsOf({ fresh, endsAt, oldLastHour, movedPercent }, { tz, now, by }) {
  const weekday = (at) => new Intl.DateTimeFormat('en-GB', { weekday: 'short', timeZone: tz }).format(new Date(at));
  const quiet = movedPercent === 100 || (movedPercent === null && oldLastHour === 0);
  const made = `${weekday(fresh.created_at)} ${moment(fresh.created_at, tz, { now })}`;
  return [
    { title: 'New secret made', detail: by ? `${made}, by ${by}` : made, state: 'done' },
    quiet
      ? { title: 'Programs have moved to the new secret', detail: 'Nothing used the old one within the hour.', state: 'done' }
      : { title: 'Move your programs to the new secret', detail: 'Both work. Wait until nothing uses the old one.', state: 'now' },
    endsAt
      ? { title: `Old secret stops on ${weekday(endsAt)} ${moment(endsAt, tz, { now })}`, detail: `${capital(until(endsAt, { now }))}, by itself`, state: quiet ? 'now' : 'next' }
      : { title: 'Old secret stops when you stop it', detail: 'It has no end of its own.', state: quiet ? 'now' : 'next' },
  ];
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * Which tags still come with an old secret, those of the last hour first.
 * @param {object[]} old @returns {{tag: string, lastUsedAt: ?string, lastHour: number}[]}
 */
export function stillOnOld(old) {
  const found = new Map();
  for (const each of old.flatMap((secret) => secret.tags ?? [])) {
    const tag = `${each.name}=${each.value}`;
    const before = found.get(tag) ?? { tag, lastUsedAt: null, lastHour: 0 };
    const later = !before.lastUsedAt || (each.last_used_at && Date.parse(each.last_used_at) > Date.parse(before.lastUsedAt));
    found.set(tag, { tag, lastUsedAt: later ? each.last_used_at : before.lastUsedAt, lastHour: before.lastHour + (each.requests_last_hour ?? 0) });
  }
  return [...found.values()].sort((one, other) => other.lastHour - one.lastHour || Date.parse(other.lastUsedAt ?? 0) - Date.parse(one.lastUsedAt ?? 0));
}

/** Choices of how long both secrets work. */
export const OVERLAPS = [
  { label: '1 hour', seconds: 3600 },
  { label: '1 day', seconds: 86_400 },
  { label: '7 days', seconds: 604_800, usual: true },
  { label: '30 days', seconds: 2_592_000 },
];
