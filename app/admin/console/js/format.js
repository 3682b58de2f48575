/** How figures, durations and moments are written; see "Numbers" in docs/console.md. Money comes in as decimal text. */

const NANO = 1_000_000_000n;
const UNPRICED = 'unpriced';
export const UNKNOWN = '–';

/** Nano-dollars of a decimal text, exact. @param {string | number} text @returns {bigint} */
export function nano(text) {
  const [, sign, whole, part = ''] = /^(-?)(\d+)(?:\.(\d*))?$/.exec(plain(text)) ?? [null, '', '0', ''];
  const value = BigInt(whole) * NANO + BigInt((part + '000000000').slice(0, 9));
  return sign ? -value : value;
}

const plain = (text) => (typeof text === 'number' ? text.toFixed(9) : String(text));

/** A bigint of nano-dollars as dollars with `places` decimals, half away from zero, thousands set apart. */
function dollars(value, places) {
  const step = 10n ** BigInt(9 - places);
  const size = value < 0n ? -value : value;
  const units = (size + step / 2n) / step;
  const whole = units / 10n ** BigInt(places);
  const rest = (units % 10n ** BigInt(places)).toString().padStart(places, '0');
  return `${value < 0n && units > 0n ? '−' : ''}$${group(whole.toString())}${places ? `.${rest}` : ''}`;
}

const group = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ',');

/** Under ten cents two significant digits, at least four decimals; then cents. Null is "unpriced". @param {string|null|undefined} text */
export function usd(text) {
  if (text === null || text === undefined) return UNPRICED;
  const value = nano(text);
  const size = value < 0n ? -value : value;
  if (size === 0n) return '$0.00';
  if (size >= NANO / 10n) return dollars(value, 2);
  return dollars(value, Math.min(9, Math.max(4, 9 - size.toString().length + 2)));
}

/** Cents, for a column of sums: what is more than nothing and under half a cent says so. @param {string|null|undefined} text */
export function usdCents(text) {
  if (text === null || text === undefined) return UNPRICED;
  const value = nano(text);
  return value > 0n && value < NANO / 200n ? '<$0.01' : dollars(value, 2);
}

/** How a column of sums is written whose total is `total`: cents, or finer where the whole is under a dollar. */
export const usdColumn = (total) => (total !== null && total !== undefined && nano(total) < NANO ? usd : usdCents);

/** Whole dollars, as limits are; cents where there are some. @param {string|null|undefined} text */
export function usdLimit(text) {
  if (text === null || text === undefined) return 'no limit';
  const value = nano(text);
  return dollars(value, value % NANO === 0n ? 0 : 2);
}

/** All of one request: micro-dollars, which add up. @param {string|null|undefined} text */
export const usdExact = (text) => (text === null || text === undefined ? UNPRICED : dollars(nano(text), 6));

/** Short, for an axis: $200, $18.2k. @param {number} value */
export function usdAxis(value) {
  if (value === 0) return '$0';
  if (value >= 1000) return `$${shortAxis(value)}`;
  return value >= 1 || value === 0 ? `$${trim(value, 2)}` : `$${trim(value, 6)}`;
}

const trim = (value, places) => value.toFixed(places).replace(/\.?0+$/, '');

/** 820, 45.6k, 1.2M, 5.5B; with `exact` for a title. @param {number|null|undefined} value */
export function short(value) {
  if (value === null || value === undefined) return UNKNOWN;
  for (const [size, unit] of [[1e12, 'T'], [1e9, 'B'], [1e6, 'M'], [1e3, 'k']]) {
    if (value >= size * 0.9995) {
      const of = value / size;
      return `${of >= 99.95 ? of.toFixed(0) : of.toFixed(1)}${unit}`;
    }
  }
  return trim(value, 2);
}

/** 12.4k as an axis says it: no zero after the point. @param {number} value */
export const shortAxis = (value) => short(value).replace(/\.0(?=\D)/, '');

/** 1,252,687. @param {number|null|undefined} value */
export const count = (value) => (value === null || value === undefined ? UNKNOWN : group(String(Math.round(value))));

/** 0.42%, 9.4%, 32.4%. @param {number|string|null|undefined} value in percent */
export function percent(value, places = undefined) {
  if (value === null || value === undefined) return UNKNOWN;
  const of = Number(value);
  if (of === 0) return '0%';
  return `${of.toFixed(places ?? (of !== 0 && Math.abs(of) < 1 ? 2 : 1))}%`;
}

