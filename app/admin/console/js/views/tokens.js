/** Admin tokens: who looks after the gateway, and as what. */
import { confirm } from '../dialog.js';
import { h, put } from '../dom.js';
import { ago, exactly, moment } from '../format.js';
import { endOfDay, field, formDialog } from '../form.js';
import { icon } from '../icons.js';
import { readTeams } from '../menu.js';
import { readAll } from '../pages.js';
import { empty, head, loader, panel } from '../panel.js';
import { toast } from '../status.js';
import { table } from '../table.js';
import { reveal } from './keys/reveal.js';

const ROLES = { admin: 'Administrator', viewer: 'Viewer', lead: 'Team lead' };
const MAY = { admin: 'may everything', viewer: 'reads everything', lead: 'one team and its keys' };

async function render(root, ctx) {
  const isAdmin = ctx.may('admin');
  const box = panel({ flush: true });
  put(root, head('Admin tokens', isAdmin && h('button.button.is-primary', { type: 'button', onclick: make }, icon('plus'), 'Make a token')), box.element);
  let list = null;

  const { load } = loader(box.element, {
    signal: ctx.signal, tz: () => ctx.state.tz,
    read: (signal) => readAll(ctx.api, 'tokens', {}, { signal }),
    draw: ({ rows }) => {
      const { tz } = ctx.state;
      const options = {
        caption: 'Admin tokens', class: 'is-two tokens-table', rows: [...rows].sort((one, other) => Boolean(one.revoked_at) - Boolean(other.revoked_at)), id: (row) => row.id,
        empty: empty({ title: 'No tokens.', text: 'A token signs a person, or a program, in to the admin API and to this console. It never calls a model.' }),
        columns: [
          { key: 'name', label: 'Token', class: 'keys-name', cell: (row) => [h('span.strong.keys-name-text', { title: row.name }, row.name), h('code.line-2', row.id)] },
          { key: 'role', label: 'Role', cell: (row) => [row.team ? `${ROLES[row.role]} of ${row.team.name}` : ROLES[row.role] ?? row.role, h('span.line-2.wide-only', MAY[row.role] ?? '')] },
          { key: 'used', label: 'Last used', class: 'wide-only', cell: (row) => (row.last_used_at ? ago(row.last_used_at, tz) : h('span.text-3', 'never')), title: (row) => exactly(row.last_used_at, tz) },
          { key: 'made', label: 'Made', class: 'wide-only', cell: (row) => moment(row.created_at, tz) },
          { key: 'state', label: 'State', cell: (row) => stateOf(row, tz) },
          isAdmin && { key: 'act', label: h('span.hush', 'Actions'), end: true, cell: (row) => (row.revoked_at ? '' : h('button.button.is-small.is-danger', { type: 'button', 'aria-label': `Revoke ${row.name}`, onclick: () => revoke(row) }, 'Revoke')) },
        ].filter(Boolean),
      };
      if (list) list.update(options);
      else {
        list = table(options);
        put(box.body, list.element);
      }
    },
  });

  async function make() {
    let teams = [];
    try {
      teams = await readTeams(ctx.api);
    } catch (error) {
      toast(`The teams cannot be read: ${error.message}`);
      return;
    }
    const { tz } = ctx.state;
    const name = field({ name: 'name', label: 'Name', required: true, placeholder: 'mara@acme.example', hint: 'Whose it is, or what uses it', attributes: { autofocus: true, maxlength: 200 } });
    const role = field({ name: 'role', label: 'Role', value: 'viewer', options: Object.entries(ROLES).map(([value, label]) => ({ value, label: `${label}: ${MAY[value]}` })) });
    const team = field({ name: 'team_id', label: 'Team', options: [{ value: '', label: 'Choose a team' }, ...teams.map((each) => ({ value: each.id, label: each.name }))] });
    const expires = field({ name: 'expires_at', label: 'Stops after', type: 'date', hint: `The end of that day, ${tz}; empty: never`, read: (text) => endOfDay(text, tz) });
    const show = () => { team.element.hidden = role.input.value !== 'lead'; };
    role.input.addEventListener('change', show);
    show();
    formDialog({
      title: 'Make an admin token', fields: [name, role, team, expires], verb: 'Make token',
      send: (values) => {
        const { team_id: teamId, ...body } = values;
        return ctx.api.post('tokens', Object.fromEntries(Object.entries({ ...body, ...(values.role === 'lead' ? { team_id: teamId } : {}) }).filter(([, value]) => value !== null)));
      },
      done: (made) => {
        reveal(ctx, made, { title: `The token ${made.name}`, note: 'Whoever has it may what its role may.' });
        load();
      },
    });
  }

  async function revoke(row) {
    const sure = await confirm({ title: `Revoke ${row.name}?`, verb: 'Revoke token', danger: true, typed: row.name, text: h('p', 'Whoever is signed in with it is signed out at once. There is no undo.') });
    if (!sure) return;
    try {
      await ctx.api.delete(`tokens/${encodeURIComponent(row.id)}`);
      toast(`${row.name} was revoked.`);
    } catch (error) {
      toast(`That did not work: ${error.message}`);
    }
    load();
  }

  load();
  return { refresh: load };
}

function stateOf(row, tz) {
  if (row.revoked_at) return h('span.text-3', `Revoked ${moment(row.revoked_at, tz).split(',')[0]}`);
  if (row.expires_at && Date.parse(row.expires_at) <= Date.now()) return h('span.text-3', `Expired ${moment(row.expires_at, tz).split(',')[0]}`);
  return h('span.text-2', row.expires_at ? `Active until ${moment(new Date(Date.parse(row.expires_at) - 1).toISOString(), tz).split(',')[0]}` : 'Active');
}

export default { name: 'tokens', title: 'Admin tokens', roles: ['admin'], render };
