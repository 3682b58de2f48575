/** What needs a person: at most three, worst first, one verb each. */
import { h, put } from '../../dom.js';
import { mark } from '../../icons.js';

const SAID = { bad: 'Urgent', warn: 'Warning', unpriced: 'No price' };

/**
 * @param {HTMLElement} element hidden where all is well
 * @param {{level: 'bad'|'warn'|'unpriced', title: string, detail: string, verb: string, href: string}[]} items
 */
export function drawAttention(element, items) {
  element.hidden = items.length === 0;
  put(element, h('ul', items.slice(0, 3).map((one) => h('li', mark(one.level, 15), h('div', h('p.strong', h('span.hush', `${SAID[one.level]}: `), one.title), h('p.note', one.detail)),
    one.verb && h('a', { href: one.href }, one.verb)))));
}
