/** Stacked columns from zero: today hatched, days to come dotted, a diamond above what leaves out unpriced requests. */
import { h, s, uniqueId } from '../dom.js';
import { frame } from './frame.js';
import { sumOf } from './series.js';

const WIDE = 0.7;
const ROUND = 2;

/**
 * @param {import('./frame.js').ChartData} data
 */
export function columns(data) {
  return frame(data, { max: maxOf, paint, partAt });
}

const maxOf = (data) => data.slots.reduce((max, slot) => Math.max(max, sumOf(slot.values), slot.forecast ?? 0), 0);

/** One path for each series, so that a year of days is nine elements and not three thousand. */
function paint(layer, plot, data, hatch) {
  const wide = Math.max(1, Math.round(plot.width * WIDE));
  const paths = new Map(data.series.map((one) => [one.id, '']));
  let running = '';
  let ahead = '';
  const diamonds = [];
  data.slots.forEach((slot, index) => {
    const x = Math.round(plot.x(index) - wide / 2);
    const tops = stack(slot, data.series, plot);
    tops.forEach(({ id, from, to }, place) => {
      const piece = box(x, to, wide, from - to, place === tops.length - 1 ? Math.min(ROUND, wide / 3) : 0);
      paths.set(id, paths.get(id) + piece);
      if (slot.isNow) running += piece;
    });
    const top = tops.length ? tops[tops.length - 1].to : plot.bottom;
    const dotted = slot.forecast ? Math.round(plot.y(slot.forecast)) : plot.bottom;
    if (dotted < top - 1) ahead += `M${x + 0.5} ${slot.isFuture ? plot.bottom : top}V${dotted + 0.5}H${x + wide - 0.5}V${slot.isFuture ? plot.bottom : top}`;
    if (slot.unpriced) diamonds.push(diamond(plot.x(index), Math.max(6, Math.min(top, dotted) - 9), Math.min(5, Math.max(3, wide / 4))));
  });
  layer.append(...data.series.map((one) => s('path.series.fill', { d: paths.get(one.id), class: `s${one.color}`, 'data-series': one.id })));
  if (running) layer.append(s('path', { d: running, fill: `url(#${hatch})` }));
  if (ahead) layer.append(s('path.forecast', { d: ahead }));
  layer.append(...diamonds);
}

/** Where each part of a column lies, from below; one pixel apart, and what is there at all has a pixel. */
function stack(slot, series, plot) {
  const parts = series.filter((one) => slot.values.get(one.id) > 0);
  const found = [];
  let sum = 0;
  let from = plot.bottom;
  for (const one of parts) {
    sum += slot.values.get(one.id);
    const to = Math.round(plot.y(sum));
    if (to <= from - 1) {
      found.push({ id: one.id, from, to });
      from = to - 1;
    }
  }
  if (!found.length && parts.length) found.push({ id: parts[parts.length - 1].id, from: plot.bottom, to: plot.bottom - 1 });
  return found;
}

const box = (x, y, width, height, round) => (round > 0.5 && height > round
  ? `M${x} ${y + height}V${y + round}a${round} ${round} 0 0 1 ${round} ${-round}H${x + width - round}a${round} ${round} 0 0 1 ${round} ${round}V${y + height}Z`
  : `M${x} ${y}h${width}v${height}h${-width}Z`);

const diamond = (x, y, size) => s('path.unpriced', { d: `M${x} ${y - size}l${size} ${size} ${-size} ${size} ${-size} ${-size}Z` });

function partAt(data, index, value) {
  let sum = 0;
  if (value < 0 || data.slots[index].isFuture) return null;
  for (const one of data.series) {
    sum += data.slots[index].values.get(one.id) ?? 0;
    if (value <= sum && data.slots[index].values.get(one.id)) return one.id;
  }
  return null;
}

/**
 * What the signs of a chart mean; only those that are there.
 * @param {import('./frame.js').Slot[]} slots
 */
export function keyOf(slots) {
  const hatch = uniqueId('hatch');
  const now = slots.find((slot) => slot.isNow);
  const sample = (...inside) => s('svg', { width: 14, height: 10, 'aria-hidden': 'true' }, inside);
  const hasForecast = slots.some((slot) => slot.forecast !== null && slot.forecast !== undefined);
  const hasUnpriced = slots.some((slot) => slot.unpriced);
  return h('div.chart-key',
    now && h('span', sample(s('defs', s('pattern', { id: hatch, width: 5, height: 5, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, s('line.hatch-line', { x1: 1, x2: 1, y1: 0, y2: 5 }))),
      s('rect.sample', { width: 14, height: 9, y: 0.5, rx: 1.5 }), s('rect', { width: 14, height: 9, y: 0.5, rx: 1.5, fill: `url(#${hatch})` })), now.until ?? 'so far'),
    hasForecast && h('span', sample(s('path.forecast', { d: 'M1.5 10V.5h11V10' })), 'forecast'),
    hasUnpriced && h('span', s('svg', { width: 11, height: 11, 'aria-hidden': 'true' }, diamond(5.5, 5.5, 4.5)), 'has unpriced requests'));
}
