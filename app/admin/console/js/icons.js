/** Icons as SVG nodes, 16 px, drawn with the colour of the text. They are never named: a word stands beside each. */
import { s } from './dom.js';

const LINES = {
  overview: ['M2.5 13.5v-4', 'M6.2 13.5v-9', 'M9.8 13.5v-6', 'M13.5 13.5v-11'],
  explore: ['M7 12a5 5 0 1 0 0-10 5 5 0 0 0 0 10Z', 'm10.6 10.6 3.4 3.4'],
  budgets: ['M2.2 12a6 6 0 1 1 11.6 0', 'm8 10.5 3-3.5'],
  keys: ['M5 12.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z', 'm7.2 7.4 6.3-3.9', 'm11 5.2 1.4 2.2'],
  teams: ['M6 7.2a2.4 2.4 0 1 0 0-4.8 2.4 2.4 0 0 0 0 4.8Z', 'M1.8 13.6c0-2.4 1.7-3.9 4.2-3.9s4.2 1.5 4.2 3.9', 'M10.6 2.7a2.3 2.3 0 0 1 0 4.3', 'M12 9.9c1.5.5 2.3 1.800 2.300 3.7'],
  live: ['M1.500 8h2.600l2-5 3.300 10 2-5h3.100'],
  requests: ['M2 4h12', 'M2 8h12', 'M2 12h8'],
  upstreams: ['M8 14V9', 'M8 9C8 6 3.500 6.500 3.500 3', 'M8 9c0-3 4.500-2.500 4.500-6', 'M2 4.600 3.500 3 5 4.600', 'M11 4.600 12.500 3 14 4.600'],
  prices: ['M2.200 7.600V2.200h5.400l6.200 6.200-5.400 5.400Z', 'M5.200 5.200h.01'],
  alerts: ['M3.500 11.500c1-1 1-2.300 1-4.300a3.500 3.500 0 0 1 7 0c0 2 0 3.300 1 4.300Z', 'M6.700 13.600c.7.600 1.900.600 2.600 0'],
  audit: ['M3.500 1.800h6l3 3v9.400h-9Z', 'M9.300 1.900v3.200h3.200', 'M5.800 8h4.400', 'M5.800 11h4.400'],
  me: ['M8 7.400a2.700 2.700 0 1 0 0-5.400 2.700 2.700 0 0 0 0 5.400Z', 'M3 14c0-2.800 2-4.500 5-4.500s5 1.700 5 4.500'],
  down: ['m4 6 4 4 4-4'], left: ['m10 3.500-4.500 4.500 4.500 4.500'], right: ['m6 3.500 4.500 4.500-4.500 4.500'],
  plus: ['M8 3v10', 'M3 8h10'], close: ['m4 4 8 8', 'm12 4-8 8'], check: ['m3 8.500 3.200 3.200L13 5'],
  copy: ['M5.500 5.500h8v8h-8Z', 'M10.500 5.500v-3h-8v8h3'], export: ['M8 2v8', 'm4.800 7 3.200 3.200L11.200 7', 'M2.500 13.500h11'],
  menu: ['M2 4h12', 'M2 8h12', 'M2 12h12'], more: ['M3.500 8h.01', 'M8 8h.01', 'M12.500 8h.01'],
  moon: ['M13.500 9.600A5.800 5.800 0 0 1 6.400 2.500a5.800 5.800 0 1 0 7.100 7.100Z'],
  sun: ['M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z', 'M8 1.500v1.200', 'M8 13.300v1.200', 'M1.500 8h1.200', 'M13.300 8h1.200', 'm3.400 3.400.8.800', 'm11.800 11.800.8.800', 'm3.400 12.600.8-.8', 'm11.800 4.200.8-.8'],
  out: ['M6.500 2.500h-4v11h4', 'M6.500 8h7', 'm10.800 5.200 2.800 2.800-2.800 2.800'],
  again: ['M13 8a5 5 0 1 1-1.500-3.500', 'M13 2v3h-3'], pause: ['M5.500 3v10', 'M10.500 3v10'], play: ['M4.500 3v10l8-5Z'],
};

/**
 * @param {string} name a key of LINES, or `logo`
 * @param {{size?: number, class?: string}} [options]
 * @returns {SVGElement}
 */
export function icon(name, { size = 16, class: classes = '' } = {}) {
  if (name === 'logo') {
    return s('svg', { viewBox: '0 0 20 20', width: 22, height: 22, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.8, 'stroke-linejoin': 'round', 'stroke-linecap': 'round', 'aria-hidden': 'true', class: classes },
      s('path', { d: 'M2.500 2v16M17.500 2v16M2.500 4.500h15M8 4.500v5.200l2 1.600 2-1.600V4.500M2.500 15c1.900-1.500 3.100-1.500 5 0s3.100 1.500 5 0 3.100-1.500 5 0' }));
  }
  const width = name === 'more' ? 2.2 : 1.4;
  return s('svg', { viewBox: '0 0 16 16', width: size, height: size, fill: 'none', stroke: 'currentColor', 'stroke-width': width, 'stroke-linecap': 'round', 'stroke-linejoin': 'round', 'aria-hidden': 'true', class: classes },
    (LINES[name] ?? []).map((d) => s('path', { d })));
}

/**
 * The shape that goes with a state's word and colour.
 * @param {'good'|'warn'|'bad'|'unpriced'|'off'} level
 * @param {number} [size]
 */
export function mark(level, size = 10) {
  const svg = (cls, ...parts) => s('svg', { viewBox: '0 0 16 16', width: size, height: size, 'aria-hidden': 'true', class: cls }, parts);
  const sign = (d) => s('path', { d, stroke: 'var(--surface)', 'stroke-width': 2, 'stroke-linecap': 'round', fill: 'none' });
  if (level === 'good') return svg('good', s('circle', { cx: 8, cy: 8, r: 6.5, fill: 'currentColor' }));
  if (level === 'warn') return svg('warn', s('path', { d: 'M8 1 15.500 14.500H.5Z', fill: 'currentColor', 'stroke-linejoin': 'round' }), size > 12 && sign('M8 6v3.600M8 12.200v.01'));
  if (level === 'bad') return svg('bad', s('circle', { cx: 8, cy: 8, r: 7.500, fill: 'currentColor' }), sign('M8 4.300v4.200M8 11.600v.01'));
  if (level === 'unpriced') return svg('warn', s('path', { d: 'M8 1.200 14.800 8 8 14.800 1.200 8Z', fill: 'none', stroke: 'currentColor', 'stroke-width': 1.700 }));
  return svg('text-3', s('circle', { cx: 8, cy: 8, r: 5.700, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.800 }));
}
