/** What it cost, as a sum. */
import { h, put } from '../../dom.js';
import { count, moment, nano, usdExact } from '../../format.js';
import { panel } from '../../panel.js';
import { alignedUsd, billOf } from './bill.js';

/** @param {import('./account.js').Account} account @param {string} tz @returns {HTMLElement} */
export function billPanel(account, tz) {
  const { told } = account;
  const bill = billOf(told);
  const isFree = account.refused || (account.cache === 'hit' && bill.lines.length === 0);
  const chip = account.refused ? null : account.costUsd === null || account.unpriced ? h('span.chip.is-warn', '◇ unpriced') : account.estimated ? h('span.chip.is-warn', '≈ estimate') : h('span.chip', 'exact');
  const box = panel({ title: 'What it cost', class: 'of-6', flush: true, actions: chip });
  if (isFree || (bill.lines.length === 0 && account.costUsd !== null && nano(account.costUsd) === 0n)) {
    put(box.body, h('p.request-none', account.refused ? 'Nothing was sent, and nothing was charged.' : account.cache === 'hit' ? `Nothing: it came from the cache.${saved(account)}` : 'Nothing was charged.'));
    return box.element;
  }
  const amounts = [...bill.lines.map((line) => line.nanousd), bill.total].filter((each) => each !== null);
  const texts = alignedUsd(amounts);
  let at = 0;
  const text = (amount) => (amount === null ? '–' : texts[at++]);
  const hasPrices = bill.lines.some((line) => line.price !== null);
  put(box.body, h('table.table', h('caption', 'The cost, part by part'),
    h('thead', h('tr', h('th', { scope: 'col' }, 'Item'), h('th.end', { scope: 'col' }, 'Count'), hasPrices && h('th.end', { scope: 'col' }, 'Price'), h('th.end', { scope: 'col' }, 'Cost'))),
    h('tbody', bill.lines.map((line) => h('tr', h('th', { scope: 'row', class: line.inside ? 'bill-inside' : '' }, line.item), h('td.end', count(line.count)), hasPrices && h('td.end.text-2', line.price ?? ''), h('td.end', text(line.nanousd))))),
    h('tfoot', h('tr', h('th', { scope: 'row' }, 'Total'), h('td.end'), hasPrices && h('td.end'), h('td.end', account.costUsd === null ? h('span.warn', '◇ unpriced') : [account.estimated && '≈ ', text(bill.total)])))),
  h('p.note.request-note', source(told, account, tz)));
  return box.element;
}

function saved(account) {
  return account.savedUsd && nano(account.savedUsd) > 0n ? ` The cache saved ${usdExact(account.savedUsd)}.` : '';
}

function source(told, account, tz) {
  if (account.costUsd === null) return 'The model has no price. Set one in Prices, then reprice.';
  const from = told.bill?.source ?? told.price_source;
  const words = { list: `from ${told.bill?.version ?? told.price_version ?? 'the list'}`, override: 'set by an administrator', file: 'from the configuration file', simulator: 'of the simulator' }[from] ?? (from ? `from ${from}` : '');
  const since = told.bill?.effective_from ? `Prices of ${moment(told.bill.effective_from, tz).split(',')[0]}, ` : words ? 'Prices ' : '';
  const tier = told.service_tier ? `${told.service_tier === 'default' ? 'standard' : told.service_tier} tier` : '';
  const why = account.tries.find((each) => each.whyEstimate)?.whyEstimate ?? '';
  return [[`${since}${words}`, tier].filter(Boolean).join(', '), why].filter(Boolean).join('. ');
}
