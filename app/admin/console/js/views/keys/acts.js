/** What one does with a key: rotate it, give an old secret more time, stop it, revoke the key. */
import { confirm } from '../../dialog.js';
import { h } from '../../dom.js';
import { ApiError } from '../../api.js';
import { ago, clock, count, moment, plural } from '../../format.js';
import { choice, field, formDialog, tick } from '../../form.js';
import { toast } from '../../status.js';
import { reveal } from './reveal.js';
import { OVERLAPS, stillOnOld } from './rotation.js';
import { secretStem } from './words.js';

/** @typedef {{ctx: import('../../shell.js').Context, key: object, rotation: ?import('./rotation.js').Rotation, uses: object[], done: () => void}} Subject */

/** Within so long every gateway on the ledger has heard of what stops; what is said to have stopped has. */
const EVERYWHERE_MS = 1000;

const path = (key) => `keys/${encodeURIComponent(key.id)}`;
const heardEverywhere = () => new Promise((resolve) => setTimeout(resolve, EVERYWHERE_MS));

/** @param {Subject} of */
export function rotateKey({ ctx, key, done }) {
  const overlap = choice({ name: 'overlap_s', label: 'How long both secrets work', value: '604800',
    items: OVERLAPS.map((each) => ({ value: String(each.seconds), label: each.label, note: each.usual ? 'the usual' : '' })) });
  formDialog({
    title: `Rotate the secret of ${key.name}`, fields: [overlap], verb: 'Make a new secret',
    text: h('p', 'A new secret is made and shown once. The old one goes on working for the time you choose, so that programs can move one by one.'),
    send: ({ overlap_s: seconds }) => ctx.api.post(`${path(key)}/rotate`, { overlap_s: Number(seconds) }),
    done: (made) => {
      reveal(ctx, made, { title: `The new secret of ${key.name}` });
      done();
    },
  });
}

/** @param {Subject} of */
export function giveMoreTime({ ctx, key, rotation, done }) {
  const { tz } = ctx.state;
  const from = rotation.endsAt ? Date.parse(rotation.endsAt) : Date.now();
  const days = [1, 7, 30];
  const longer = choice({ name: 'expires_at', label: 'The old secret stops', value: String(days[1]),
    items: days.map((each) => ({ value: String(each), label: `${each === 1 ? '1 day' : `${each} days`} later`, note: moment(from + each * 86_400_000, tz) })) });
  formDialog({
    title: 'Give the old secret more time', fields: [longer], verb: 'Give it more time',
    send: async ({ expires_at: later }) => {
      const until = new Date(from + Number(later) * 86_400_000).toISOString();
      for (const each of rotation.old) await ctx.api.patch(`${path(key)}/secrets/${encodeURIComponent(each.id)}`, { expires_at: until });
      return until;
    },
    done: (until) => {
      toast(`The old secret works until ${moment(until, tz)}.`);
      done();
    },
  });
}

/** @param {Subject} of */
export async function stopOldSecret({ ctx, key, rotation, done }) {
  const { tz } = ctx.state;
  if (rotation.oldLastHour > 0) {
    const tags = stillOnOld(rotation.old).filter((each) => each.lastHour > 0);
    const sure = await confirm({
      title: 'Stop the old secret now?', verb: 'Stop old secret', danger: true,
      text: [h('p', `It was used ${rotation.oldLastHour === 1 ? 'once' : `${count(rotation.oldLastHour)} times`} within the hour. Whoever still has it is refused from now on.`),
        tags.length > 0 && h('ul.named-list', tags.slice(0, 6).map((each) => h('li', h('b', each.tag), ` ${plural(each.lastHour, 'request')}, last ${ago(each.lastUsedAt, tz)}`)))],
    });
    if (!sure) return;
  }
  await attempt(async () => {
    for (const each of rotation.old) await ctx.api.post(`${path(key)}/secrets/${encodeURIComponent(each.id)}/revoke`);
    await heardEverywhere();
    toast(`Old secret ${rotation.old.map((each) => secretStem(each.id)).join(', ')} stopped at ${clock(Date.now(), tz, { seconds: true })}.`);
  });
  done();
}

/** @param {Subject} of */
export function revokeKey({ ctx, key, uses, done }) {
  const { tz } = ctx.state;
  const lastHour = uses.reduce((sum, each) => sum + (each.requests_last_hour ?? 0), 0);
  const used = lastHour > 0 ? `It is in use: ${plural(lastHour, 'request')} in the last hour.` : key.last_used_at ? `It was last used ${ago(key.last_used_at, tz)}.` : 'It was never used.';
  const name = field({ name: 'name', label: ['Type ', h('b', key.name), ' to revoke it'], required: true, attributes: { autofocus: true },
    read: (text) => {
      if (text !== key.name) throw new Error('That is not its name.');
      return text;
    } });
  const cut = tick({ name: 'at_once', label: 'Also cut running requests' });
  formDialog({
    title: `Revoke ${key.name}`, fields: [name, cut], verb: 'Revoke key', danger: true,
    text: [h('p', used), h('p', 'All of its secrets stop at once, on every gateway. There is no undo; what it has spent stays in every total.')],
    send: async (values) => {
      await ctx.api.post(`${path(key)}/revoke`, { name: values.name, at_once: values.at_once });
      await heardEverywhere();
    },
    done: () => {
      toast(`Revoked everywhere at ${clock(Date.now(), tz, { seconds: true })}.`);
      done();
    },
  });
}

/** Do it, and say it in the corner where it did not work. */
async function attempt(act) {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    toast(`That did not work: ${error.message}`);
  }
}
