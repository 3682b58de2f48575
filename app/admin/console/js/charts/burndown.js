/** What a budget has left to go: spent so far, an even pace (dotted), the forecast (dashed), the limit. */
import { s } from '../dom.js';

/**
 * @param {{days: {day: string, spent: number}[], from: string, to: string, limit: number, forecast: number|null,
 *   now: string, level?: 'plain'|'warn'|'bad', label: string, width?: number, height?: number}} of
 *   `days`: each day's own, in order; `from`, `to`, `now`: moments in ISO 8601; money in dollars
 */
export function burndown({ days, from, to, limit, forecast, now, level = 'plain', label, width = 180, height = 36 }) {
  const start = Date.parse(from);
  const span = Math.max(1, Date.parse(to) - start);
  const total = days.reduce((sum, one) => sum + one.spent, 0);
  const max = Math.max(limit, total, forecast ?? 0) * 1.04 || 1;
  const x = (moment) => Math.max(0, Math.min(width, ((moment - start) / span) * width));
  const y = (value) => height - (value / max) * height;
  const at = x(Math.min(Date.parse(now), start + span));
  let sum = 0;
  let line = `M0 ${height}`;
  for (const one of days) {
    sum += one.spent;
    line += `L${Math.min(at, x(Date.parse(one.day.slice(0, 10)) + 86_400_000)).toFixed(1)} ${y(sum).toFixed(1)}`;
  }
  return s('svg.burn', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': label, class: level === 'plain' ? '' : `is-${level}` },
    s('line.limit', { x1: 0, x2: width, y1: y(limit), y2: y(limit) }),
    s('path.pace', { d: `M0 ${height}L${width} ${y(limit).toFixed(1)}` }),
    s('path.actual', { d: line }),
    forecast !== null && forecast > total && s('path.ahead', { d: `M${at.toFixed(1)} ${y(total).toFixed(1)}L${width} ${y(forecast).toFixed(1)}` }));
}
