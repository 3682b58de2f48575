/** Which tag: there is no list of them, so its name is asked for, and kept for the next time. */
import { openDialog } from './dialog.js';
import { h, uniqueId } from './dom.js';

const KEPT = 'headgate.tag';

function kept() {
  try {
    return localStorage.getItem(KEPT) ?? '';
  } catch {
    return '';
  }
}

/** `tag.NAME`, or null where it was not said. @returns {Promise<string|null>} */
export function askTag() {
  return new Promise((resolve) => {
    const id = uniqueId('tag');
    let answer = null;
    const field = h('input.input', { id, value: kept(), placeholder: 'service', pattern: '[A-Za-z0-9_.\\-]{1,64}', required: true, autofocus: true, autocomplete: 'off' });
    const form = h('form.fields', { id: `${id}-form`, onsubmit: (event) => {
      event.preventDefault();
      answer = `tag.${field.value.trim()}`;
      try {
        localStorage.setItem(KEPT, field.value.trim());
      } catch {
        // Then it is typed again.
      }
      dialog.close();
    } }, h('div.field', h('label', { for: id }, 'Name of the tag'), field, h('p.hint', 'Keys carry tags, and requests may send more.')));
    const dialog = openDialog({ title: 'Group by a tag', body: form, onClose: () => resolve(answer), foot: h('button.button.is-primary', { type: 'submit', form: `${id}-form` }, 'Group by this tag') });
  });
}
