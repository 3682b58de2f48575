/** Reprice: what has no price gets one, by entries of its own. The sum is seen before anything is written. */
import { ApiError } from '../../api.js';
import { h, put } from '../../dom.js';
import { openDialog } from '../../dialog.js';
import { plural, usd } from '../../format.js';
import { field, valuesOf } from '../../form.js';
import { icon } from '../../icons.js';
import { addDays, today } from '../../range.js';
import { toast } from '../../status.js';

const AGAIN_MS = 1000;
const PATIENCE = 5;

/**
 * @param {import('../../shell.js').Context} ctx
 * @param {{rows: object[], model?: ?string, from?: ?string, isFresh?: boolean, done: () => void}} options
 *   `isFresh`: its price was set this moment; gateways follow within a second or two
 */
export function repriceDialog(ctx, { rows, model = null, from = null, isFresh = false, done }) {
  const { tz } = ctx.state;
  const models = [...new Set(rows.filter((row) => row.unpriced > 0).map((row) => row.model))];
  const first = field({ name: 'from', label: 'From', type: 'date', required: true, value: from ?? addDays(today(tz), -30), attributes: { autofocus: true } });
  const last = field({ name: 'to', label: 'To', type: 'date', required: true, value: today(tz), hint: 'This day too, UTC' });
  const of = field({ name: 'model', label: 'Model', value: model ?? '', options: [{ value: '', label: 'every model' }, ...[...new Set([...models, ...(model ? [model] : [])])].map((value) => ({ value, label: value }))] });
  const fields = [first, last, of];
  const place = h('div.reprice-sum', { role: 'status' });
  const act = h('button.button.is-primary', { type: 'button', disabled: true, onclick: write }, 'Reprice');
  let turn = 0;
  let patience = isFresh ? PATIENCE : 0;
  const body = [h('p.text-2', 'Requests without a price get the one that is in force for their day, by entries that adjust them. What has a price keeps it.'),
    h('div.fields.is-2', first.element, last.element), of.element, place];
  const dialog = openDialog({ title: 'Reprice', body, foot: [h('button.button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), act] });
  for (const each of fields) each.input.addEventListener('change', look);
  look();

  function asked(isDry) {
    const values = valuesOf(fields);
    return values && { from: `${values.from}T00:00:00Z`, to: `${addDays(values.to, 1)}T00:00:00Z`, ...(values.model ? { model: values.model } : {}), dry_run: isDry };
  }

  async function look() {
    const body = asked(true);
    const own = ++turn;
    act.disabled = true;
    if (!body) return;
    put(place, h('p.text-3', 'Adding up…'));
    try {
      const told = await ctx.api.post('prices/reprice', body, { timeoutMs: 120_000 });
      if (own !== turn) return;
      if (!told.attempts && told.unpriced && patience > 0 && dialog.element.open) {
        patience -= 1;
        setTimeout(() => own === turn && look(), AGAIN_MS);
        return;
      }
      put(place, sumOf(told));
      act.disabled = !told.attempts;
      put(act, told.attempts ? `Reprice ${plural(told.attempts, 'call')}` : 'Reprice');
    } catch (error) {
      if (own === turn) complain(error);
    }
  }

  async function write() {
    const body = asked(false);
    if (!body || act.disabled) return;
    act.disabled = true;
    try {
      const told = await ctx.api.post('prices/reprice', body, { timeoutMs: 600_000 });
      dialog.close();
      toast(`${plural(told.attempts, 'call')} got a price: ${usd(told.cost_usd)} in all.`);
      done();
    } catch (error) {
      complain(error);
      act.disabled = false;
    }
  }

  function complain(error) {
    const words = error instanceof ApiError ? error.message : 'Something went wrong in this page. Reload it.';
    put(place, h('div.fault-box.in-form', icon('close'), h('div.what', h('p', words))));
  }
}

function sumOf(told) {
  const left = Object.entries(told.unpriced_models ?? {});
  if (!told.attempts && !told.unpriced) return h('p.text-2', 'Nothing in these days is without a price.');
  return [
    told.attempts ? h('p', h('b.reprice-figure', usd(told.cost_usd)), ` for ${plural(told.attempts, 'call')} will be added to the days they were made on.`) : h('p.text-2', 'Nothing can be priced yet.'),
    told.unpriced ? h('p.warn', `◇ ${plural(told.unpriced, 'call')} would still have no price: ${left.map(([name, calls]) => `${name} (${calls})`).join(', ')}.`) : null,
  ];
}
