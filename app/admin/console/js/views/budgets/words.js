/** What a budget is called, how full it is, and when it is gone. */
import { h } from '../../dom.js';
import { day, moment, usdLimit } from '../../format.js';
import { today } from '../../range.js';

const WINDOWS = { day: 'a day', week: 'a week', month: 'a month', total: 'in total' };

/** "support", "assistant-prod", "research, o4-mini", "support, each service". @param {object} budget */
export function budgetName(budget) {
  const owner = budget.key?.name ?? budget.team.name;
  const narrowed = [budget.model, budget.tag_name && (budget.tag_value === null || budget.tag_value === undefined ? `each ${budget.tag_name}` : `${budget.tag_name}=${budget.tag_value}`)].filter(Boolean);
  return [owner, ...narrowed].join(', ');
}

/** "team · $2,000 a month". @param {object} budget */
export function budgetScope(budget) {
  const of = budget.key ? `key of ${budget.team.name}` : 'team';
  return [of, `${usdLimit(budget.maximum_usd)} ${windowWords(budget.window)}`, budget.mode === 'observe' && 'only watched'].filter(Boolean).join(' · ');
}

/** @param {string} window */
export const windowWords = (window) => WINDOWS[window] ?? window;

/** @param {object} budget */
export function budgetBar(budget) {
  const share = Math.min(100, Math.max(0, Number(budget.spent_percent)));
  const level = budget.state === 'exhausted' ? 'is-bad' : budget.state === 'warned' ? 'is-warn' : '';
  return h('div.bar', { 'aria-hidden': 'true' }, h('i', { class: level, style: { width: `${share}%` } }));
}

/**
 * When it is gone, in words: the answer the view is for.
 * @param {object} budget @param {string} tz @param {number} now
 * @returns {{text: string, note: string, level: 'good'|'warn'|'bad'|'off'}}
 */
export function goneBy(budget, tz, now) {
  const end = budget.window_to ? `lasts until ${shortDay(budget.window_to, tz, -1)}` : 'no end in sight';
  if (budget.state === 'exhausted') return { text: 'gone', note: budget.window_to ? `calls are refused until ${moment(budget.window_to, tz, { now })}` : 'calls are refused', level: 'bad' };
  if (budget.exhausted_at) return { text: weekday(budget.exhausted_at, tz, now), note: budget.window_to ? `before it ends on ${shortDay(budget.window_to, tz, -1)}` : 'at this pace', level: isSoon(budget, now) ? 'warn' : 'off' };
  if (budget.forecast_usd === null && budget.window_to && Number(budget.spent_usd) > 0) return { text: '–', note: 'too early to say', level: 'off' };
  return { text: budget.window_to ? 'not before it ends' : '–', note: end, level: 'good' };
}

/** Whether it ends early: before its window does, or within a month where it has none. @param {object} budget @param {number} now */
const isSoon = (budget, now) => Boolean(budget.window_to) || Date.parse(budget.exhausted_at) - now < 31 * 86_400_000;

/** Of a tag rule without a value: the one that has spent most. @param {object} budget @returns {?{tag_value: string, spent_usd: string, spent_percent: number}} */
export const fullestOf = (budget) => (budget.values ?? []).reduce((most, each) => (most && Number(most.spent_percent) >= Number(each.spent_percent) ? most : each), null);

/** "Thu 26 Nov", with the year where it is another. */
function weekday(at, tz, now) {
  const date = today(tz, Date.parse(at));
  const thisYear = date.slice(0, 4) === today(tz, now).slice(0, 4);
  return day(date, thisYear ? { weekday: 'short', day: 'numeric', month: 'short' } : { day: 'numeric', month: 'short', year: 'numeric' });
}

/** The day of a moment, `shift` milliseconds off: a window that ends at midnight ends with the day before. */
function shortDay(at, tz, shift) {
  return day(today(tz, Date.parse(at) + shift), { day: 'numeric', month: 'short' });
}

/**
 * Which of two budgets ends earlier: what is spent first, then by the day it is gone, then by how full it will be.
 * @param {object} one @param {object} other @returns {number} as `sort` wants it
 */
export function byGone(one, other) {
  return rank(one) - rank(other) || fullness(other) - fullness(one) || String(one.id).localeCompare(String(other.id));
}

function rank(budget) {
  if (budget.state === 'exhausted') return 0;
  return budget.exhausted_at ? Date.parse(budget.exhausted_at) : Number.MAX_SAFE_INTEGER;
}

function fullness(budget) {
  const limit = Number(budget.maximum_usd);
  if (!(limit > 0)) return 100;
  return (100 * Math.max(Number(budget.spent_usd), Number(budget.forecast_usd ?? 0))) / limit;
}
