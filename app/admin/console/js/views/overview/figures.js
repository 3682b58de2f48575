/** The first row: what was spent, whether it will last, and four figures beside it. */
import { h, put } from '../../dom.js';
import { count, day, duration, percent, short, usd, usdCents, usdColumn, usdLimit } from '../../format.js';
import { today } from '../../range.js';

/** @param {import('../../shell.js').Context} ctx @returns {{element: HTMLElement, draw: (context: object) => void}} */
export function figures(ctx) {
  const theMonth = tile('Spent this month', 'is-lead');
  const oneDay = tile('Today');
  const requests = tile('Requests');
  const firstByte = tile('First byte p95, 24 h');
  const saved = tile('Saved by cache');
  const element = h('section.panel.figures', { 'aria-label': 'Figures of the month' }, [theMonth, oneDay, requests, firstByte, saved].map((one) => one.element));
  return {
    element,
    draw({ data, until }) {
      const { month } = data;
      const cost = usdColumn(month.spent_usd);
      theMonth.draw(`Spent in ${day(today(data.time_zone, Date.parse(month.from)), { month: 'long' })}`, cost(month.spent_usd), null);
      put(theMonth.note, wordsOf(month));
      put(theMonth.more, month.budget_usd === null && month.forecast_usd === null ? budgetLink(ctx) : barOf(month));
      oneDay.draw(`Today, ${until}`, cost(data.today.spent_usd), usualOf(data.today.usual_percent, data.until, data.time_zone));
      const { requests: all, failed } = data.requests;
      requests.draw('Requests', short(all), all ? `${percent((failed / all) * 100)} failed` : 'none yet', count(all));
      firstByte.draw('First byte p95, 24 h', duration(data.service.first_byte_p95_ms), data.service.overhead_p95_ms === null ? 'of the last 24 hours' : `overhead p95 ${duration(data.service.overhead_p95_ms)}`);
      saved.draw('Saved by cache', usd(data.saved.saved_usd), savedOf(data));
    },
  };
}

/** Where there is nothing to measure against, the next step. */
const budgetLink = (ctx) => (ctx.may('admin') ? h('a.note', { href: ctx.state.href('budgets') }, 'Make a budget') : h('p.note', 'There is no budget to measure it against.'));

function savedOf({ saved, month }) {
  const whole = Number(saved.saved_usd) + Number(month.spent_usd);
  return whole > 0 ? `${percent((Number(saved.saved_usd) / whole) * 100)} of what it would have cost` : 'nothing asked yet';
}

function tile(label, cls = '') {
  const name = h('p.figure-name', label);
  const value = h('p.figure', '\u00a0');
  const note = h('p.note', '\u00a0');
  const more = h('div');
  const element = h('div.figure-tile', { class: cls }, name, h('div.figure-line', value, note), more);
  return {
    element, note, more,
    draw(text, figure, under, exact = null) {
      put(name, text);
      put(value, figure);
      if (exact) value.setAttribute('title', exact);
      if (under !== null) put(note, under);
    },
  };
}

function wordsOf(month) {
  const forecast = month.forecast_usd === null ? 'forecast: too early to say' : `forecast ${usdLimit(rounded(month.forecast_usd))}`;
  if (month.budget_usd === null) return forecast;
  const over = month.forecast_usd !== null && Number(month.forecast_usd) > Number(month.budget_usd);
  return [`of ${usdLimit(month.budget_usd)} · `, h('span', { class: over ? 'warn' : '' }, over ? '▲ ' : '', forecast)];
}

/** A forecast to the cent would promise what nobody knows; one of a few cents needs them. */
const rounded = (text) => (Number(text) >= 10 ? String(Math.round(Number(text))) : usdCents(text).replace(/[^0-9.]/g, ''));

function barOf(month) {
  const spent = Number(month.spent_usd);
  const forecast = month.forecast_usd === null ? spent : Number(month.forecast_usd);
  const whole = Math.max(month.budget_usd === null ? forecast : Number(month.budget_usd), spent);
  if (!(whole > 0)) return h('div.bar');
  const width = (value) => `${Math.max(0, Math.min(100, (value / whole) * 100)).toFixed(2)}%`;
  const level = month.budget_usd !== null && spent >= Number(month.budget_usd) ? 'is-bad' : '';
  const said = month.budget_usd === null ? `${usdCents(month.spent_usd)} spent` : `${percent((spent / Number(month.budget_usd)) * 100)} of the budget is spent`;
  return h('div.bar', { role: 'img', 'aria-label': said }, h('i', { class: level, style: { width: width(spent) } }), forecast > spent && h('i.is-forecast', { style: { width: width(Math.min(forecast, whole) - spent) } }));
}

function usualOf(usual, until, tz) {
  if (usual === null) return 'too early to compare';
  const weekday = new Intl.DateTimeFormat('en-GB', { weekday: 'long', timeZone: tz }).format(Date.parse(until));
  const size = Math.round(Math.abs(usual));
  return size === 0 ? `like a usual ${weekday}` : `${size}% ${usual > 0 ? 'above' : 'below'} a usual ${weekday}`;
}
