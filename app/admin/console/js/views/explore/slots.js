/** The periods of a chart: every one of the range, those without a request too. */
import { OTHER, bySeries, sumOf } from '../../charts/series.js';
import { clock, day, usd } from '../../format.js';
import { addDays, daysLabel, rangeDays, today } from '../../range.js';
import { memberOf } from './question.js';

const HOUR_MS = 3_600_000;
const SHORT_DAYS = 31;

/**
 * @param {import('./read.js').Answer} answer
 * @param {import('../../state.js').State} state
 * @param {import('./question.js').Measure} measure
 * @returns {import('../../charts/frame.js').Slot[]}
 */
export function slotsOf(answer, state, measure) {
  const per = state.get('per');
  const by = state.get('by');
  const keyOf = per === 'hour' ? (row) => String(Date.parse(row.hour)) : (row) => row[per].slice(0, 10);
  const sums = new Map(answer.periods.map((row) => [keyOf(row), row]));
  const parts = new Map();
  for (const row of answer.parts) {
    const values = parts.get(keyOf(row)) ?? [];
    values.push([memberOf(row, by), Number(row[measure.field])]);
    parts.set(keyOf(row), values);
  }
  const hasOther = answer.series.some((one) => one.id === OTHER);
  return frames(answer, state, per).map((frame) => {
    const row = sums.get(frame.key);
    const values = bySeries(parts.get(frame.key) ?? [], answer.of);
    const whole = row ? Number(row[measure.field]) : 0;
    // What is not shown by name is the rest: the whole is the server's sum, not ours.
    values.delete(OTHER);
    if (hasOther) values.set(OTHER, Math.max(0, whole - sumOf(values)));
    return { ...frame, values, total: measure.isMoney ? usd(row?.[measure.field] ?? '0') : measure.value(whole), unpriced: measure.name === 'cost' ? row?.unpriced ?? 0 : 0 };
  });
}

/** Key, labels and place in time of each period. */
function frames(answer, state, per) {
  const { tz } = state;
  const now = today(tz);
  const until = `until ${clock(Date.now(), tz)}`;
  if (per === 'hour') return hours(answer, tz, until);
  const [from, last] = rangeDays(state.range, tz);
  const found = [];
  const isShort = Math.round((Date.parse(last) - Date.parse(from)) / (24 * HOUR_MS)) < SHORT_DAYS;
  const years = from.slice(0, 4) !== last.slice(0, 4);
  for (let key = start(from, per); key <= last; key = after(key, per)) {
    const end = addDays(after(key, per), -1);
    const isNow = key <= now && now <= end;
    found.push({ key, label: labelOf(key, per, isShort, years), title: titleOf(key, end, per, years), isNow, isFuture: key > now, until: isNow ? until : undefined });
  }
  return found;
}

function hours(answer, tz, until) {
  const found = [];
  const first = hourOf(Date.parse(answer.from), tz);
  const end = Date.parse(answer.to);
  const isOneDay = end - first <= 25 * HOUR_MS;
  for (let at = first; at < end; at += HOUR_MS) {
    const time = clock(at, tz);
    const date = today(tz, at);
    const isNow = at <= Date.now() && Date.now() < at + HOUR_MS;
    found.push({ key: String(at), label: isOneDay ? time : time.startsWith('00:') ? day(date, { day: 'numeric', month: 'short' }) : '', title: `${day(date)}, ${time}`, isNow, isFuture: at > Date.now(), until: isNow ? until : undefined });
  }
  return found;
}

/** The hour of the zone that a moment lies in: some zones are half an hour off. */
const hourOf = (at, tz) => at - Number(clock(at, tz).slice(3)) * 60_000;

function start(date, per) {
  if (per === 'month') return `${date.slice(0, 8)}01`;
  if (per === 'week') return addDays(date, -((new Date(`${date}T12:00:00Z`).getUTCDay() + 6) % 7));
  return date;
}

const after = (key, per) => (per === 'month' ? `${addDays(key, 32).slice(0, 8)}01` : addDays(key, per === 'week' ? 7 : 1));

function labelOf(key, per, isShort, years) {
  if (per === 'month') return day(key, years ? { month: 'short', year: '2-digit' } : { month: 'short' });
  if (per === 'day' && isShort) return `${day(key, { weekday: 'short' }).slice(0, 2)} ${Number(key.slice(8))}`;
  return day(key, { day: 'numeric', month: 'short' });
}

function titleOf(key, end, per, years) {
  if (per === 'month') return day(key, { month: 'long', year: 'numeric' });
  if (per === 'week') return `Week of ${daysLabel(key, end)}`;
  return day(key, years ? { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' } : undefined);
}

/** Each period with all before it. */
export function runningTotal(slots, series, measure) {
  const sums = new Map();
  let unpriced = 0;
  return slots.map((slot) => {
    for (const { id } of series) sums.set(id, (sums.get(id) ?? 0) + (slot.values.get(id) ?? 0));
    unpriced += slot.unpriced ?? 0;
    return { ...slot, values: new Map(sums), total: measure.value(sumOf(sums)), unpriced };
  });
}
