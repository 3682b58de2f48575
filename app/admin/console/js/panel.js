/** Panels, their states, and the head of a view. */
import { ApiError } from './api.js';
import { h, put, uniqueId } from './dom.js';
import { clock } from './format.js';
import { icon } from './icons.js';

const DIM_AFTER_MS = 300;

/** The first row of a view. @param {Node|string} title @param {...import('./dom.js').Child} controls */
export const head = (title, ...controls) => h('div.head', h('h1', { tabindex: -1 }, title), controls);

/**
 * A panel with a heading; its frame stands before its figures come.
 * @param {{title?: string, actions?: import('./dom.js').Child, class?: string, flush?: boolean}} options
 *   `flush`: the body has no padding, as for a table
 * @returns {{element: HTMLElement, body: HTMLElement, setTitle: (text: string) => void}}
 */
export function panel({ title = '', actions = null, class: classes = '', flush = false } = {}) {
  const id = uniqueId('panel');
  const heading = h('h2', { id }, title);
  const body = h('div.panel-body', { class: flush ? 'flush' : '' });
  const element = h('section.panel', { class: classes, 'aria-labelledby': title ? id : null },
    title || actions ? h('div.panel-head', title ? heading : null, actions) : null, body);
  return { element, body, setTitle: (text) => put(heading, text) };
}

/**
 * Something that is read and drawn, again and again: old figures stay while new ones are fetched, dimmed after 300 ms;
 * an error stands beside the last good figures.
 * @template T
 * @param {HTMLElement} element where an error is put, at the top of its body; dimmed while it is old
 * @param {{read: (signal: AbortSignal) => Promise<T>, draw: (data: T) => void, signal: AbortSignal, tz?: () => string}} options
 * @returns {{load: () => Promise<void>}}
 */
export function loader(element, { read, draw, signal, tz = () => 'UTC' }) {
  let turn = null;
  let asOf = null;
  let fault = null;
  const place = element.querySelector(':scope > .panel-body') ?? element;

  async function load() {
    turn?.abort();
    const own = new AbortController();
    turn = own;
    const both = AbortSignal.any([signal, own.signal]);
    element.setAttribute('aria-busy', 'true');
    const dim = setTimeout(() => asOf !== null && place.classList.add('is-old'), DIM_AFTER_MS);
    try {
      const data = await read(both);
      if (both.aborted) return;
      fault?.remove();
      fault = null;
      place.classList.remove('is-old');
      asOf = Date.now();
      draw(data);
    } catch (error) {
      if (both.aborted || error?.name === 'AbortError') return;
      if (!(error instanceof ApiError)) console.error(error);
      fault?.remove();
      fault = faultBox(error, { retry: load, asOf: asOf === null ? null : clock(asOf, tz()) });
      place.before(fault);
      place.classList.toggle('is-old', asOf !== null);
    } finally {
      clearTimeout(dim);
      if (turn === own) element.removeAttribute('aria-busy');
    }
  }

  return { load };
}

/**
 * What failed, what it means, what now.
 * @param {Error} error
 * @param {{retry?: () => void, verb?: string, asOf?: string|null}} [options]
 */
export function faultBox(error, { retry, verb = 'Try again', asOf = null } = {}) {
  const isOurs = error instanceof ApiError;
  const forbidden = isOurs && error.isForbidden;
  const text = forbidden ? 'Your role does not reach this. An administrator can grant it.' : isOurs || error.message ? error.message : 'Something went wrong in this page.';
  return h('div.fault-box', { role: 'alert' }, icon(forbidden ? 'keys' : 'close'), h('div.what', h('p', text),
    h('p.note', [asOf && `The figures shown are as of ${asOf}.`, isOurs && error.requestId && `Request ${error.requestId}`].filter(Boolean).join(' '))),
  retry && !forbidden && h('button.button.is-small', { type: 'button', onclick: () => retry() }, verb));
}

/**
 * Nothing here yet: what it is, and one next step.
 * @param {{title: string, text?: string, action?: Node|null, code?: string}} options
 */
export function empty({ title, text = '', action = null, code = '' }) {
  return h('div.empty', h('p.strong', title), text && h('p', text), code && h('pre.code', { tabindex: 0 }, code), action);
}

/** A swatch and a name. @param {string} name @param {number|null} [color] slot 1 to 8, 0 for Other */
export const named = (name, color = null) => h('span.named', color !== null && swatch(color), h('span.cut', { title: name }, name));

/** @param {number} color slot 1 to 8, 0 for Other */
export const swatch = (color) => h('span.swatch', { class: color ? `s${color}` : '', 'aria-hidden': 'true' });
