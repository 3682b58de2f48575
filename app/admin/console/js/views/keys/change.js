/** Change what a key may: the same fields as when it was made, with what they are now. */
import { field, formDialog } from '../../form.js';
import { toast } from '../../status.js';
import { budgetOf } from './words.js';
import { bodyOf, keyFields } from './make.js';

/** What the form holds of a key. @param {object} key @param {string} tz */
export function formValues(key, tz) {
  const plain = (kind, window) => (key.limits ?? []).find((each) => each.kind === kind && each.window === window && !each.model && !each.tag_name);
  const budget = budgetOf(key.limits ?? []);
  // It ends with the day before the moment it stops at.
  const lastDay = key.expires_at ? new Intl.DateTimeFormat('en-CA', { timeZone: tz, year: 'numeric', month: '2-digit', day: '2-digit' }).format(Date.parse(key.expires_at) - 1) : null;
  return {
    owner: key.owner,
    requests_per_minute: plain('requests', 'minute')?.maximum ?? null,
    tokens_per_minute: plain('tokens', 'minute')?.maximum ?? null,
    concurrency: plain('concurrency', '')?.maximum ?? null,
    models: key.models?.join(', ') ?? null,
    endpoints: key.endpoints?.join(', ') ?? null,
    budget_usd: budget?.maximum_usd ?? null,
    budget_window: budget?.window ?? 'month',
    expires_at: lastDay,
    tags: Object.entries(key.tags ?? {}).map(([name, value]) => `${name}=${value}`).join(', ') || null,
  };
}

/** @param {import('./acts.js').Subject} of */
export function changeKey({ ctx, key, done }) {
  const { tz } = ctx.state;
  const before = formValues(key, tz);
  const name = field({ name: 'name', label: 'Name', required: true, value: key.name });
  const more = keyFields({ tz, values: before });
  const first = new Map([name, ...more.all].map((each) => [each.name, each.input.value]));
  formDialog({
    title: `Change ${key.name}`, fields: [name, ...more.all], layout: [name.element, more.layout()], verb: 'Change key',
    send: (values) => {
      const body = changed(bodyOf(values, tz), first, [name, ...more.all], budgetOf(key.limits ?? []));
      return Object.keys(body).length ? ctx.api.patch(`keys/${encodeURIComponent(key.id)}`, body) : key;
    },
    done: () => {
      toast(`${key.name} was changed.`);
      done();
    },
  });
}

/**
 * Only what one has touched is sent: a limit that another set meanwhile stays.
 * @param {object} body @param {Map<string, string>} first what each field held @param {import('../../form.js').Field[]} fields
 * @param {?object} budget the one there is
 */
function changed(body, first, fields, budget) {
  const touched = new Set(fields.filter((each) => each.input.value !== first.get(each.name)).map((each) => each.name));
  const result = {};
  for (const [name, value] of Object.entries(body)) {
    if (touched.has(name)) result[name] = value ?? (name === 'tags' ? {} : null);
  }
  if (touched.has('budget_usd') || touched.has('budget_window')) {
    const isThere = body.budget_usd !== null && body.budget_usd !== undefined;
    // A budget is taken away by the window that it has; one that is set names its window and its zone.
    Object.assign(result, isThere ? { budget_usd: body.budget_usd, budget_window: body.budget_window, time_zone: budget?.time_zone ?? body.time_zone }
      : budget ? { budget_usd: null, budget_window: budget.window, time_zone: budget.time_zone } : {});
  }
  return result;
}
