/** What columns and lines share: real pixels, axes, the card beside a slot, pointer and keys. */
import { h, put, s, uniqueId } from '../dom.js';
import { plural } from '../format.js';
import { swatch } from '../panel.js';
import { announce } from '../status.js';
import { shownLabels, ticks } from './scale.js';
import { sumOf } from './series.js';

const TOP = 10;
const BOTTOM = 24;

/**
 * @typedef {object} Slot one day (hour, week, month)
 * @property {string} key
 * @property {string} label below the axis
 * @property {string} title in the card: "Fri 13 Nov"
 * @property {Map<string, number>} values by series id
 * @property {string} [total] as text, where it is known better than by adding
 * @property {number} [unpriced] requests that no value holds
 * @property {number|null} [forecast]
 * @property {boolean} [isNow] it goes on
 * @property {boolean} [isFuture]
 * @property {string} [until] "until 16:40", for what goes on
 */

/**
 * @typedef {object} ChartData
 * @property {string} label what the chart is, for screen readers
 * @property {import('./series.js').Series[]} series from below
 * @property {Slot[]} slots
 * @property {(value: number) => string} axis
 * @property {(value: number) => string} value
 * @property {((slot: Slot, series: string|null) => void)|null} [onOpen] Enter or a click
 * @property {((series: string|null) => void)|null} [onFade] a part is pointed at
 * @property {string} [empty] said where every value is zero
 */

/** @typedef {{left: number, right: number, top: number, bottom: number, width: number, x: (i: number) => number, y: (v: number) => number}} Plot */

/**
 * @param {ChartData} first
 * @param {{max: (data: ChartData) => number, paint: (layer: SVGElement, plot: Plot, data: ChartData, hatch: string) => void,
 *   partAt: (data: ChartData, index: number, value: number) => string|null, guide?: boolean}} kind
 * @returns {{element: HTMLElement, update: (changes: Partial<ChartData>) => void, fade: (id: string|null) => void}}
 */
