/** Keys: who has access, and who uses it. */
import { h, put } from '../dom.js';
import { ago, exactly, plural, usdColumn, usdLimit } from '../format.js';
import { icon } from '../icons.js';
import { empty, head, loader, panel, swatch } from '../panel.js';
import { afterPause, repeat } from '../repeat.js';
import { table } from '../table.js';
import { teamFilter } from '../menu.js';
import { KeyDrawer } from './keys/drawer.js';
import { EVERY_TAB, readCounts, readKeys } from './keys/reading.js';
import { makeKey } from './keys/make.js';
import { budgetOf, limitLines, liveSecrets, secretStem, stateOf } from './keys/words.js';

const REFRESH_MS = 30_000;

async function render(root, ctx) {
  const view = new Keys(root, ctx);
  view.load();
  return { refresh: () => view.refresh(), leave: () => view.leave() };
}

class Keys {
  constructor(root, ctx) {
    this.ctx = ctx;
    this.now = Date.now();
    this.data = null;
    this.canMake = ctx.may('admin', 'lead');
    const find = h('input.input', { type: 'search', placeholder: 'Find a key, team or id', 'aria-label': 'Find a key, team or id', value: ctx.state.get('q'),
      oninput: (event) => this.search(event.target.value.trim()) });
    this.search = afterPause(250, (text) => ctx.set({ q: text || null }));
    this.find = find;
    this.tabs = h('div.tabs', { role: 'group', 'aria-label': 'Which keys' });
    this.table = null;
    this.wasDrawn = false;
    this.body = h('div.keys-rows');
    this.panel = panel({ flush: true, class: 'keys-panel' });
    this.panel.body.append(this.tabs, this.body);
    this.place = h('div.with-drawer', this.panel.element);
    this.filter = ctx.state.list('team').length ? teamFilter(ctx) : null;
    put(root, head('Keys', this.filter, h('div.find', icon('explore'), find),
      this.canMake && h('button.button.is-primary', { type: 'button', onclick: () => this.make() }, icon('plus'), 'Make a key')), this.place);
    this.asked = this.question();
    this.drawTabs(null);
    this.loader = loader(this.panel.element, { read: (signal) => this.read(signal), draw: (data) => this.draw(data), signal: ctx.signal, tz: () => ctx.state.tz });
    repeat(REFRESH_MS, () => this.load(), ctx.signal);
  }

  get tab() {
    const asked = this.ctx.state.get('state', 'active');
    return EVERY_TAB.some(([name]) => name === asked) ? asked : 'active';
  }

  question() {
    const { state } = this.ctx;
    return JSON.stringify([this.tab, state.get('q'), state.get('team'), state.tz]);
  }

  refresh() {
    if (this.asked === this.question()) {
      if (this.data) this.draw(this.data);
      return;
    }
    this.asked = this.question();
    if (document.activeElement !== this.find) this.find.value = this.ctx.state.get('q');
    this.drawTabs(this.data?.counts ?? null);
    this.load();
  }

  leave() {
    this.drawer?.close();
  }

  load() {
    return this.loader.load();
  }

  async read(signal) {
    const { api, state } = this.ctx;
    const team = state.get('team');
    const [keys, counts] = await Promise.all([
      readKeys(api, { tab: this.tab, q: state.get('q'), team, tz: state.tz, signal }),
      readCounts(api, { team, signal }),
    ]);
    return { ...keys, counts };
  }

  draw(data) {
    this.data = data;
    // One way of writing for the whole column, so that it adds up as it is read.
    this.money = usdColumn(data.allUsd);
    this.now = Date.now();
    this.drawTabs(data.counts);
    const { ctx } = this;
    const open = ctx.state.get('open');
    const options = {
      caption: 'Keys by team', class: 'is-two keys-table', columns: this.columns(), rows: data.keys, id: (key) => key.id, selected: open,
      onOpen: (key) => ctx.set({ open: key.id === ctx.state.get('open') ? null : key.id }),
      groupId: (key) => key.team.id, group: (key) => this.group(key.team), total: this.total(data), notes: this.notes(data), empty: this.empty(),
    };
    if (this.table) this.table.update(options);
    else {
      this.table = table(options);
      put(this.body, this.table.element);
    }
    this.showDrawer(open);
    this.wasDrawn = true;
  }

  drawTabs(counts) {
    const shown = EVERY_TAB.filter(([name, , always]) => always || name === this.tab || (name === 'expired' ? (counts?.[name] ?? 0) > 0 : this.ctx.state.get('q') !== ''));
    const focused = this.tabs.contains(document.activeElement) ? document.activeElement.dataset.tab : null;
    put(this.tabs, shown.map(([name, label]) => h('button', { type: 'button', 'aria-pressed': String(name === this.tab), data: { tab: name },
      onclick: () => this.ctx.set({ state: name === 'active' ? null : name, open: null }) },
    label, counts && h('span.count', String(counts[name] ?? 0)))));
    if (focused) this.tabs.querySelector(`[data-tab="${focused}"]`)?.focus();
  }

  columns() {
    const { tz } = this.ctx.state;
    const { now } = this;
    const month = new Intl.DateTimeFormat('en-GB', { month: 'long', timeZone: tz }).format(now);
    return [
      { key: 'key', label: 'Key', class: 'keys-name', cell: (key) => [h('span.strong.keys-name-text', { title: key.name }, key.name), h('code.line-2', secretStem((liveSecrets(key, now)[0] ?? key.secrets?.[0] ?? key).id))] },
      { key: 'limits', label: 'Limits', class: 'keys-limits', cell: (key) => {
        const [one, two] = limitLines(key.limits);
        return [one === 'no limit' ? h('span.text-3', one) : one, two && h('span.line-2', two)];
      } },
      { key: 'spent', label: `Spent in ${month}`, end: true, cell: (key) => this.spent(key) },
      { key: 'used', label: 'Last used', class: 'keys-used', cell: (key) => this.used(key), title: (key) => exactly(key.last_used_at, tz) },
      { key: 'state', label: 'State', class: 'keys-state', cell: (key) => stateChip(key, tz, now) },
    ];
  }

