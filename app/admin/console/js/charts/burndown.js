/** A budget's burn-down: what was spent, an even pace (dotted), the forecast (dashed), the limit, and where it is gone. */
import { s } from '../dom.js';
import { usdCents, usdLimit } from '../format.js';

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
 * @param {object} budget as the API gives it
 * @param {{now?: number, width?: number, height?: number}} [options] `width`, `height` in pixels
 * @returns {SVGElement}
 */
export function burndown(budget, { now = Date.now(), width = 220, height = 40 } = {}) {
  const of = burndownOf(budget, now, { width, height });
  const level = budget.state === 'exhausted' ? 'is-bad' : budget.state === 'warned' || (budget.exhausted_at && budget.window_to) ? 'is-warn' : '';
  const said = `${usdCents(budget.spent_usd)} of ${usdLimit(budget.maximum_usd)} spent${budget.forecast_usd ? `, forecast ${usdCents(budget.forecast_usd)}` : ''}`;
  return s('svg.burn', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': said, class: level },
    s('line.limit', { x1: 0, x2: width, y1: of.limitY, y2: of.limitY }),
    of.pace.length > 0 && s('path.pace', { d: pathOf(of.pace) }),
    s('path.actual', { d: pathOf(of.actual) }),
    of.forecast.length > 0 && s('path.ahead', { d: pathOf(of.forecast) }),
    of.actual.length > 0 && s('circle.now', { cx: of.actual.at(-1).x, cy: of.actual.at(-1).y, r: 2.5 }),
    of.gone && s('path.gone', { d: cross(of.gone) }));
}

const cross = ({ x, y }) => `M${round(x - 3)} ${round(y - 3)}l6 6m0 -6l-6 6`;
