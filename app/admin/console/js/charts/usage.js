/** From rows of usage by day to the columns of a chart. */
import { bySeries, seriesOf, sumOf } from './series.js';
import { memberId, memberName, ownOf } from '../amounts.js';
import { clock, day, usd } from '../format.js';
import { addDays, rangeDays, today } from '../range.js';

const DAYS_MAX = 4000;

/** What of a row is its member: an id for teams and keys, the name for the rest. */
const memberOf = (row, by) => (by === 'team' || by === 'key' ? memberId(row, by) : memberName(row, by));

/**
 * @param {{rows: object[], colors?: Record<string, number>}} usage `by` a dimension and the day, cost not null where it is priced
 * @param {{by: string, range: string, tz: string, now?: number}} of
 * @returns {{series: import('./series.js').Series[], slots: import('./frame.js').Slot[]}}
 */
export function dailyCost(usage, { by, range, tz, now = Date.now() }) {
  const sums = new Map();
  const days = new Map();
  for (const row of usage.rows) {
    const id = memberOf(row, by);
    const cost = Number(row.cost_usd ?? 0);
    const known = sums.get(id) ?? { id, name: memberName(row, by) || `no ${by.replace('tag.', '')}`, color: ownOf(usage.colors, id) ?? row[by]?.color ?? row.color ?? 1, size: 0 };
    sums.set(id, { ...known, size: known.size + cost });
    const slot = days.get(row.day) ?? { values: new Map(), unpriced: 0 };
    slot.values.set(id, (slot.values.get(id) ?? 0) + cost);
    slot.unpriced += row.unpriced ?? 0;
    days.set(row.day, slot);
  }
  const { series, of } = seriesOf([...sums.values()]);
  const [from, to] = rangeDays(range, tz, now);
  const at = today(tz, now);
  const slots = [];
  for (let date = from; date <= to && slots.length < DAYS_MAX; date = addDays(date, 1)) {
    const found = days.get(date) ?? { values: new Map(), unpriced: 0 };
    const values = bySeries(found.values, of);
    slots.push({
      key: date, label: String(Number(date.slice(8))), title: day(date), values, unpriced: found.unpriced, isNow: date === at,
      total: usd(sumOf(values).toFixed(9)), until: date === at ? `today until ${clock(now, tz)}` : undefined,
    });
  }
  return { series, slots };
}
