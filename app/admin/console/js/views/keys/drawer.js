/** One key, beside the list: its rotation, its secrets, what it may, and what can be done with it. */
import { h, put } from '../../dom.js';
import { drawer } from '../../drawer.js';
import { ago, count, day, exactly, moment, percent } from '../../format.js';
import { icon } from '../../icons.js';
import { menu } from '../../menu.js';
import { faultBox, swatch } from '../../panel.js';
import { changeKey } from './change.js';
import { hoursChart } from './hours.js';
import { giveMoreTime, revokeKey, rotateKey, stopOldSecret } from './acts.js';
import { today } from '../../range.js';
import { rotationOf, stillOnOld } from './rotation.js';
import { endpointsText, limitsSentence, secretStem, stateOf } from './words.js';

/** 3 Mar 2026. */
const dateOf = (at, tz) => day(today(tz, Date.parse(at)), { day: 'numeric', month: 'short', year: 'numeric' });

const FRESH_SLOT = 1;
const OLD_SLOT = 2;

export class KeyDrawer {
  /**
   * @param {import('../../shell.js').Context} ctx @param {string} id
   * @param {{onClose: () => void, onChanged: () => void}} handlers
   */
  constructor(ctx, id, { onClose, onChanged }) {
    this.ctx = ctx;
    this.id = id;
    this.onChanged = onChanged;
    this.onClose = onClose;
    this.key = null;
    this.uses = null;
    this.leaving = new AbortController();
    this.element = h('div.drawer-place');
    this.wantsFocus = false;
    this.show(drawer({ title: ' ', onClose }));
  }

  close() {
    this.leaving.abort();
    this.element.remove();
  }

  focus() {
    this.wantsFocus = true;
    this.shown.focus();
  }

  /** @param {?object} key as the list has it; it is read where the list does not */
  async load(key) {
    if (key) {
      this.key = key;
      this.draw();
    }
    const signal = AbortSignal.any([this.leaving.signal, this.ctx.signal]);
    try {
      const [read, uses] = await Promise.all([
        key ? key : this.ctx.api.get(`keys/${encodeURIComponent(this.id)}`, {}, { signal }),
        this.ctx.api.get(`keys/${encodeURIComponent(this.id)}/secrets`, {}, { signal }),
      ]);
      this.key = read;
      this.uses = uses;
      this.draw();
    } catch (error) {
      if (error?.name === 'AbortError' || signal.aborted) return;
      if (!this.key) this.show(drawer({ title: error.status === 404 ? 'No such key' : 'This key cannot be read', onClose: this.onClose }));
      this.element.querySelector('.drawer-head').after(faultBox(error, { retry: () => this.load(null) }));
    }
  }

  show(made) {
    const hadFocus = this.element.contains(document.activeElement) && document.activeElement.matches('h2');
    this.shown = made;
    put(this.element, made.element);
    if (hadFocus || this.wantsFocus) made.focus();
  }

  draw() {
    const { key, ctx } = this;
    const { tz } = ctx.state;
    const now = Date.now();
    const top = this.element.querySelector('.drawer')?.scrollTop ?? 0;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.dataset?.act : null;
    const made = dateOf(key.created_at, tz);
    const note = [key.team.name, key.owner && `owned by ${key.owner}`, `made ${made}`].filter(Boolean).join(' · ');
    const shown = drawer({ title: key.name, note, onClose: this.onClose });
    this.wantsFocus = this.wantsFocus && !focused;
    const rotation = this.uses ? rotationOf(key, this.uses.data, { tz, now, by: this.uses.rotated_by ?? null }) : null;
    if (rotation) drawRotation(shown, rotation);
    if (this.uses) this.drawUse(shown, rotation, now);
    this.drawFacts(shown, rotation, now);
    this.drawFoot(shown, rotation);
    this.show(shown);
    this.wantsFocus = false;
    shown.element.scrollTop = top;
    if (focused) shown.element.querySelector(`[data-act="${focused}"]`)?.focus();
  }

