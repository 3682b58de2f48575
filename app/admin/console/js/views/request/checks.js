/** The limits that were checked, and what was reserved. */
import { h, put } from '../../dom.js';
import { nano, percent, short, usd, usdCents, usdLimit } from '../../format.js';
import { panel } from '../../panel.js';
import { usdOf } from '../../amounts.js';
import { checkedLimits } from './limits.js';

/** @param {import('./account.js').Account} account @returns {HTMLElement} */
export function limitsPanel(account) {
  const rows = checkedLimits(account);
  const refused = rows.filter((row) => row.refused).length;
  const chip = rows.length === 0 ? null : refused ? h('span.chip.is-bad', `${refused} refused`) : h('span.chip.is-good', `${rows.length} of ${rows.length} allow`);
  const box = panel({ title: 'Limits that were checked', class: 'of-6', flush: true, actions: chip });
  if (rows.length === 0) {
    put(box.body, h('p.request-none', account.decision.cut ? 'What was checked was too long to keep.' : 'None: neither key nor team nor upstream has a limit that this request counts in.'));
    return box.element;
  }
  const amount = (row, value, of = usdCents) => (value === null || value === undefined ? '–' : row.isMoney ? of(usdOf(value)) : short(value).replace(/\.0(?=\D)/, ''));
  put(box.body, h('table.table', h('caption', 'Limits, in the order they were checked'),
    h('thead', h('tr', h('th', { scope: 'col' }, 'Limit'), h('th.end', { scope: 'col' }, 'Used'), h('th.end', { scope: 'col' }, 'This'), h('th.end', { scope: 'col' }, 'Allowed'))),
    h('tbody', rows.map((row) => h('tr', h('th.wrap', { scope: 'row' }, row.refused ? h('span.bad', { 'aria-hidden': 'true' }, '! ') : row.tight ? h('span.warn', { 'aria-hidden': 'true' }, '▲ ') : null, `${row.owner}, ${row.what}`, row.refused && h('span.hush', ' (refused)')),
      h('td.end', amount(row, row.used)), h('td.end.text-2', amount(row, row.needed, usd)), h('td.end', amount(row, row.maximum, usdLimit)))))),
  reservation(account));
  return box.element;
}

/** What was held while it ran, beside what it came to. */
function reservation(account) {
  if (account.reservedNano === null || account.reservedNano === 0) return null;
  const held = usd(usdOf(account.reservedNano));
  if (account.costUsd === null) return h('p.note.request-note', `Reserved ${held}; it came to no price.`);
  const part = (100 * Number(nano(account.costUsd))) / account.reservedNano;
  return h('p.note.request-note', `Reserved ${held}, used ${usd(account.costUsd)}: ${percent(part, part < 10 ? 1 : 0)} of the most it could have cost`);
}
