/** Fields with a label, a hint and a place for what is wrong; and dialogs made of them. */
import { ApiError } from './api.js';
import { h, put, uniqueId } from './dom.js';
import { openDialog } from './dialog.js';
import { icon } from './icons.js';
import { addDays } from './range.js';
import { startOfDay } from './zone.js';

/**
 * @typedef {object} Field
 * @property {string} name as the API's `param` names it
 * @property {HTMLElement} element
 * @property {HTMLInputElement} input
 * @property {() => any} value null where nothing was given
 * @property {(text: string) => void} complain
 */

/**
 * @param {{name: string, label: string, type?: string, value?: any, hint?: string, required?: boolean, placeholder?: string,
 *   options?: {value: string, label: string}[], mono?: boolean, attributes?: object, read?: (text: string) => any}} options
 *   `read` turns what was typed into what is sent; it throws an Error whose message is shown
 * @returns {Field}
 */
export function field({ name, label, type = 'text', value = '', hint = '', required = false, placeholder = '', options = null, mono = false, attributes = {}, read = (text) => text }) {
  const id = uniqueId('field');
  const fault = h('p.fault', { id: `${id}-fault`, 'aria-live': 'polite' });
  const described = [hint && `${id}-hint`, `${id}-fault`].filter(Boolean).join(' ');
  const shared = { id, name, required, 'aria-describedby': described, class: mono ? 'mono' : '', ...attributes };
  const input = options
    ? h('select.input', shared, options.map((one) => h('option', { value: one.value, selected: String(one.value) === String(value ?? '') }, one.label)))
    : type === 'textarea' ? h('textarea.input', { ...shared, placeholder }, value ?? '')
      : h('input.input', { ...shared, type, placeholder, autocomplete: 'off', spellcheck: 'false', value: value ?? '' });
  const element = h('div.field', h('label', { for: id }, label), input, hint && h('p.hint', { id: `${id}-hint` }, hint), fault);
  input.addEventListener('input', () => complain(''));

  function complain(text) {
    put(fault, text);
    if (text) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
  }

  return {
    name, element, input, complain,
    value() {
      const text = input.value.trim();
      if (text === '') {
        if (required) throw new Error('This is needed.');
        return null;
      }
      return read(text);
    },
  };
}

/**
 * Choices of which one is taken, all seen at once.
 * @param {{name: string, label: string, items: {value: string, label: string, note?: string}[], value: string}} options
 * @returns {Field}
 */
export function choice({ name, label, items, value }) {
  const stem = uniqueId('choice');
  const fault = h('p.fault', { 'aria-live': 'polite' });
  const inputs = items.map((item) => h('input', { type: 'radio', name: stem, value: item.value, checked: item.value === value }));
  const element = h('fieldset.choices', h('legend', label),
    items.map((item, index) => h('label.choice', inputs[index], h('span', item.label, item.note && h('span.note', ` ${item.note}`)))), fault);
  return { name, element, input: inputs[0], complain: (text) => put(fault, text), value: () => inputs.find((one) => one.checked)?.value ?? null };
}

/** @param {{name: string, label: string, value?: boolean, hint?: string}} options @returns {Field} a tick */
export function tick({ name, label, value = false, hint = '' }) {
  const input = h('input', { type: 'checkbox', checked: value });
  const fault = h('p.fault', { 'aria-live': 'polite' });
  return { name, input, element: h('div.field', h('label.tick', input, label), hint && h('p.hint', hint), fault), complain: (text) => put(fault, text), value: () => input.checked };
}

/**
 * What the fields hold, or null where one complains; it then has the focus.
 * @param {Field[]} fields @returns {?Record<string, any>}
 */
export function valuesOf(fields) {
  const values = {};
  let first = null;
  for (const each of fields) {
    try {
      values[each.name] = each.value();
      each.complain('');
    } catch (error) {
      each.complain(error.message);
      first ??= each;
    }
  }
  if (!first) return values;
  openAround(first.element);
  first.input.focus();
  return null;
}

