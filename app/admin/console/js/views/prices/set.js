/** Set a price: per million tokens, from a day on. */
import { h } from '../../dom.js';
import { dollarAmount, field, formDialog } from '../../form.js';
import { today } from '../../range.js';
import { repriceDialog } from './reprice.js';

/**
 * @param {import('../../shell.js').Context} ctx
 * @param {{rows: object[], row?: ?object, done: () => void}} options `row`: whose price is set, or changed
 */
export function setPrice(ctx, { rows, row = null, done }) {
  const { tz } = ctx.state;
  const model = field({ name: 'model', label: 'Model', required: true, value: row?.model, mono: true, attributes: row ? { readonly: true } : { autofocus: true } });
  const upstreams = [...new Set(rows.map((each) => each.upstream).filter(Boolean))];
  const upstream = field({ name: 'upstream', label: 'Upstream', value: row?.upstream ?? '', options: [{ value: '', label: 'any' }, ...upstreams.map((value) => ({ value, label: value }))] });
  const money = (name, label, required, hint = '') => field({ name, label, required, hint, value: row?.[name], placeholder: '0.00', attributes: { inputmode: 'decimal', autofocus: Boolean(row) && name.startsWith('input') }, read: dollarAmount });
  const prices = [money('input_per_mtok_usd', 'Input', true), money('cached_input_per_mtok_usd', 'Cached input', false), money('output_per_mtok_usd', 'Output', true)];
  const isUnpriced = row?.source === 'unpriced';
  const from = field({ name: 'effective_from', label: 'From', type: 'date', required: true, value: isUnpriced ? daysAgo(30, tz) : today(tz), hint: 'Requests of that day and after, UTC' });
  formDialog({
    title: row ? `Set a price of ${row.model}` : 'Set a price', fields: [model, upstream, ...prices, from], verb: 'Set price',
    text: h('p.text-2', 'Dollars for a million tokens. It wins over the file and the list. What already has a price keeps it.'),
    layout: [h('div.fields.is-2', model.element, upstream.element), h('div.fields.is-3', prices.map((each) => each.element)), from.element],
    // What is changed here stands before whoever changes it; a price that does not is not written over unseen.
    send: (values) => ctx.api.post('prices', { ...Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null)), ...(row?.source === 'override' ? { replace: true } : {}) }),
    done: () => {
      done();
      // What has waited for this price can have it now; its sum is seen first.
      if (isUnpriced) repriceDialog(ctx, { rows, model: row.model, from: from.input.value, isFresh: true, done });
    },
  });
}

const daysAgo = (days, tz) => today(tz, Date.now() - days * 86_400_000);
