/** Make or change a rule: what it watches, of whom, and who is told. */
import { h, put } from '../../dom.js';
import { commaList, dollarAmount, field, formDialog, tick, wholeNumber } from '../../form.js';
import { readTeams } from '../../menu.js';
import { toast } from '../../status.js';
import { KINDS, kindTitle } from './words.js';

const READ = { number: wholeNumber, dollars: dollarAmount, numbers: (text) => commaList(text).map((each) => wholeNumber(each.replace('%', ''))) };

/** @param {import('../../shell.js').Context} ctx @param {{targets: object[], done: () => void}} options */
export async function makeAlert(ctx, { targets, done }) {
  const form = await ruleForm(ctx, null, targets);
  if (!form) return;
  formDialog({
    title: 'Make a rule', fields: form.fields(), layout: form.layout, verb: 'Make rule',
    send: () => ctx.api.post('alerts', { kind: form.kind.input.value, ...form.body() }),
    done: (made) => {
      toast(`${made.name || kindTitle(made.kind)} is watched from now on.`);
      done();
    },
  });
}

/** @param {import('../../shell.js').Context} ctx @param {object} rule @param {{targets: object[], done: () => void}} options */
export async function changeAlert(ctx, rule, { targets, done }) {
  const form = await ruleForm(ctx, rule, targets);
  if (!form) return;
  formDialog({
    title: `Change ${rule.name || kindTitle(rule.kind)}`, fields: form.fields(), layout: form.layout, verb: 'Change rule',
    send: () => ctx.api.patch(`alerts/${encodeURIComponent(rule.id)}`, form.body()),
    done: () => {
      toast('The rule was changed.');
      done();
    },
  });
}

async function ruleForm(ctx, rule, targets) {
  let teams;
  try {
    teams = await readTeams(ctx.api);
  } catch (error) {
    toast(`The teams cannot be read: ${error.message}`);
    return null;
  }
  const kind = field({ name: 'kind', label: 'Tell people when', value: rule?.kind ?? KINDS[0].value, options: KINDS.map((each) => ({ value: each.value, label: each.title })), attributes: { disabled: Boolean(rule), autofocus: !rule } });
  const name = field({ name: 'name', label: 'Name', value: rule?.name, placeholder: 'as above' });
  const team = field({ name: 'team_id', label: 'Of', value: rule?.team?.id ?? '', options: [{ value: '', label: 'all teams' }, ...teams.map((each) => ({ value: each.id, label: each.name }))] });
  const enabled = tick({ name: 'enabled', label: 'Switched on', value: rule?.enabled ?? true });
  const ticks = targets.map((target) => tick({ name: target.name, label: `${target.name} (${target.to})`, value: rule?.targets?.includes(target.name) ?? false }));
  const place = h('div.fields');
  let parameters = [];

  function draw() {
    const of = KINDS.find((each) => each.value === kind.input.value);
    parameters = of.parameters.map((each) => field({ name: each.name, label: each.label, hint: each.hint, required: true, value: valueOf(rule, each), read: READ[each.kind] }));
    team.element.hidden = Boolean(of.noTeam);
    put(place, parameters.length > 1 ? h('div.fields.is-2', parameters.map((each) => each.element)) : parameters.map((each) => each.element));
  }
  kind.input.addEventListener('change', draw);
  draw();

  return {
    kind,
    // Looked at when the form is sent: the parameters are those of the kind that is chosen then.
    fields: () => [name, team, enabled, { name: 'parameters', element: place, input: place, complain: () => {}, value: () => readParameters(parameters) }],
    layout: [kind.element, place, h('div.fields.is-2', name.element, team.element),
      h('fieldset.choices', h('legend', 'Who is told'), ticks.map((each) => each.element), h('p.note', targets.length ? 'None ticked: all of them.' : 'The configuration file names nobody yet.')), enabled.element],
    body() {
      const chosen = ticks.filter((each) => each.value()).map((each) => each.name);
      const of = KINDS.find((each) => each.value === kind.input.value);
      return { ...(name.value() ? { name: name.value() } : {}), ...(of.noTeam ? {} : { team_id: team.value() }), targets: chosen.length ? chosen : null, enabled: enabled.value(), parameters: readParameters(parameters) };
    },
  };
}

function readParameters(parameters) {
  const found = {};
  for (const each of parameters) {
    try {
      found[each.name] = each.value();
      each.complain('');
    } catch (error) {
      each.complain(error.message);
      each.input.focus();
      throw error;
    }
  }
  return found;
}

function valueOf(rule, { name, value }) {
  const known = rule?.parameters?.[name];
  if (known === undefined) return value;
  return Array.isArray(known) ? known.join(', ') : String(known);
}
