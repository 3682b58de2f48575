/** A table of figures: sortable, with a total, rows that open, and a next page. */
import { h, put } from './dom.js';

/**
 * @template R
 * @typedef {object} Column
 * @property {string} key
 * @property {import('./dom.js').Child} label
 * @property {(row: R) => import('./dom.js').Child} cell
 * @property {boolean} [end] set to the right, as figures are
 * @property {boolean} [sorts] its heading sorts by `key`
 * @property {string} [class] for each of its cells
 * @property {boolean} [isHead] the row's name: a row header
 * @property {(row: R) => string|null} [title] the exact value
 */

/**
 * @template R
 * @typedef {object} TableOptions
 * @property {string} caption said to screen readers
 * @property {Column<R>[]} columns
 * @property {R[]} [rows]
 * @property {(row: R) => string} [id] what a row is known by, for `selected`
 * @property {string} [sort] `key` or `-key`
 * @property {(sort: string) => void} [onSort]
 * @property {(row: R) => void} [onOpen] a click on the row, or Enter on its name
 * @property {(row: R) => string|null} [href] the same as a link
 * @property {string} [selected]
 * @property {Record<string, import('./dom.js').Child>|null} [total] by column key
 * @property {import('./dom.js').Child[][]|null} [notes] lines under the total: one child a column, the last spans what is left
 * @property {(row: R) => import('./dom.js').Child[]|null} [group] a row of its own before the first of a group: by `groupId`
 * @property {(row: R) => string} [groupId]
 * @property {(() => void)|null} [onNext] there is a next page
 * @property {import('./dom.js').Child} [more] said under the rows: what is not among them
 * @property {import('./dom.js').Child} [empty] in place of the rows where there are none
 * @property {string} [class] `is-two` for rows of two lines
 */

/**
 * @template R
 * @param {TableOptions<R>} options
 * @returns {{element: HTMLElement, update: (changes: Partial<TableOptions<R>>) => void, rowOf: (id: string) => HTMLElement|null}}
 */
export function table(options) {
  let now = { rows: [], total: null, notes: null, sort: '', selected: '', onNext: null, more: null, empty: null, class: '', ...options };
  const scroll = h('div.table-scroll');
  const next = h('div.table-next', { hidden: true });
  const element = h('div', scroll, next);
  const rowsById = new Map();

  function draw() {
    const active = document.activeElement;
    const focused = scroll.contains(active) ? active.closest('tr')?.dataset.id ?? active.dataset.sort : null;
    rowsById.clear();
    element.style.setProperty('--rows', now.rows.length);
    if (!now.rows.length && now.empty) put(scroll, now.empty);
    else put(scroll, h('table.table', { class: now.class }, h('caption', now.caption), headOf(), bodyOf(), footOf()));
    put(next, now.onNext && h('button.button.is-small', { type: 'button', onclick: () => now.onNext() }, 'Next page'), now.more && h('span.note', now.more));
    next.hidden = !now.onNext && !now.more;
    if (focused) scroll.querySelector(`tr[data-id="${CSS.escape(focused)}"] .row-open, [data-sort="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    watcher.disconnect();
    watcher.observe(scroll);
    if (scroll.firstElementChild) watcher.observe(scroll.firstElementChild);
  }

  function headOf() {
    return h('thead', h('tr', now.columns.map((column) => {
      const by = now.sort.replace('-', '');
      const isSorted = column.sorts && by === column.key;
      const descends = now.sort.startsWith('-');
      const label = isSorted ? [column.label, h('span', { 'aria-hidden': 'true' }, descends ? ' ↓' : ' ↑')] : column.label;
      const shown = column.sorts && now.onSort ? h('button', { type: 'button', data: { sort: column.key },
        onclick: () => now.onSort(isSorted ? (descends ? column.key : `-${column.key}`) : column.end ? `-${column.key}` : column.key) }, label) : label;
      return h('th', { scope: 'col', class: classOf(column), 'aria-sort': isSorted ? (descends ? 'descending' : 'ascending') : null }, shown);
    })));
  }

  function bodyOf() {
    const body = h('tbody', { onclick: onClick, onkeydown: onKey });
    let group = null;
    for (const row of now.rows) {
      if (now.group && now.groupId(row) !== group) {
        group = now.groupId(row);
        body.append(h('tr.group', now.group(row)));
      }
      body.append(rowOf(row));
    }
    return body;
  }

  function rowOf(row) {
    const id = now.id ? now.id(row) : '';
    const opens = Boolean(now.onOpen || now.href);
    const line = h('tr', { class: [opens ? 'opens' : '', id && id === now.selected ? 'is-open' : ''].join(' '), 'data-id': id || null });
    now.columns.forEach((column, index) => {
      const inside = column.cell(row);
      const isName = column.isHead ?? index === 0;
      const href = isName && now.href ? now.href(row) : null;
      const shown = !isName || !opens ? inside : href ? h('a.row-open', { href }, inside) : now.onOpen ? h('button.row-open', { type: 'button' }, inside) : inside;
      line.append(h(isName ? 'th' : 'td', { scope: isName ? 'row' : null, class: classOf(column), title: column.title?.(row) ?? null }, shown));
    });
    if (id) rowsById.set(id, line);
    line.row = row;
    return line;
  }

  function footOf() {
    if (!now.total || !now.rows.length) return null;
    const cells = now.columns.map((column, index) => h(index === 0 ? 'th' : 'td', { scope: index === 0 ? 'row' : null, class: classOf(column) }, now.total[column.key] ?? ''));
    return h('tfoot', h('tr', cells), (now.notes ?? []).map((line) => h('tr.is-note', line.map((child, index) => h('td', {
      class: classOf(now.columns[index]), colspan: index === line.length - 1 && line.length < now.columns.length ? now.columns.length - index : null }, child)))));
  }

  function onClick(event) {
    const line = event.target.closest('tr');
    if (!line?.row || event.target.closest('a, button:not(.row-open), input, label, select')) return;
    if (getSelection()?.toString()) return;
    if (now.onOpen) now.onOpen(line.row);
    else line.querySelector('a.row-open')?.click();
  }

  function onKey(event) {
    if (!['ArrowDown', 'ArrowUp', 'Home', 'End'].includes(event.key) || !event.target.matches('.row-open')) return;
    const all = [...scroll.querySelectorAll('.row-open')];
    const at = all.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (!all[to]) return;
    event.preventDefault();
    all[to].focus();
  }

  /** What scrolls sideways must be reachable by key. Told after layout, so that nothing is laid out for the question. */
  const watcher = new ResizeObserver(() => {
    const scrolls = scroll.scrollWidth > scroll.clientWidth + 1;
    if (scrolls === scroll.hasAttribute('tabindex')) return;
    for (const [name, value] of [['tabindex', '0'], ['role', 'group'], ['aria-label', now.caption]]) {
      if (scrolls) scroll.setAttribute(name, value);
      else scroll.removeAttribute(name);
    }
  });

  draw();
  return {
    element,
    update(changes) {
      now = { ...now, ...changes };
      draw();
    },
    rowOf: (id) => rowsById.get(id) ?? null,
  };
}

const classOf = (column) => [column.end ? 'end' : '', column.class ?? ''].join(' ').trim();
