/** A line the size of a word. */
import { s } from '../dom.js';

/**
 * @param {(number|null)[]} values
 * @param {{width?: number, height?: number, level?: 'plain'|'warn'|'bad', label?: string}} [options] without a label it is decoration
 */
export function sparkline(values, { width = 100, height = 28, level = 'plain', label = '' } = {}) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const max = Math.max(...known, 0) || 1;
  const x = (index) => (values.length > 1 ? (index / (values.length - 1)) * width : width / 2);
  const y = (value) => height - 1 - (value / max) * (height - 3) * 0.92;
  let line = '';
  let area = '';
  let from = null;
  values.forEach((value, index) => {
    const isKnown = value !== null && value !== undefined;
    if (isKnown) {
      const point = `${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      line += `${from === null ? 'M' : 'L'}${point}`;
      area += from === null ? `M${x(index).toFixed(1)} ${height}L${point}` : `L${point}`;
      from ??= index;
    }
    if (from !== null && (!isKnown || index === values.length - 1)) {
      area += `L${x(isKnown ? index : index - 1).toFixed(1)} ${height}Z`;
      from = null;
    }
  });
  return s('svg.spark', { viewBox: `0 0 ${width} ${height}`, width, height, preserveAspectRatio: 'none', class: level === 'plain' ? '' : `is-${level}`, role: label ? 'img' : null, 'aria-label': label || null, 'aria-hidden': label ? null : 'true' },
    known.length > 0 && [s('path.area', { d: area }), s('path', { d: line, 'vector-effect': 'non-scaling-stroke' })]);
}