  drawUse(shown, rotation, now) {
    const { tz } = this.ctx.state;
    const live = rotation ? [rotation.fresh, ...rotation.old] : this.uses.data.filter((each) => each.id === (this.key.secrets?.[0]?.id ?? each.id)).slice(0, 1);
    const rows = live.map((each, index) => ({ ...each, slot: index ? OLD_SLOT : FRESH_SLOT, word: rotation ? (index ? 'old' : 'new') : null }));
    shown.part(null, h('table.table.is-plain.secrets', h('caption', 'Secrets of this key'),
      h('thead', h('tr', h('th', { scope: 'col' }, 'Secret'), h('th', { scope: 'col' }, 'Last used'), h('th.end', { scope: 'col' }, 'Last hour'))),
      h('tbody', rows.map((each) => h('tr', h('th', { scope: 'row' }, h('span.secret-name', rotation && swatch(each.slot), h('span', h('code.strong', secretStem(each.id)), each.word && h('span.line-2', each.word)))),
        h('td', { title: exactly(each.last_used_at, tz) }, each.last_used_at ? ago(each.last_used_at, tz, { now }) : 'never used'),
        h('td.end', count(each.requests_last_hour ?? 0), h('span.line-2', each.requests_last_hour === 1 ? 'request' : 'requests')))))));
    if (rows.length) {
      shown.part('Requests per hour, last 24 hours', hoursChart(rows.map((each) => ({ label: each.word ?? 'requests', slot: each.slot, hours: each.hours ?? [] })), { from: this.uses.hours_from, tz }));
    }
    const tags = rotation ? stillOnOld(rotation.old) : [];
    if (tags.length) {
      shown.part('Still on the old secret', h('table.table.is-plain', h('caption', 'Tags of requests with the old secret'),
        h('thead', h('tr', h('th', { scope: 'col' }, 'Tag'), h('th', { scope: 'col' }, 'Last used'), h('th.end', { scope: 'col' }, 'Last hour'))),
        h('tbody', tags.slice(0, 8).map((each) => h('tr', h('th.wrap', { scope: 'row' }, each.tag), h('td', ago(each.lastUsedAt, tz, { now })), h('td.end', count(each.lastHour)))))));
    }
  }

  drawFacts(shown, rotation, now) {
    const { key, ctx } = this;
    const { tz } = ctx.state;
    const state = stateOf(key, tz, now);
    const fact = (name, ...value) => [h('dt', name), h('dd', value)];
    const tags = Object.entries(key.tags ?? {});
    shown.part(null, h('dl.facts',
      rotation ? null : fact('State', state.text),
      fact('May use', key.models?.length ? key.models.join(', ') : 'every model'),
      key.endpoints ? fact('Endpoints', endpointsText(key.endpoints, '')) : null,
      fact('Limits', limitsSentence(key.limits)),
      tags.length ? fact('Tags', tags.map(([name, value]) => h('span.chip', `${name}=${value}`))) : null,
      key.cache_mode ? fact('Cache', key.cache_mode) : null,
      key.expires_at ? fact('Ends', moment(key.expires_at, tz, { now })) : null,
      fact('Look at', h('a', { href: ctx.state.href('requests', { key: key.id }) }, 'its requests'), ', ', h('a', { href: ctx.state.href('explore', { key: key.id, by: 'model' }) }, 'its cost'))));
  }

  drawFoot(shown, rotation) {
    const { ctx, key } = this;
    if (!ctx.may('admin', 'lead') || key.state === 'revoked') return;
    const act = (name, text, go, danger = false) => h('button.button', { type: 'button', class: danger ? 'is-danger' : '', data: { act: name }, onclick: go }, text);
    const done = () => {
      this.onChanged();
      this.load(null);
    };
    const of = { ctx, key, rotation, uses: this.uses?.data ?? [], done };
    const more = menu({
      label: 'More', className: 'button is-plain is-icon', above: true, isAction: true, content: icon('more'),
      items: [...(rotation ? [{ value: 'rotate', label: 'Rotate again' }, { value: 'change', label: 'Change this key' }] : []), { value: 'revoke', label: 'Revoke this key' }],
      onPick: (value) => ({ rotate: rotateKey, change: changeKey, revoke: revokeKey })[value](of),
    });
    if (rotation) shown.foot(act('time', 'Give it more time', () => giveMoreTime(of)), act('stop', 'Stop old secret now', () => stopOldSecret(of), true), more);
    else if (key.state === 'expired') shown.foot(act('change', 'Change this key', () => changeKey(of)), more);
    else shown.foot(act('rotate', 'Rotate the secret', () => rotateKey(of)), act('change', 'Change this key', () => changeKey(of)), more);
  }
}

function drawRotation(shown, rotation) {
  const moved = rotation.movedPercent === null ? 'unused for an hour' : `${percent(rotation.movedPercent, 0)} moved`;
  const part = shown.part(null, h('div.rotation-head', h('h3', 'Rotation in progress'), h('span.chip.is-accent.strong', moved)),
    h('ol.steps', rotation.steps.map((step) => h('li', { class: `is-${step.state}`, 'aria-current': step.state === 'now' ? 'step' : null },
      h('span.step-mark', { 'aria-hidden': 'true' }, step.state === 'done' && icon('check', { size: 12 })),
      h('div', h('p', { class: step.state === 'now' ? 'strong' : '' }, step.title), h('p.note', step.detail))))));
  part.classList.add('rotation');
}