export function frame(first, kind) {
  let data = first;
  let size = null;
  let plot = null;
  let at = -1;
  let part = null;
  let hits = [];
  const hatch = uniqueId('hatch');
  const svg = s('svg', { role: 'group' });
  const layer = s('g');
  const shade = s('rect.shade');
  const card = h('div.chart-card', { hidden: true, 'aria-hidden': 'true' });
  const element = h('div.chart', svg, card);

  function draw() {
    if (!size) return;
    const hadFocus = svg.contains(document.activeElement);
    const { width, height } = size;
    const scale = ticks(kind.max(data), height < 170 ? 3 : 5);
    const axis = scale.values.map((value) => data.axis(value));
    const left = Math.max(...axis.map((text) => text.length)) * 6.4 + 10;
    const bottom = height - BOTTOM;
    const slotWidth = (width - left) / Math.max(1, data.slots.length);
    plot = { left, right: width, top: TOP, bottom, width: slotWidth, x: (index) => left + (index + 0.5) * slotWidth, y: (value) => bottom - (value / scale.top) * (bottom - TOP) };
    for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}`, 'aria-label': data.label })) svg.setAttribute(name, value);
    layer.replaceChildren();
    kind.paint(layer, plot, data, hatch);
    hits = data.slots.map(hitOf);
    svg.replaceChildren(patterns(hatch), gridOf(scale.values, axis), shade, layer, labelsOf(slotWidth), s('g', hits));
    const isEmpty = kind.max(data) === 0;
    element.querySelector('.chart-empty')?.remove();
    if (isEmpty && data.empty) element.append(h('p.chart-empty', data.empty));
    at = Math.min(at, data.slots.length - 1);
    if (hadFocus && hits.length) hits[at < 0 ? entry() : at].focus({ preventScroll: true });
    else hide();
  }

  function gridOf(values, texts) {
    return s('g', { 'aria-hidden': 'true' }, values.map((value, index) => {
      const y = Math.round(plot.y(value)) + 0.5;
      return [s('line', { x1: plot.left, x2: plot.right, y1: y, y2: y, class: index ? 'gridline' : 'baseline' }),
        s('text', { x: plot.left - 8, y: y + 4, 'text-anchor': 'end' }, texts[index])];
    }));
  }

  function labelsOf(slotWidth) {
    const now = data.slots.findIndex((slot) => slot.isNow);
    const shown = shownLabels(data.slots.map((slot) => slot.label), slotWidth, now);
    return s('g', { 'aria-hidden': 'true' }, [...shown].map((index) => s('text', { x: Math.min(plot.x(index), size.width - data.slots[index].label.length * 3), y: size.height - 6, 'text-anchor': 'middle', class: index === now ? 'is-now' : '' }, data.slots[index].label)));
  }

  function hitOf(slot, index) {
    const opens = data.onOpen && !slot.isFuture;
    return s('g', { role: 'img', tabindex: index === entry() ? 0 : -1, 'aria-label': wordsOf(slot), 'data-index': index, 'data-opens': opens ? '' : null },
      s('rect.hit', { x: plot.left + index * plot.width + 1, y: 1, width: Math.max(1, plot.width - 2), height: plot.bottom - 1, rx: 3 }));
  }

  /** The last day there are figures of. */
  const entry = () => {
    const future = data.slots.findIndex((slot) => slot.isFuture);
    return future > 0 ? future - 1 : data.slots.length - 1;
  };

  const totalOf = (slot) => slot.total ?? data.value(sumOf(slot.values));

  function wordsOf(slot) {
    if (slot.isFuture) return slot.forecast === null || slot.forecast === undefined ? `${slot.title}, to come` : `${slot.title}, forecast ${data.value(slot.forecast)}`;
    const most = data.series.filter((one) => slot.values.get(one.id)).sort((one, other) => slot.values.get(other.id) - slot.values.get(one.id))[0];
    return [slot.title, totalOf(slot), slot.until, data.series.length > 1 && most && `most ${most.name} ${data.value(slot.values.get(most.id))}`, slot.unpriced ? `${slot.unpriced} unpriced` : null].filter(Boolean).join(', ');
  }

  function show(index, series = null) {
    const slot = data.slots[index];
    if (!slot || !plot) return;
    if (index === at && series === part && !card.hidden) return;
    at = index;
    if (series !== part) {
      part = series;
      fade(series);
      data.onFade?.(series);
    }
    for (const [name, value] of Object.entries({ x: plot.left + index * plot.width, y: 0, width: plot.width, height: plot.bottom })) shade.setAttribute(name, value);
    shade.classList.add('is-on');
    const rows = slot.isFuture ? [] : [...data.series].reverse().filter((one) => slot.values.get(one.id) !== undefined || data.series.length <= 8);
    put(card, h('div.top', h('span', slot.title), h('span', slot.isFuture ? '' : totalOf(slot))),
      rows.length > 0 && h('ul', rows.map((one) => h('li', { class: [one.id === series ? 'is-part' : '', slot.values.get(one.id) ? '' : 'is-zero'].join(' ') }, swatch(one.color), h('span.cut', one.name), h('span', data.value(slot.values.get(one.id) ?? 0))))),
      footOf(slot));
    card.hidden = false;
    place(index);
  }

  function footOf(slot) {
    const lines = [slot.until, slot.forecast !== null && slot.forecast !== undefined && `forecast for the day ${data.value(slot.forecast)}`, ].filter(Boolean).map((line) => h('div', line));
    if (slot.unpriced) lines.push(h('div.warn', `◇ ${plural(slot.unpriced, 'unpriced request')} not included`));
    return lines.length ? h('div.foot', lines) : null;
  }

  /** Beside its column, never over it where there is room on either side. */
  function place(index) {
    const { width, height } = card.getBoundingClientRect();
    const from = plot.left + index * plot.width;
    const fitsRight = from + plot.width + 10 + width <= size.width;
    const fitsLeft = from - 10 - width >= 0;
    const left = fitsRight ? from + plot.width + 10 : fitsLeft ? from - 10 - width : Math.max(0, Math.min(size.width - width, from - width / 2));
    card.style.setProperty('transform', `translate(${Math.round(left)}px, ${Math.round(Math.max(-60, Math.min(4, plot.bottom - height)))}px)`);
  }

  function hide() {
    card.hidden = true;
    shade.classList.remove('is-on');
    if (part !== null) {
      part = null;
      fade(null);
      data.onFade?.(null);
    }
  }

  function fade(id) {
    layer.classList.toggle('has-fade', id !== null);
    for (const one of layer.querySelectorAll('[data-series]')) one.classList.toggle('is-kept', one.dataset.series === id);
  }

  function focus(index) {
    for (const one of hits) one.setAttribute('tabindex', '-1');
    hits[index].setAttribute('tabindex', '0');
    hits[index].focus();
  }

  function step(by) {
    const slot = data.slots[at];
    const ids = data.series.filter((one) => slot.values.get(one.id)).map((one) => one.id);
    if (!ids.length) return;
    const from = ids.indexOf(part);
    const to = from < 0 ? (by > 0 ? 0 : ids.length - 1) : Math.max(0, Math.min(ids.length - 1, from + by));
    show(at, ids[to]);
    announce(`${data.series.find((one) => one.id === ids[to]).name}, ${data.value(slot.values.get(ids[to]))}`);
  }

  function onKey(event) {
    const index = Number(event.target.dataset?.index ?? -1);
    if (index < 0) return;
    const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: data.slots.length - 1 }[event.key];
    if (to !== undefined) focus(Math.max(0, Math.min(data.slots.length - 1, to)));
    else if (event.key === 'ArrowUp') step(1);
    else if (event.key === 'ArrowDown') step(-1);
    else if (event.key === 'Enter' && data.onOpen && !data.slots[index].isFuture) data.onOpen(data.slots[index], part);
    else if (event.key === 'Escape') event.target.blur();
    else return;
    event.preventDefault();
  }

  function onPointer(event) {
    if (!plot || (event.pointerType === 'touch' && event.type === 'pointermove')) return;
    const box = svg.getBoundingClientRect();
    const index = Math.floor((event.clientX - box.left - plot.left) / plot.width);
    if (index < 0 || index >= data.slots.length) return hide();
    const value = ((plot.bottom - (event.clientY - box.top)) / (plot.bottom - plot.y(1))) || 0;
    return show(index, kind.partAt(data, index, value));
  }

  svg.addEventListener('keydown', onKey);
  // On the element round it: an SVG element that listens for focus would itself be a stop of the Tab key.
  element.addEventListener('focusin', (event) => event.target.dataset.index && show(Number(event.target.dataset.index)));
  element.addEventListener('focusout', hide);
  svg.addEventListener('pointermove', onPointer);
  svg.addEventListener('pointerdown', onPointer);
  svg.addEventListener('pointerleave', (event) => event.pointerType !== 'touch' && !svg.contains(document.activeElement) && hide());
  svg.addEventListener('click', (event) => {
    const index = Number(event.target.closest('[data-index]')?.dataset.index ?? -1);
    if (index >= 0 && data.onOpen && !data.slots[index].isFuture && event.pointerType !== 'touch') data.onOpen(data.slots[index], part);
  });
  new ResizeObserver(([entryOf]) => {
    const { width, height } = entryOf.contentRect;
    if (width < 40 || height < 40 || (size && size.width === width && size.height === height)) return;
    size = { width, height };
    draw();
  }).observe(element);

  return {
    element,
    update(changes) {
      data = { ...data, ...changes };
      draw();
    },
    fade,
  };
}

const patterns = (id) => s('defs', s('pattern', { id, width: 6, height: 6, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
  s('line.hatch-line', { x1: 1, x2: 1, y1: 0, y2: 6 })));
