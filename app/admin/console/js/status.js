/** What is said once and gone: a line for screen readers, a note in the corner. */
import { h, put } from './dom.js';

const SHOWN_MS = 6000;
let line = null;
let toasts = null;

function ensure() {
  if (line) return;
  line = h('div.hush', { role: 'status', 'aria-live': 'polite' });
  toasts = h('div.toasts', { popover: 'manual' });
  document.body.append(line, toasts);
}

/** Say `text` to a screen reader. @param {string} text */
export function announce(text) {
  ensure();
  put(line, text);
}

/**
 * A note in the corner for six seconds, also announced.
 * @param {string} text
 */
export function toast(text) {
  announce(text);
  const note = h('div.toast', text);
  toasts.append(note);
  // Shown anew, so that it lies above a dialog that was opened since.
  if (toasts.matches(':popover-open')) toasts.hidePopover();
  toasts.showPopover();
  setTimeout(() => {
    note.remove();
    if (!toasts.childElementCount && toasts.matches(':popover-open')) toasts.hidePopover();
  }, SHOWN_MS);
}

/** Copy, and say that it was. @param {string} text @param {string} [what] */
export async function copy(text, what = 'Copied') {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https there is no clipboard for a page: the old way, through a field that is selected.
    const field = h('textarea.hush', { value: text, readonly: true });
    (document.querySelector('dialog[open]') ?? document.body).append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    if (!done) return toast('The browser does not let this page copy. Select the text and copy it by hand.');
  }
  return toast(what);
}
