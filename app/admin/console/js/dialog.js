/** Native dialogs: focus stays in them, and goes back to where it was. */
import { h, uniqueId } from './dom.js';
import { icon } from './icons.js';

/**
 * @param {{title: string, body: import('./dom.js').Child, foot?: import('./dom.js').Child, class?: string,
 *   onClose?: () => void, mayClose?: () => boolean}} options `mayClose` is asked before Esc or the cross closes it
 * @returns {{element: HTMLDialogElement, close: () => void}}
 */
export function openDialog({ title, body, foot = null, class: classes = '', onClose = () => {}, mayClose = () => true }) {
  const id = uniqueId('dialog');
  const before = document.activeElement;
  const close = () => {
    if (element.open) element.close();
    leave();
  };
  const ask = () => mayClose() && close();
  const element = h('dialog.dialog', { class: classes, 'aria-labelledby': id },
    h('div.dialog-head', h('h2', { id }, title), h('button.button.is-plain.is-icon.is-small', { type: 'button', 'aria-label': 'Close', onclick: ask }, icon('close'))),
    h('div.dialog-body', body), foot && h('div.dialog-foot', foot));
  element.addEventListener('cancel', (event) => {
    event.preventDefault();
    ask();
  });
  // A browser closes on the second Esc whatever "cancel" says; the key itself can still be held.
  element.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || event.defaultPrevented) return;
    event.preventDefault();
    ask();
  });
  // The browser tells of a closing later, in a task of its own. What a dialog shows may be a secret, so it leaves the
  // page with the press; the event is for a closing that the browser decides on.
  let left = false;
  const leave = () => {
    if (left) return;
    left = true;
    element.remove();
    if (before instanceof HTMLElement && before.isConnected) before.focus();
    onClose();
  };
  element.addEventListener('close', leave);
  document.body.append(element);
  element.showModal();
  element.querySelector('[autofocus], .dialog-body :is(input, select, textarea, button)')?.focus();
  return { element, close };
}

/**
 * A question with one verb; true where it was pressed.
 * @param {{title: string, text: import('./dom.js').Child, verb: string, danger?: boolean, typed?: string}} options
 *   `typed`: what has to be typed before the verb works
 * @returns {Promise<boolean>}
 */
export function confirm({ title, text, verb, danger = false, typed = '' }) {
  return new Promise((resolve) => {
    let answer = false;
    const id = uniqueId('typed');
    const button = h('button.button.is-primary', { type: 'submit', class: danger ? 'is-danger' : '', disabled: typed !== '' }, verb);
    const field = typed ? h('input.input', { id, autocomplete: 'off', autofocus: true, oninput: () => { button.disabled = field.value.trim() !== typed; } }) : null;
    const form = h('form.fields', { id: `${id}-form`, onsubmit: (event) => {
      event.preventDefault();
      if (button.disabled) return;
      answer = true;
      dialog.close();
    } }, h('div', text), field && h('div.field', h('label', { for: id }, 'Type ', h('b', typed)), field));
    button.setAttribute('form', `${id}-form`);
    const dialog = openDialog({ title, body: form, onClose: () => resolve(answer),
      foot: [h('button.button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), button] });
  });
}

/** The sidebar on a narrow page. @param {string} label @param {HTMLElement} content @param {() => void} onClose @returns {() => void} closes it */
export function openSheet(label, content, onClose) {
  const { element, close } = openDialog({ title: label, body: content, class: 'side-sheet', onClose });
  element.addEventListener('click', (event) => event.target === element && close());
  return close;
}
