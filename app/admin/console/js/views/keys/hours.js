/** Requests per hour of the last day, a column an hour, stacked by secret. */
import { h, s } from '../../dom.js';
import { clock, count, shortAxis } from '../../format.js';

const HEIGHT = 84;
const TOP = 8;
const LEFT = 34;
const BOTTOM = 20;
const STEPS = [1, 2, 2.5, 5, 10];

/** A round number that is a third of `value` or more, for two or three gridlines. @param {number} value */
export function gridStep(value) {
  const least = Math.max(1, value / 3);
  const power = 10 ** Math.floor(Math.log10(least));
  return Math.max(1, STEPS.map((each) => each * power).find((each) => each >= least) ?? 10 * power);
}

/**
 * @param {{label: string, slot: number, hours: number[]}[]} series 24 counts each, oldest first; the first is drawn on top
 * @param {{from: string, tz: string, width?: number}} options `from`: when the first hour began
 * @returns {HTMLElement}
 */
export function hoursChart(series, { from, tz, width = 372 }) {
  const hours = series[0]?.hours.length ?? 0;
  const sums = Array.from({ length: hours }, (_, index) => series.reduce((sum, each) => sum + (each.hours[index] ?? 0), 0));
  const most = Math.max(...sums, 0);
  const step = gridStep(most);
  const top = Math.max(step, most) / 0.95;
  const scale = (HEIGHT - TOP) / top;
  const slot = (width - LEFT - 6) / Math.max(1, hours);
  const base = HEIGHT;
  const svg = s('svg.hours', { viewBox: `0 0 ${width} ${HEIGHT + BOTTOM}`, width: '100%', role: 'img', 'aria-label': summary(series, sums) });
  for (let value = 0; value <= top; value += step) {
    const y = base - value * scale;
    svg.append(s('line', { class: value === 0 ? 'axis' : 'grid', x1: LEFT, x2: width, y1: y, y2: y }), s('text', { x: LEFT - 7, y: y + 4, 'text-anchor': 'end' }, shortAxis(value)));
  }
  sums.forEach((_, index) => {
    let y = base;
    const x = LEFT + index * slot + slot * 0.15;
    const parts = [...series].reverse().filter((each) => each.hours[index] > 0);
    parts.forEach((each, place) => {
      const height = Math.max(1, each.hours[index] * scale);
      y -= height;
      const gap = place > 0 && height > 2 ? 1 : 0;
      svg.append(s('rect', { class: `fill-${each.slot}`, x, y, width: slot * 0.7, height: height - gap, rx: place === parts.length - 1 ? 1.5 : 0 }));
    });
    svg.append(s('rect.hit', { x: LEFT + index * slot, y: 0, width: slot, height: HEIGHT }, s('title', `${clock(hourOf(from, index), tz)}: ${series.map((each) => `${each.label} ${count(each.hours[index])}`).join(', ')}`)));
  });
  for (const index of [0, 6, 12, 18, hours - 1]) {
    const last = index === hours - 1;
    svg.append(s('text', { x: LEFT + index * slot + slot / 2, y: HEIGHT + 15, 'text-anchor': last ? 'end' : index === 0 ? 'start' : 'middle' , dx: last ? slot / 2 : index === 0 ? -slot / 2 : 0 }, last ? 'now' : clock(hourOf(from, index), tz)));
  }
  return h('figure.hours-figure', svg);
}

const hourOf = (from, index) => new Date(Date.parse(from) + index * 3_600_000).toISOString();

function summary(series, sums) {
  const total = sums.reduce((sum, each) => sum + each, 0);
  return `Requests per hour, last 24 hours: ${count(total)} in all; ${series.map((each) => `${each.label} ${count(each.hours.reduce((sum, value) => sum + value, 0))}`).join(', ')}`;
}
