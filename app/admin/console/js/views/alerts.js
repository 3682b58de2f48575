/** Alerts: who is told? Rules, where they go, and what was sent. */
import { h, put } from '../dom.js';
import { confirm } from '../dialog.js';
import { ago, duration, exactly, plural } from '../format.js';
import { icon, mark } from '../icons.js';
import { moreThan, readAll } from '../pages.js';
import { empty, head, loader, panel } from '../panel.js';
import { repeat } from '../repeat.js';
import { toast } from '../status.js';
import { table } from '../table.js';
import { changeAlert, makeAlert } from './alerts/rule.js';
import { kindTitle, parametersText, resultOf } from './alerts/words.js';

const REFRESH_MS = 30_000;
const SENT_MAX = 50;

async function render(root, ctx) {
  const isAdmin = ctx.may('admin');
  const openBox = panel({ title: 'Firing now', flush: true });
  openBox.element.hidden = true;
  const rulesBox = panel({ title: 'Rules', flush: true });
  const targetsBox = panel({ title: 'Who is told', class: 'of-5', flush: true });
  const sentBox = panel({ title: 'What was sent', class: 'of-7', flush: true });
  const body = h('div.alerts', openBox.element, rulesBox.element, h('div.columns', targetsBox.element, sentBox.element));
  put(root, head('Alerts', isAdmin && h('button.button.is-primary', { type: 'button', onclick: () => makeAlert(ctx, { targets, done: load }) }, icon('plus'), 'Make a rule')), body);
  let targets = [];
  const shown = new Map();

  function show(box, options) {
    const known = shown.get(box);
    if (known) known.update(options);
    else {
      const made = table(options);
      shown.set(box, made);
      put(box.body, made.element);
    }
  }

  const { load } = loader(body, {
    signal: ctx.signal, tz: () => ctx.state.tz,
    read: async (signal) => {
      const [rules, found, sent, open] = await Promise.all([
        readAll(ctx.api, 'alerts', {}, { signal }), ctx.api.get('alerts/targets', {}, { signal }), ctx.api.get('alerts/deliveries', { limit: SENT_MAX }, { signal }),
        readAll(ctx.api, 'alerts/open', {}, { signal }),
      ]);
      return { rules, found: found.data, sent: sent.data, isMore: Boolean(sent.next), open };
    },
    draw: ({ rules, found, sent, isMore, open }) => {
      openBox.element.hidden = open.rows.length === 0;
      show(openBox, { ...openTable(open.rows, ctx.state.tz), more: moreThan(open) });
      targets = found;
      show(rulesBox, { ...rulesTable(rules.rows, ctx.state.tz), more: moreThan(rules) });
      show(targetsBox, targetsTable(found, ctx.state.tz));
      show(sentBox, { ...sentTable(sent, ctx.state.tz), more: isMore && `The last ${SENT_MAX} are shown.` });
    },
  });

  function openTable(open, tz) {
    return {
      caption: 'What fires now, the worst on top', class: 'is-two', rows: open, id: (each) => each.id,
      columns: [
        { key: 'what', label: 'What', class: 'keys-name', cell: (each) => h('span.alert-what', mark(each.severity === 'bad' ? 'bad' : 'warn', 14), h('span', h('span.strong.keys-name-text', { title: each.title }, each.title), h('span.line-2.cell-cut', { title: each.detail }, each.detail))) },
        { key: 'rule', label: 'Rule', class: 'wide-only', cell: (each) => each.rule?.name || kindTitle(each.rule?.kind ?? '') },
        { key: 'since', label: 'Since', cell: (each) => ago(each.fired_at, tz), title: (each) => exactly(each.fired_at, tz) },
      ],
    };
  }

  function rulesTable(rules, tz) {
    return {
      caption: 'Rules of alerts', class: 'is-two', rows: [...rules].sort((one, other) => (other.firing ?? 0) - (one.firing ?? 0)), id: (rule) => rule.id,
      empty: empty({ title: 'No rules yet.', text: 'A rule says what people are told of: a budget that runs out, a key that spends faster than it ever did, a model without a price, an upstream that is down, a key that ends.',
        action: isAdmin ? h('button.button', { type: 'button', onclick: () => makeAlert(ctx, { targets, done: load }) }, 'Make a rule') : null }),
      columns: [
        { key: 'name', label: 'Rule', class: 'keys-name', cell: (rule) => [h('span.strong.keys-name-text', { title: rule.name }, rule.name || kindTitle(rule.kind)), h('span.line-2', kindTitle(rule.kind))] },
        { key: 'when', label: 'Fires', class: 'wide-only wrap', cell: (rule) => parametersText(rule) },
        { key: 'of', label: 'Of', class: 'wide-only', cell: (rule) => rule.team?.name ?? h('span.text-2', 'all teams') },
        { key: 'to', label: 'Tells', class: 'wide-only', cell: (rule) => [rule.targets ? rule.targets.join(', ') : h('span.text-2', 'everyone'), rule.blocked?.length ? h('span.line-2.warn', `▲ not ${rule.blocked.map((each) => each.target).join(', ')}: gone`) : null] },
        { key: 'state', label: 'State', cell: (rule) => stateOf(rule, tz) },
        isAdmin && { key: 'act', label: h('span.hush', 'Actions'), end: true, class: 'prices-acts', cell: (rule) => [
          h('button.link', { type: 'button', 'aria-label': `Change ${rule.name}`, onclick: () => changeAlert(ctx, rule, { targets, done: load }) }, 'Change'), ' ',
          h('button.link.bad', { type: 'button', 'aria-label': `Take away ${rule.name}`, onclick: () => take(rule) }, 'Take away')] },
      ].filter(Boolean),
    };
  }

  function targetsTable(rows, tz) {
    return {
      caption: 'Targets', class: 'is-two', rows, id: (target) => target.name,
      empty: empty({ title: 'Nobody is told yet.', text: 'Webhooks and e-mail addresses are named in the configuration file under “alerts”: they hold secrets.' }),
      columns: [
        { key: 'name', label: 'Target', class: 'keys-name', cell: (target) => [h('span.strong.keys-name-text', { title: target.name }, target.name), h('span.line-2.cell-cut', { title: target.to }, `${target.kind === 'email' ? 'e-mail, ' : ''}${target.to}`)] },
        { key: 'sent', label: 'Last sent', class: 'wrap', cell: (target) => [target.last_sent_at ? ago(target.last_sent_at, tz) : h('span.text-3', 'never'), target.last_result ? resultCell(resultOf(target.last_result, target.last_status, target.last_error)) : null], title: (target) => exactly(target.last_sent_at, tz) },
        isAdmin && { key: 'act', label: h('span.hush', 'Actions'), end: true, cell: (target) => h('button.button.is-small', { type: 'button', 'aria-label': `Send a test to ${target.name}`, onclick: (event) => test(target, event.currentTarget) }, 'Send a test') },
      ].filter(Boolean),
    };
  }

  function sentTable(rows, tz) {
    return {
      caption: 'What was sent, newest first', rows, id: (each) => each.id,
      empty: empty({ title: 'Nothing was sent yet.', text: 'Each try stands here, with what came back.' }),
      columns: [
        { key: 'at', label: 'Time', class: 'num', cell: (each) => ago(each.created_at, tz), title: (each) => exactly(each.created_at, tz) },
        { key: 'rule', label: 'Of', class: 'record-name', cell: (each) => h('span.cell-cut', { title: each.rule?.name ?? each.type }, each.rule?.name ?? 'a test') },
        { key: 'to', label: 'To', class: 'record-name', cell: (each) => h('span.cell-cut', { title: each.target }, each.target) },
        { key: 'tries', label: 'Tries', end: true, class: 'wide-only', cell: (each) => String(each.attempts.length) },
        { key: 'took', label: 'Took', end: true, class: 'wide-only', cell: (each) => (each.attempts.length ? duration(each.attempts.at(-1).took_ms) : '–') },
        { key: 'result', label: 'Result', class: 'alerts-result', cell: (each) => resultCell(resultOf(each.state, each.attempts.at(-1)?.status, each.attempts.at(-1)?.error), false) },
      ],
    };
  }

  async function test(target, button) {
    if (button.getAttribute('aria-disabled')) return;
    button.setAttribute('aria-disabled', 'true');
    try {
      const sent = await ctx.api.post(`alerts/targets/${encodeURIComponent(target.name)}/test`, {}, { timeoutMs: 60_000 });
      const last = sent.delivery?.attempts?.at(-1);
      toast(sent.ok ? `${target.name} has the test.` : `The test did not reach ${target.name}: ${last?.error ?? (last?.status ? `it answered ${last.status}` : 'no answer')}`);
    } catch (error) {
      toast(`That did not work: ${error.message}`);
    } finally {
      button.removeAttribute('aria-disabled');
    }
    load();
  }

  async function take(rule) {
    const sure = await confirm({ title: `Take away the rule ${rule.name || kindTitle(rule.kind)}?`, verb: 'Take it away', danger: true, text: h('p', 'Nobody is told of it any more. What was sent stays below.') });
    if (!sure) return;
    try {
      await ctx.api.delete(`alerts/${encodeURIComponent(rule.id)}`);
    } catch (error) {
      toast(`That did not work: ${error.message}`);
    }
    load();
  }

  load();
  repeat(REFRESH_MS, load, ctx.signal);
  return { refresh: load };
}

function stateOf(rule, tz) {
  if (!rule.enabled) return [h('span.state', mark('off'), 'Off')];
  const last = rule.last_fired_at ? h('span.line-2', `last ${ago(rule.last_fired_at, tz)}`) : h('span.line-2', 'never fired');
  return rule.state === 'firing' ? [h('span.state', mark('warn'), h('span.warn.strong', `Firing${rule.firing > 1 ? `, ${plural(rule.firing, 'time')}` : ''}`)), last] : [h('span.state', mark('good'), 'Quiet'), last];
}

function resultCell({ sign, text, level }, isBelow = true) {
  return h('span', { class: [isBelow ? 'line-2' : 'cell-cut', level].join(' '), title: text }, h('span', { 'aria-hidden': 'true' }, `${sign} `), text);
}

export default { name: 'alerts', title: 'Alerts', roles: ['admin', 'viewer'], render };
