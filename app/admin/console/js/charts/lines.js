/** Lines over days, one for each series; the stretch to a day that goes on is dashed. */
import { s } from '../dom.js';
import { frame } from './frame.js';

/** @param {import('./frame.js').ChartData} data */
export function lines(data) {
  return frame(data, { max: maxOf, paint, partAt });
}

const maxOf = (data) => data.slots.reduce((max, slot) => Math.max(max, ...slot.values.values()), 0);

function paint(layer, plot, data) {
  const past = data.slots.filter((slot) => !slot.isFuture);
  for (const one of data.series) {
    const points = past.map((slot, index) => [plot.x(index), plot.y(slot.values.get(one.id) ?? 0)]);
    const running = past.findIndex((slot) => slot.isNow);
    const solid = running > 0 ? points.slice(0, running) : points;
    const group = s('g.series', { 'data-series': one.id }, s('path.line', { class: `s${one.color}`, d: pathOf(solid) }));
    if (running > 0) group.append(s('path.line.is-now', { class: `s${one.color}`, d: pathOf(points.slice(running - 1)) }));
    const end = points[points.length - 1];
    if (end) group.append(s('circle.fill.dot', { class: `s${one.color}`, cx: end[0], cy: end[1], r: 3.5 }));
    layer.append(group);
  }
}

const pathOf = (points) => points.map(([x, y], index) => `${index ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');

function partAt(data, index, value) {
  const near = maxOf(data) * 0.06;
  let found = null;
  let best = near;
  for (const one of data.series) {
    const away = Math.abs((data.slots[index].values.get(one.id) ?? 0) - value);
    if (away < best) [found, best] = [one.id, away];
  }
  return data.slots[index].isFuture ? null : found;
}