/**
 * A dialog with a form. It closes when `send` has done its work; what the API complains about stands at its field.
 * @param {{title: string, text?: import('./dom.js').Child, fields: Field[], layout?: import('./dom.js').Child, verb: string, danger?: boolean,
 *   send: (values: Record<string, any>) => Promise<any>, done?: (answer: any) => void}} options
 *   `layout`: the fields' elements in an order of its own, folded or side by side
 * @returns {() => void} closes it
 */
export function formDialog({ title, text = null, fields, layout = null, verb, danger = false, send, done = () => {} }) {
  const id = uniqueId('form');
  const fault = h('div', { role: 'alert' });
  const button = h('button.button.is-primary', { type: 'submit', form: id, class: danger ? 'is-danger' : '' }, verb);
  let isBusy = false;
  let answer;
  let sent = false;

  async function submit(event) {
    event.preventDefault();
    if (isBusy) return;
    const values = valuesOf(fields);
    if (!values) return;
    isBusy = true;
    button.setAttribute('aria-disabled', 'true');
    put(fault);
    try {
      answer = await send(values);
      sent = true;
      dialog.close();
    } catch (error) {
      complain(error);
    } finally {
      isBusy = false;
      button.removeAttribute('aria-disabled');
    }
  }

  function complain(error) {
    if (!(error instanceof ApiError)) console.error(error);
    const at = error instanceof ApiError && error.param ? fields.find((each) => each.name === error.param) : null;
    if (at) {
      openAround(at.element);
      at.complain(error.message);
      at.input.focus();
      return;
    }
    const words = error instanceof ApiError ? error.message : 'Something went wrong in this page. Reload it.';
    put(fault, h('div.fault-box.in-form', icon('close'), h('div.what', h('p', words), error.requestId && h('p.note', `Request ${error.requestId}`))));
  }

  const body = h('form.fields', { id, novalidate: true, method: 'post', action: '/', onsubmit: submit }, text && h('div', text), layout ?? fields.map((each) => each.element), fault);
  const dialog = openDialog({ title, body, onClose: () => sent && done(answer), mayClose: () => !isBusy,
    foot: [h('button.button', { type: 'button', onclick: () => isBusy || dialog.close() }, 'Cancel'), button] });
  return dialog.close;
}

/** A folded part of a form. @param {string} title @param {string} note @param {import('./dom.js').Child} children */
export function folded(title, note, ...children) {
  return h('details.folded', h('summary', icon('right'), h('span', title), note && h('span.note', note)), h('div.fields', children));
}

function openAround(element) {
  const around = element.closest('details');
  if (around) around.open = true;
}

// -- what is typed, as the API takes it --------------------------------------------------------

/** @param {string} text @returns {number} */
export function wholeNumber(text) {
  const plain = text.replaceAll(/[\s,_]/g, '');
  const [, digits, unit] = /^(\d+(?:\.\d+)?)([kM])?$/.exec(plain) ?? [];
  const value = digits === undefined ? Number.NaN : Number(digits) * ({ k: 1000, M: 1_000_000 }[unit] ?? 1);
  if (!Number.isSafeInteger(value)) throw new Error('A whole number, such as 600 or 400k.');
  return value;
}

/** @param {string} text @returns {string} decimal dollars */
export function dollarAmount(text) {
  const plain = text.replaceAll(/[\s,_$]/g, '');
  if (!/^\d{1,9}(\.\d{1,9})?$/.test(plain)) throw new Error('An amount in dollars, such as 2000 or 0.25.');
  return plain;
}

/** @param {string} text @returns {string[]} */
export function commaList(text) {
  return text.split(',').map((each) => each.trim()).filter(Boolean);
}

/** @param {string} text `name=value, name=value` @returns {Record<string, string>} */
export function tagPairs(text) {
  const pairs = commaList(text).map((each) => each.split('='));
  if (pairs.some((pair) => pair.length !== 2 || !pair[0].trim() || !pair[1].trim())) throw new Error('Pairs such as service=chat, env=prod.');
  return Object.fromEntries(pairs.map(([name, value]) => [name.trim(), value.trim()]));
}

/** The end of a day of the zone, which is what one means by "until". @param {string} text a date @returns {string} ISO time */
export function endOfDay(text, tz) {
  if (Number.isNaN(Date.parse(`${text}T12:00:00Z`))) throw new Error('A date.');
  return new Date(startOfDay(addDays(text, 1), tz)).toISOString();
}