  spent(key) {
    const budget = budgetOf(key.limits);
    const spent = this.data.spent.get(key.id);
    const words = !budget ? 'no own budget' : budget.window === 'month' ? `of ${usdLimit(budget.maximum_usd)}`
      : `${usdLimit(budget.maximum_usd)} ${budget.window === 'total' ? 'in total' : `a ${budget.window}`}`;
    return [this.money(spent?.cost_usd ?? '0'), spent?.unpriced > 0 && h('span.warn', { title: plural(spent.unpriced, 'unpriced request') }, ' ◇'), h('span.line-2', words)];
  }

  used(key) {
    const { tz } = this.ctx.state;
    const [, old] = liveSecrets(key, this.now);
    return [key.last_used_at ? ago(key.last_used_at, tz, { now: this.now }) : h('span.text-3', 'never used'),
      old && key.state === 'active' && h('span.line-2', `old secret ${ago(old.last_used_at, tz, { now: this.now, never: 'never used' })}`)];
  }

  group(team) {
    const { budgets, teamSpent, keys, isWhole } = this.data;
    const budget = budgets.get(team.id);
    const count = keys.filter((key) => key.team.id === team.id).length;
    const spent = budget && budget.window === 'month' ? budget.spent_usd : teamSpent.get(team.id) ?? '0';
    const isTight = budget && budget.state !== 'ok';
    return [
      h('th', { colspan: 2, scope: 'rowgroup' }, h('span.keys-team', swatch(team.color ?? 0), h('span.strong.keys-name-text', { title: team.name }, team.name),
        h('span.note', isWhole ? plural(count, 'key') : '', h('span.phone-only', ` · ${this.money(spent)}${budget ? ` of ${usdLimit(budget.maximum_usd)}` : ''}`)))),
      h('td.end', h('span.text-2', this.money(spent), budget && budget.window === 'month' && ` of ${usdLimit(budget.maximum_usd)}`)),
      h('td', { colspan: 2 }, budget
        ? h('span', { class: isTight ? 'warn' : 'note' }, isTight && '▲ ', `${wholePercent(budget.spent_percent)}% of the team’s ${budget.window === 'month' ? '' : `${usdLimit(budget.maximum_usd)} ${budget.window === 'total' ? 'in total' : `a ${budget.window}`} `}budget`)
        : h('span.note', 'no team budget')),
    ];
  }

  total({ keys, isWhole, sumUsd }) {
    const teams = new Set(keys.map((key) => key.team.id)).size;
    return { key: `${isWhole ? '' : 'First '}${plural(keys.length, 'key')} in ${plural(teams, 'team')}`, spent: this.money(sumUsd) };
  }

  notes({ restUsd }) {
    if (!restUsd || this.ctx.state.get('q')) return null;
    return [[h('span.note', 'Keys not in this list'), null, this.money(restUsd), null, null]];
  }

  empty() {
    const { state } = this.ctx;
    if (state.get('q')) return empty({ title: 'No key is found by that.', text: 'Search by name, id, secret id, team, owner or tag; the tab above narrows it too.' });
    if (state.list('team').length) {
      return empty({ title: 'No such key in what is chosen.', text: 'Only the keys of some teams are looked at.', action: h('a.button', { href: state.with({ team: null, open: null }) }, 'Show every key') });
    }
    if (this.tab !== 'active') return empty({ title: `No keys here: ${EVERY_TAB.find(([name]) => name === this.tab)[2] ?? 'nothing is in this state'}.` });
    return empty({ title: 'No keys yet.', text: 'A key lets a program call models through Headgate. Its secret is shown once, when it is made.',
      action: this.canMake ? h('button.button', { type: 'button', onclick: () => this.make() }, 'Make a key') : null });
  }

  showDrawer(id) {
    if (this.drawer && this.drawer.id !== id) {
      this.drawer.close();
      this.drawer = null;
    }
    this.place.classList.toggle('is-open', Boolean(id));
    if (!id) return;
    const key = this.data.keys.find((each) => each.id === id) ?? null;
    if (!this.drawer) {
      this.drawer = new KeyDrawer(this.ctx, id, { onClose: () => this.closeDrawer(), onChanged: () => this.load() });
      this.place.append(this.drawer.element);
      this.drawer.load(key);
      if (this.wasDrawn) this.drawer.focus();
    } else this.drawer.load(key);
  }

  closeDrawer() {
    const id = this.ctx.state.get('open');
    this.ctx.set({ open: null });
    this.table?.rowOf(id)?.querySelector('.row-open')?.focus();
  }

  make() {
    makeKey(this.ctx, { onMade: (key) => {
      this.ctx.set({ state: null, q: null, open: key.id });
      this.load();
    } });
  }
}

/** Rounded, but never to a hundred before it is spent. @param {number} value */
function wholePercent(value) {
  const rounded = Math.round(Number(value));
  return rounded >= 100 && value < 100 ? 99 : rounded;
}

function stateChip(key, tz, now) {
  const { kind, text, mark } = stateOf(key, tz, now);
  if (kind === 'plain') return h('span.text-2', text);
  const [word, more] = text.split(',');
  return h('span.chip', { class: `is-${kind}` }, mark && h('span', { 'aria-hidden': 'true' }, mark), h('span', word, more && h('span.wide-only', `,${more}`)));
}

export default { name: 'keys', title: 'Keys', roles: ['admin', 'viewer', 'lead'], render };
