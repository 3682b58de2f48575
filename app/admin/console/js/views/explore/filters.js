/** One filter: of what, is or is not, and which of those that were used in the range. */
import { openDialog } from '../../dialog.js';
import { h, put, uniqueId } from '../../dom.js';
import { count } from '../../format.js';
import { segments } from '../../menu.js';
import { readUsage } from '../../pages.js';
import { askTag } from '../../tag.js';
import { DIMENSIONS, memberOf, nameOf, wordOf } from './question.js';

const SHOWN_MAX = 100;

/**
 * @param {import('../../shell.js').Context} ctx
 * @param {string} filter '' for a new one, else such as `team` or `not.model`
 * @param {string[]} values
 */
export function editFilter(ctx, filter, values) {
  let dimension = filter.replace('not.', '') || (ctx.may('admin', 'viewer') ? 'team' : 'key');
  let isNot = filter.startsWith('not.');
  let chosen = new Set(values);
  let rows = [];
  const id = uniqueId('filter');
  const list = h('div.filter-list', { role: 'group', 'aria-label': 'Values' });
  const find = h('input.input', { type: 'search', 'aria-label': 'Find', placeholder: 'Find', oninput: () => draw() });
  const kinds = h('select.input', { id, onchange: () => pick(kinds.value) });
  const apply = h('button.button.is-primary', { type: 'button', onclick: () => {
    dialog.close();
    const name = `${isNot ? 'not.' : ''}${dimension}`;
    ctx.set({ ...(filter && filter !== name ? { [filter]: null } : {}), [name]: [...chosen] });
  } }, 'Show only these');

  function drawKinds() {
    const own = dimension.startsWith('tag.') ? [[dimension, wordOf(dimension)]] : [];
    put(kinds, [...DIMENSIONS.filter(([value]) => value !== 'team' || ctx.may('admin', 'viewer')), ...own, ['tag', 'Tag…']].map(([value, label]) => h('option', { value }, label)));
    kinds.value = dimension;
  }

  async function pick(value) {
    const wanted = value === 'tag' ? await askTag() : value;
    if (wanted && wanted !== dimension) {
      dimension = wanted;
      chosen = new Set();
    }
    drawKinds();
    read();
  }

  async function read() {
    rows = [];
    put(list, h('p.note', 'Reading what was used in these days…'));
    const of = dimension;
    const query = ctx.state.query({ by: of, sort: '-cost', [of]: null, [`not.${of}`]: null });
    try {
      const answer = await readUsage(ctx.api, 'usage', query, ctx.signal);
      if (of !== dimension) return;
      rows = answer.rows;
      draw();
    } catch (error) {
      if (of === dimension && error.name !== 'AbortError') put(list, h('p.bad', error.message));
    }
  }

  function draw() {
    const wanted = find.value.trim().toLowerCase();
    const found = rows.filter((row) => nameOf(row, dimension).toLowerCase().includes(wanted));
    put(list, found.length === 0 && h('p.note', rows.length ? 'Nothing of that name.' : 'Nothing was used in these days.'),
      found.slice(0, SHOWN_MAX).map((row) => {
        const member = memberOf(row, dimension);
        return h('label.choice', h('input', { type: 'checkbox', checked: chosen.has(member), onchange: (event) => {
          if (event.target.checked) chosen.add(member);
          else chosen.delete(member);
        } }), h('span.cut', { title: nameOf(row, dimension) }, nameOf(row, dimension)), h('span.note', `${count(row.requests)} requests`));
      }), found.length > SHOWN_MAX && h('p.note', `${found.length - SHOWN_MAX} more: find them by name.`));
  }

  const dialog = openDialog({
    title: filter ? 'Change filter' : 'Add filter', class: 'filter-dialog', foot: [h('button.button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), apply],
    body: [h('div.filter-top', h('div.field', h('label', { for: id }, 'Only where'), kinds),
      segments({ label: 'Is or is not', items: [{ value: 'is', label: 'is' }, { value: 'not', label: 'is not' }], value: isNot ? 'not' : 'is', onPick: (value) => { isNot = value === 'not'; } })), find, list],
  });
  drawKinds();
  read();
}
