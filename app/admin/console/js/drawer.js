/** The pane beside a table: 404 px, a page of its own on phones. */
import { h, uniqueId } from './dom.js';
import { icon } from './icons.js';

/**
 * @param {{title: import('./dom.js').Child, note?: import('./dom.js').Child, onClose: () => void}} options
 * @returns {{element: HTMLElement, part: (title: string|null, ...children: import('./dom.js').Child[]) => HTMLElement,
 *   foot: (...children: import('./dom.js').Child[]) => HTMLElement, focus: () => void}}
 *   `part` adds a section, `foot` the row of buttons; put the element into `.with-drawer.is-open`
 */
export function drawer({ title, note = null, onClose }) {
  const id = uniqueId('drawer');
  const heading = h('h2', { id, tabindex: -1 }, title);
  const element = h('aside.drawer', { 'aria-labelledby': id, tabindex: -1, onkeydown: (event) => {
    if (event.key !== 'Escape' || event.defaultPrevented) return;
    event.preventDefault();
    onClose();
  } },
  h('div.drawer-head', h('div', heading, note && h('p.note', note)),
    h('button.button.is-plain.is-icon.is-small', { type: 'button', 'aria-label': 'Close', onclick: onClose }, icon('close'))));
  return {
    element,
    part(name, ...children) {
      const part = h('section.drawer-part', name && h('h3', name), children);
      element.append(part);
      return part;
    },
    foot(...children) {
      const foot = h('div.drawer-foot', children);
      element.append(foot);
      return foot;
    },
    focus: () => heading.focus({ preventScroll: true }),
  };
}
