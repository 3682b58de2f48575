/** Ranges of days: their names, their words, and what the API is asked. */
import { day } from './format.js';

/** @type {[string, string][]} */
export const RANGES = [
  ['today', 'Today'], ['yesterday', 'Yesterday'], ['last_24_hours', 'Last 24 hours'], ['last_7_days', 'Last 7 days'],
  ['last_30_days', 'Last 30 days'], ['this_month', 'This month'], ['last_month', 'Last month'], ['this_year', 'This year'],
];
const NAMES = new Map(RANGES);
const OWN = /^(\d{4}-\d{2}-\d{2})\.\.(\d{4}-\d{2}-\d{2})$/;

/** Whether `text` is a range that the API knows. @param {string} text */
export const isRange = (text) => NAMES.has(text) || OWN.test(text);

/** First and last day of a range of one's own, else null. @param {string} text @returns {[string, string] | null} */
export function ownDays(text) {
  const found = OWN.exec(text);
  return found ? [found[1], found[2]] : null;
}

/** `{range}` or `{from, to}`, as the API takes it. @param {string} text */
export function rangeQuery(text) {
  const own = ownDays(text);
  return own ? { from: own[0], to: own[1] } : { range: text };
}

/** "This month" or "1 Nov to 24 Nov 2026". @param {string} text */
export function rangeLabel(text) {
  const own = ownDays(text);
  return own ? daysLabel(own[0], own[1]) : NAMES.get(text) ?? text;
}

/** "1 Nov to 24 Nov 2026", or one day. @param {string} from @param {string} to both dates, the last is part of it */
export function daysLabel(from, to) {
  const whole = { day: 'numeric', month: 'short', year: 'numeric' };
  if (from === to) return day(from, whole);
  return `${day(from, from.slice(0, 4) === to.slice(0, 4) ? { day: 'numeric', month: 'short' } : whole)} to ${day(to, whole)}`;
}

/** Writers of dates by zone: one takes longer to make than a hundred dates to write. */
const dates = new Map();
const known = new Map();

/** Today's date in a zone. @param {string} tz @param {number} [now] */
export function today(tz, now = Date.now()) {
  if (!dates.has(tz)) dates.set(tz, new Intl.DateTimeFormat('en-CA', { timeZone: tz, year: 'numeric', month: '2-digit', day: '2-digit' }));
  return dates.get(tz).format(now);
}

/** The date `days` after `date`. @param {string} date @param {number} days */
export function addDays(date, days) {
  return new Date(Date.parse(`${date}T12:00:00Z`) + days * 86_400_000).toISOString().slice(0, 10);
}

/** Days of a range as dates, both ends in it. @param {string} text @param {string} tz @returns {[string, string]} */
export function rangeDays(text, tz, now = Date.now()) {
  const own = ownDays(text);
  if (own) return own;
  const at = today(tz, now);
  const first = `${at.slice(0, 8)}01`;
  const before = addDays(first, -1);
  switch (text) {
    case 'yesterday': return [addDays(at, -1), addDays(at, -1)];
    case 'last_24_hours': return [addDays(at, -1), at];
    case 'last_7_days': return [addDays(at, -6), at];
    case 'last_30_days': return [addDays(at, -29), at];
    case 'this_month': return [first, at];
    case 'last_month': return [`${before.slice(0, 8)}01`, before];
    case 'this_year': return [`${at.slice(0, 4)}-01-01`, at];
    default: return [at, at];
  }
}

/** The zone of this browser. */
export const ownZone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';

/** Whether the browser knows a zone of that name. @param {string} tz */
export function isZone(tz) {
  if (!known.has(tz)) {
    try {
      known.set(tz, Boolean(Intl.DateTimeFormat('en', { timeZone: tz })));
    } catch {
      known.set(tz, false);
    }
  }
  return known.get(tz);
}

/** Every zone, UTC first. */
export const zones = () => ['UTC', ...(Intl.supportedValuesOf?.('timeZone') ?? [ownZone()]).filter((name) => name !== 'UTC')];