/** +6%, −4%; unknown is a dash. @param {number|string|null|undefined} value in percent */
export function change(value) {
  if (value === null || value === undefined) return UNKNOWN;
  const of = Math.round(Number(value));
  return of === 0 ? '0%' : `${of > 0 ? '+' : '−'}${group(String(Math.abs(of)))}%`;
}

/** 2.1 ms, 212 ms, 1.31 s, 8 m 04 s, 2 h 05 m. @param {number|null|undefined} ms */
export function duration(ms) {
  if (ms === null || ms === undefined) return UNKNOWN;
  if (ms < 10) return `${trim(ms, 1)} ms`;
  if (ms < 995) return `${Math.round(ms)} ms`;
  if (ms < 59_995) return `${(ms / 1000).toFixed(ms < 99_950 ? 2 : 1)} s`;
  const seconds = Math.round(ms / 1000);
  const two = (value) => String(value).padStart(2, '0');
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} m`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

const kept = new Map();
function formatter(tz, options) {
  const key = `${tz}|${JSON.stringify(options)}`;
  if (!kept.has(key)) kept.set(key, new Intl.DateTimeFormat('en-GB', { timeZone: tz, ...options }));
  return kept.get(key);
}
const parts = (at, tz, options) => Object.fromEntries(formatter(tz, options).formatToParts(new Date(at)).map((part) => [part.type, part.value]));

/** 16:40 or 16:40:03. @param {string|number} at @param {string} tz */
export function clock(at, tz, { seconds = false } = {}) {
  const of = parts(at, tz, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
  return `${of.hour}:${of.minute}${seconds ? `:${of.second}` : ''}`;
}

/** 23 Nov, 10:02; with the year where it is not this one. @param {string|number|null} at @param {string} tz */
export function moment(at, tz, { now = Date.now(), seconds = false } = {}) {
  if (!at) return UNKNOWN;
  const of = parts(at, tz, { day: 'numeric', month: 'short', year: 'numeric' });
  const year = of.year === parts(now, tz, { year: 'numeric' }).year ? '' : ` ${of.year}`;
  return `${of.day} ${month3(of.month)}${year}, ${clock(at, tz, { seconds })}`;
}

/** Just now, 3 min ago, 2 h ago; after a day the moment; `never` for null. @param {string|null} at @param {string} tz */
export function ago(at, tz, { now = Date.now(), never = 'never' } = {}) {
  if (!at) return never;
  const seconds = (now - Date.parse(at)) / 1000;
  if (seconds < 60) return 'just now';
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return moment(at, tz, { now });
}

/** In 5 days 17 hours, in 40 minutes; "now" for what is past. @param {string|null} at */
export function until(at, { now = Date.now() } = {}) {
  if (!at) return 'never';
  const minutes = Math.round((Date.parse(at) - now) / 60_000);
  if (minutes <= 0) return 'now';
  const say = (value, word) => `${value} ${word}${value === 1 ? '' : 's'}`;
  if (minutes < 60) return `in ${say(minutes, 'minute')}`;
  if (minutes < 1440) return `in ${say(Math.floor(minutes / 60), 'hour')}`;
  const days = Math.floor(minutes / 1440);
  const hours = Math.floor((minutes % 1440) / 60);
  return `in ${say(days, 'day')}${days < 10 && hours ? ` ${say(hours, 'hour')}` : ''}`;
}

/** Tue 24 Nov 2026, 16:22:07.418 UTC, for a title. @param {string|null} at @param {string} tz */
export function exactly(at, tz) {
  if (!at) return '';
  const of = parts(at, tz, { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' });
  const ms = String(new Date(at).getMilliseconds()).padStart(3, '0');
  return `${of.weekday} ${of.day} ${month3(of.month)} ${of.year}, ${clock(at, tz, { seconds: true })}.${ms} ${tz}`;
}

/** September is Sept in British English; three letters keep a column even. */
const month3 = (name) => name.slice(0, 3);

/** A date of the calendar, `2026-11-13`, in words; it has no zone. @param {string} date @param {Intl.DateTimeFormatOptions} [options] */
export function day(date, options = { weekday: 'short', day: 'numeric', month: 'short' }) {
  const of = parts(`${date.slice(0, 10)}T12:00:00Z`, 'UTC', options);
  return ['weekday', 'day', 'month', 'year'].filter((part) => of[part]).map((part) => (part === 'month' && options.month === 'short' ? month3(of.month) : of[part])).join(' ');
}

/** "1 request", "2 requests". @param {number} value @param {string} word */
export const plural = (value, word, many = `${word}s`) => `${count(value)} ${value === 1 ? word : many}`;
