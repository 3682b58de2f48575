/** Where the lines of a budget lie: what was spent, the even pace, the forecast and the limit. Pure arithmetic. */

const DAY_MS = 86_400_000;

/**
 * @typedef {object} Burndown
 * @property {{x: number, y: number}[]} actual spent so far, from the window's start to now
 * @property {{x: number, y: number}[]} pace even spending from nothing to the limit; empty where the window has no end
 * @property {{x: number, y: number}[]} forecast from now on; empty where there is none
 * @property {number} limitY
 * @property {number} nowX
 * @property {?{x: number, y: number}} gone where the forecast, or what was spent, meets the limit
 */

/**
 * @param {object} budget as the API gives it
 * @param {number} nowMs
 * @param {{width: number, height: number, pad?: number}} size pixels
 * @returns {Burndown}
 */
export function burndownOf(budget, nowMs, { width, height, pad = 3 }) {
  const limit = Number(budget.maximum_usd);
  const spent = Number(budget.spent_usd);
  const from = Date.parse(budget.window_from ?? budget.days?.[0]?.day ?? nowMs);
  const forecast = budget.forecast_usd === null || budget.forecast_usd === undefined ? null : Number(budget.forecast_usd);
  const exhausted = budget.exhausted_at ? Date.parse(budget.exhausted_at) : null;
  const to = budget.window_to ? Date.parse(budget.window_to) : Math.max(nowMs + (nowMs - from) / 3, exhausted ?? 0, from + DAY_MS);
  const top = Math.max(limit, spent, budget.window_to && forecast !== null ? Math.min(forecast, limit * 1.3) : 0) || 1;
  const x = (ms) => pad + ((Math.min(Math.max(ms, from), to) - from) / (to - from || 1)) * (width - 2 * pad);
  const y = (usd) => height - pad - (Math.min(usd, top) / top) * (height - 2 * pad);
  const actual = points(budget, from, nowMs).map(([ms, usd]) => ({ x: x(ms), y: y(usd) }));
  const nowX = x(nowMs);
  const pace = budget.window_to ? [{ x: x(from), y: y(0) }, { x: x(to), y: y(limit) }] : [];
  return { actual, pace, forecast: ahead(), limitY: y(limit), nowX, gone: meeting() };

  function ahead() {
    if (spent >= limit || nowMs >= to) return [];
    if (exhausted !== null && exhausted > nowMs && exhausted <= to) return [{ x: nowX, y: y(spent) }, { x: x(exhausted), y: y(limit) }];
    return forecast === null || !budget.window_to ? [] : [{ x: nowX, y: y(spent) }, { x: x(to), y: y(forecast) }];
  }

  function meeting() {
    if (spent >= limit) return actual.at(-1) ?? null;
    return exhausted !== null && exhausted > nowMs && exhausted <= to ? { x: x(exhausted), y: y(limit) } : null;
  }
}

/** Moments and what was spent up to each: a day counts at its end, the last one now. */
function points(budget, from, nowMs) {
  const days = budget.days ?? [];
  const found = [[from, 0]];
  let sum = 0;
  for (const each of days) {
    sum += Number(each.spent_usd);
    const end = Date.parse(each.day) + DAY_MS;
    found.push([Math.min(Number.isNaN(end) ? nowMs : end, nowMs), sum]);
  }
  // What the rules have counted is the truth: days may lack what was spent before the rule was made.
  const spent = Number(budget.spent_usd);
  if (found.length === 1) found.push([nowMs, spent]);
  else found[found.length - 1] = [nowMs, spent];
  return found;
}

/** @param {{x: number, y: number}[]} line @returns {string} a path's `d` */
export function pathOf(line) {
  return line.map(({ x, y }, index) => `${index ? 'L' : 'M'}${round(x)} ${round(y)}`).join('');
}

function round(value) {
  return Math.round(value * 10) / 10;
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
