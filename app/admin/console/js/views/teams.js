/** Teams: all of them, or one with its figures, its keys and its budgets. */
import { h, put } from '../dom.js';
import { count, day, moment, plural, usdCents, usdLimit } from '../format.js';
import { field, formDialog } from '../form.js';
import { icon } from '../icons.js';
import { forgetTeams } from '../menu.js';
import { moreThan, readAll, readUsage } from '../pages.js';
import { empty, head, loader, panel, swatch } from '../panel.js';
import { today } from '../range.js';
import { toast } from '../status.js';
import { table } from '../table.js';
import { memberId } from '../amounts.js';
import { limitLines } from './keys/words.js';
import { renderTeam } from './teams/team.js';
import { budgetBar } from './budgets/words.js';

async function render(root, ctx) {
  // A lead has one team, and goes straight to it.
  const own = ctx.session.role === 'lead' ? ctx.session.team?.id : null;
  const id = ctx.state.item || own;
  return id ? renderTeam(root, ctx, id, { isOnly: Boolean(own) }) : renderList(root, ctx);
}

function renderList(root, ctx) {
  const { tz } = ctx.state;
  const isAdmin = ctx.may('admin');
  const box = panel({ flush: true });
  const month = new Intl.DateTimeFormat('en-GB', { month: 'long', timeZone: tz }).format(Date.now());
  put(root, head('Teams', isAdmin && h('button.button.is-primary', { type: 'button', onclick: () => makeTeam(ctx) }, icon('plus'), 'Make a team')), box.element);
  let shown = null;
  const { load } = loader(box.element, {
    signal: ctx.signal, tz: () => tz,
    read: async (signal) => {
      const [teams, usage, budgets] = await Promise.all([
        readAll(ctx.api, 'teams', {}, { signal }),
        readUsage(ctx.api, 'usage', { by: 'team', range: 'this_month', tz }, signal),
        readAll(ctx.api, 'budgets', { tz }, { signal }),
      ]);
      return { teams: teams.rows, more: moreThan(teams), usage, budgets: budgets.rows };
    },
    draw: ({ teams, more, usage, budgets }) => {
      const spent = new Map(usage.rows.map((row) => [memberId(row, 'team'), row]));
      const budgetOf = (team) => budgets.filter((each) => each.team.id === team.id && !each.key && !each.model && !each.tag_name)
        .sort((one, other) => (other.window === 'month') - (one.window === 'month'))[0];
      const cost = (team) => Number(spent.get(team.id)?.cost_usd ?? 0);
      const sort = ctx.state.get('sort', '-spent');
      const by = { team: (one, other) => one.name.localeCompare(other.name, 'en', { numeric: true }), spent: (one, other) => cost(one) - cost(other), keys: (one, other) => one.keys_active - other.keys_active };
      const rows = [...teams].sort(by[sort.replace('-', '')] ?? by.spent);
      if (sort.startsWith('-')) rows.reverse();
      const options = {
        caption: 'Teams', class: 'is-two teams-table', rows, more, id: (team) => team.id, sort, onSort: (to) => ctx.set({ sort: to === '-spent' ? null : to }),
        href: (team) => ctx.state.href('teams', {}, team.id),
        empty: empty({ title: 'No teams yet.', text: 'A team holds keys, limits and a budget, and its spending is told apart in every view.',
          action: isAdmin ? h('button.button', { type: 'button', onclick: () => makeTeam(ctx) }, 'Make a team') : null }),
        total: { team: plural(teams.length, 'team'), keys: count(teams.reduce((sum, team) => sum + team.keys_active, 0)), requests: count(usage.total.requests), spent: [usage.total.unpriced > 0 && '◇ ', usdCents(usage.total.cost_usd)] },
        columns: [
          { key: 'team', label: 'Team', sorts: true, class: 'keys-name', cell: (team) => h('span.keys-team', swatch(team.color), h('span.strong.keys-name-text', { title: team.name }, team.name)) },
          { key: 'keys', label: 'Keys', end: true, sorts: true, cell: (team) => count(team.keys_active) },
          { key: 'requests', label: 'Requests', end: true, class: 'wide-only', cell: (team) => count(spent.get(team.id)?.requests ?? 0) },
          { key: 'spent', label: `Spent in ${month}`, end: true, sorts: true, cell: (team) => [spent.get(team.id)?.unpriced > 0 && h('span.warn', '◇ '), usdCents(spent.get(team.id)?.cost_usd ?? '0')] },
          { key: 'budget', label: 'Budget', class: 'teams-budget wide-only', cell: (team) => {
            const budget = budgetOf(team);
            return budget ? [budgetBar(budget), h('span.line-2', `${Math.round(Number(budget.spent_percent))}% of ${usdLimit(budget.maximum_usd)} ${budget.window === 'total' ? 'in total' : `a ${budget.window}`}`)] : h('span.text-3', 'no budget');
          } },
          { key: 'limits', label: 'Limits', class: 'wide-only', cell: (team) => {
            const [one, two] = limitLines(team.limits);
            return [one === 'no limit' ? h('span.text-3', one) : one, two && h('span.line-2', two)];
          } },
          { key: 'made', label: 'Made', class: 'wide-only', title: (team) => moment(team.created_at, tz), cell: (team) => day(today(tz, Date.parse(team.created_at)), { day: 'numeric', month: 'short', year: 'numeric' }) },
        ],
      };
      if (shown) shown.update(options);
      else {
        shown = table(options);
        box.body.append(shown.element);
      }
    },
  });
  load();
  return { refresh: load };

  function makeTeam() {
    formDialog({
      title: 'Make a team', verb: 'Make team', text: h('p', 'Keys belong to a team. What it may spend and how fast it may call can be set afterwards.'),
      fields: [field({ name: 'name', label: 'Name', required: true, placeholder: 'search', attributes: { autofocus: true, maxlength: 200 } })],
      send: (values) => ctx.api.post('teams', values),
      done: (team) => {
        forgetTeams();
        toast(`Team ${team.name} was made.`);
        ctx.navigate(ctx.state.href('teams', {}, team.id));
      },
    });
  }
}

export default { name: 'teams', title: 'Teams', roles: ['admin', 'viewer', 'lead'], render };
