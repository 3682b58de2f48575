/**
 * A secret, shown once. It is in one text node, and nowhere else: no address, no storage, no log. It is gone when the
 * dialog closes or the page is left.
 */
import { memberName } from '../../amounts.js';
import { h, put } from '../../dom.js';
import { openDialog } from '../../dialog.js';
import { icon } from '../../icons.js';
import { copy } from '../../status.js';
import { curl, modelFor } from '../me/snippets.js';

/**
 * @param {import('../../shell.js').Context} ctx
 * @param {{key?: string, token?: string, models?: ?string[]}} made the answer that holds the secret; it is taken out of it
 * @param {{title: string, note?: string}} options
 */
export function reveal(ctx, made, { title, note = '' }) {
  const isKey = made.key !== undefined;
  const place = h('code.mono', { 'aria-label': isKey ? 'The key' : 'The token' }, isKey ? made.key : made.token);
  delete made.key;
  delete made.token;
  const baseUrl = `${location.origin}/v1`;
  let example = isKey ? curl(baseUrl, modelFor(made.models ?? null), '$HEADGATE_KEY') : '';
  const shown = h('pre.code', { tabindex: 0 }, exportLine(example));
  const asking = h('div.reveal-ask', { role: 'alert' });

  const body = [
    h('p', h('b', 'Copy it now. It is shown only once.'), note && ` ${note}`),
    h('div.secret', place, h('button.button', { type: 'button', autofocus: true, onclick: () => copy(place.textContent, isKey ? 'Key copied' : 'Token copied') }, icon('copy'), 'Copy')),
    isKey && h('div.reveal-example', h('div.reveal-title', h('h3', 'Try it'), h('button.button.is-small', { type: 'button',
      onclick: () => copy(example.replace('$HEADGATE_KEY', place.textContent), 'Command copied, with the key in it') }, 'Copy with the key in it')),
    shown),
    asking,
  ];
  const dialog = openDialog({
    title, body, class: 'reveal', onClose: forget,
    mayClose: () => {
      ask();
      return false;
    },
    foot: [h('button.button.is-primary', { type: 'button', onclick: () => dialog.close() }, 'I have stored it')],
  });
  if (isKey && !made.models?.length) {
    usualModel(ctx).then((model) => {
      if (!model) return;
      example = curl(baseUrl, model, '$HEADGATE_KEY');
      put(shown, exportLine(example));
    });
  }
  addEventListener('pagehide', forget, { once: true });
  ctx.signal.addEventListener('abort', () => dialog.close(), { once: true });

  function ask() {
    const stay = h('button.button.is-small', { type: 'button', onclick: () => {
      put(asking);
      dialog.element.querySelector('.secret .button').focus();
    } }, 'Keep it open');
    put(asking, h('p', 'Close it? Once closed, nobody can show it again.'), stay, h('button.button.is-small.is-danger', { type: 'button', onclick: () => dialog.close() }, 'Close without storing'));
    stay.focus();
  }

  function forget() {
    put(place);
    place.remove();
    removeEventListener('pagehide', forget);
    if (dialog?.element.open) dialog.close();
  }
}

const exportLine = (example) => `export HEADGATE_KEY='…'\n${example}`;

/** A model that this gateway serves: what was asked for most of late, else one that an upstream names. @returns {Promise<?string>} */
async function usualModel(ctx) {
  const of = { signal: ctx.signal, timeoutMs: 5000 };
  try {
    const used = await ctx.api.get('usage', { by: 'model', range: 'last_30_days', sort: '-requests', limit: 1 }, of);
    if (used.rows.length) return memberName(used.rows[0], 'model');
    const { data } = await ctx.api.get('upstreams', {}, of);
    const names = data.filter((each) => each.state !== 'off').flatMap((each) => each.models);
    return names.find((name) => !name.includes('*')) ?? names.find((name) => name !== '*')?.replace('*', 'mini') ?? null;
  } catch {
    // It is only an example: the one that is shown stays.
    return null;
  }
}
