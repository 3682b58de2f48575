/** A row of figures: each with its name above and a note below. */
import { h, put } from './dom.js';

/**
 * @param {string} label said of the whole row
 * @param {{key: string, isLead?: boolean}[]} tiles
 * @returns {{element: HTMLElement, draw: (key: string, of: {name: import('./dom.js').Child, figure: import('./dom.js').Child, beside?: import('./dom.js').Child, note?: import('./dom.js').Child, bar?: import('./dom.js').Child, title?: string}) => void}}
 */
export function tiles(label, tiles) {
  const places = new Map(tiles.map(({ key, isLead }) => [key, h('div.figure-tile', { class: isLead ? 'is-lead' : '' }, h('p.figure-name', '\u00a0'), h('p.figure', '\u00a0'))]));
  return {
    element: h('section.panel.figures', { 'aria-label': label, class: `is-${tiles.length}` }, [...places.values()]),
    draw(key, { name, figure, beside = null, note = null, bar = null, title = null }) {
      put(places.get(key), h('p.figure-name', name), h('div.figure-line', h('p.figure', { title }, figure), beside && h('span.note', beside)), bar, note && h('p.note.figure-note', note));
    },
  };
}
