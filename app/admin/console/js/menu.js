/** Buttons that open a list, and the three every view shares: range, team, zone. */
import { h, put, uniqueId } from './dom.js';
import { icon } from './icons.js';
import { RANGES, addDays, ownDays, rangeDays, rangeLabel, today, zones } from './range.js';

/**
 * A button with a popup below it. Esc and a click elsewhere close it; focus goes back to the button.
 * @param {{label: string, content: import('./dom.js').Child, fill: (popup: HTMLElement, close: () => void) => void, className?: string, role?: string, above?: boolean}} options
 */
export function popupButton({ label, content, fill, className = 'menu-button', role = 'dialog', above = false }) {
  const id = uniqueId('popup');
  const popup = h('div.popup', { id, popover: 'auto', role, 'aria-label': label });
  const button = h(`button.${className.split(' ').join('.')}`, { type: 'button', 'aria-haspopup': role, 'aria-expanded': 'false', 'aria-controls': id, 'aria-label': label, onclick: () => {
    if (popup.matches(':popover-open')) popup.hidePopover();
    else open();
  }, onkeydown: (event) => {
    if (event.key === 'ArrowDown' && !popup.matches(':popover-open')) {
      event.preventDefault();
      open();
    }
  } }, content);
  // The button's own press would close an open popup first, and its click open it again.
  button.addEventListener('pointerdown', (event) => popup.matches(':popover-open') && event.preventDefault());
  button.setAttribute('popovertarget', id);
  button.addEventListener('click', (event) => event.preventDefault());

  function open() {
    put(popup);
    fill(popup, () => popup.hidePopover());
    popup.showPopover();
    place();
    (popup.querySelector('[aria-selected="true"], [autofocus]') ?? popup.querySelector('input, button, [tabindex]'))?.focus();
  }

  function place() {
    const at = button.getBoundingClientRect();
    const size = popup.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.left, innerWidth - size.width - 8));
    const below = at.bottom + 4;
    const top = above || below + size.height > innerHeight - 8 ? Math.max(8, at.top - size.height - 4) : below;
    popup.style.setProperty('left', `${left}px`);
    popup.style.setProperty('top', `${top}px`);
  }

  popup.addEventListener('toggle', (event) => {
    const isOpen = event.newState === 'open';
    button.setAttribute('aria-expanded', String(isOpen));
    if (!isOpen && popup.contains(document.activeElement)) button.focus();
  });
  popup.addEventListener('focusout', (event) => {
    if (event.relatedTarget && !popup.contains(event.relatedTarget) && event.relatedTarget !== button) popup.hidePopover();
  });
  const holder = h('span', { style: { display: 'contents' } }, button, popup);
  return { element: holder, button, close: () => popup.matches(':popover-open') && popup.hidePopover() };
}

/**
 * A list of which one is chosen, or (with `isAction`) a list of things to do.
 * @param {{label: string, items: {value: string, label: string}[], value?: string, onPick: (value: string) => void, content?: import('./dom.js').Child,
 *   what?: string, className?: string, above?: boolean, isAction?: boolean, finds?: boolean,
 *   read?: () => Promise<{value: string, label: string}[]>}} options
 *   `what`: a quiet word before the value; `finds`: with a field to search; `read`: gives the items once it is opened
 */
export function menu({ label, items, value = '', onPick, content = null, what = '', className = 'menu-button', above = false, isAction = false, finds = false, read = null }) {
  const shown = items.find((item) => item.value === value)?.label ?? value;
  return popupButton({
    label: isAction ? label : `${label}: ${shown}`, className, above, role: isAction ? 'menu' : finds ? 'dialog' : 'listbox',
    content: content ?? [what && h('span.what', what), h('span.cut', shown), icon('down')],
    fill(popup, close) {
      const list = finds ? h('div', { role: 'listbox', 'aria-label': label }) : popup;
      const pick = (item) => {
        close();
        onPick(item.value);
      };
      // What is chosen comes first in a long list: else nobody would find it there.
      let known = items;
      const ordered = () => (finds ? [...known.filter((item) => item.value === value), ...known.filter((item) => item.value !== value)] : known);
      const draw = (wanted) => put(list, ordered().filter((item) => item.label.toLowerCase().includes(wanted)).slice(0, 60).map((item) => h('div', {
        role: isAction ? 'menuitem' : 'option', tabindex: -1, 'aria-selected': isAction ? null : String(item.value === value), onclick: () => pick(item),
      }, item.label)));
      if (finds) {
        popup.append(h('input.input.popup-find', { 'aria-label': `Find: ${label}`, placeholder: 'Find', autofocus: true, oninput: (event) => draw(event.target.value.trim().toLowerCase()) }), list);
      }
      draw('');
      read?.().then((all) => {
        known = all;
        draw(popup.querySelector('input')?.value.trim().toLowerCase() ?? '');
      }).catch((error) => put(list, h('p.note.bad', error.message)));
      popup.onkeydown = (event) => walk(event, popup, list);
    },
  }).element;
}

function walk(event, popup, list) {
  const all = [...list.querySelectorAll('[role="option"], [role="menuitem"]')];
  const at = all.indexOf(document.activeElement);
  if (event.key === 'Enter' || (event.key === ' ' && at >= 0)) {
    event.preventDefault();
    (all[at] ?? (all.length === 1 ? all[0] : null))?.click();
    return;
  }
  const isTyping = document.activeElement instanceof HTMLInputElement;
  const to = { ArrowDown: Math.min(at + 1, all.length - 1), ArrowUp: at - 1, Home: isTyping ? undefined : 0, End: isTyping ? undefined : all.length - 1 }[event.key];
  if (to === undefined) {
    if (!isTyping && event.key.length === 1) all.find((one) => one.textContent.toLowerCase().startsWith(event.key.toLowerCase()))?.focus();
    return;
  }
  event.preventDefault();
  if (to < 0) popup.querySelector('input')?.focus();
  else all[to]?.focus();
}

/**
 * A row of buttons of which one is pressed.
 * @param {{label: string, items: {value: string, label: string}[], value: string, onPick: (value: string) => void}} options
 */
export function segments({ label, items, value, onPick }) {
  const buttons = items.map((item) => h('button', { type: 'button', 'aria-pressed': String(item.value === value), data: { value: item.value }, onclick: () => {
    for (const one of buttons) one.setAttribute('aria-pressed', String(one.dataset.value === item.value));
    onPick(item.value);
  } }, item.label));
  return h('div.segments', { role: 'group', 'aria-label': label }, buttons);
}

/** The range of days. @param {import('./shell.js').Context} ctx @param {{only?: string[]}} [options] `only`: some of the named ranges */
export function rangePicker(ctx, { only = null, className = 'menu-button grow' } = {}) {
  const { state } = ctx;
  const names = only ? RANGES.filter(([name]) => only.includes(name)) : RANGES;
  return popupButton({
    label: `Range: ${rangeLabel(state.range)}`, className, content: [h('span.cut', rangeLabel(state.range)), icon('down')],
    fill(popup, close) {
      const pick = (range) => {
        close();
        ctx.set({ range });
      };
      const list = h('div', { role: 'listbox', 'aria-label': 'Range' }, names.map(([name, label]) => h('div', {
        role: 'option', tabindex: -1, 'aria-selected': String(name === state.range), onclick: () => pick(name),
      }, label)));
      const [from, to] = ownDays(state.range) ?? rangeDays(state.range, state.tz);
      const fields = [from, to].map((value, index) => h('input.input', { type: 'date', id: uniqueId('date'), value, max: addDays(today(state.tz), 1), 'aria-label': index ? 'Last day' : 'First day', required: true }));
      popup.append(list, h('form.popup-part', { onsubmit: (event) => {
        event.preventDefault();
        const [first, last] = fields.map((field) => field.value).sort();
        if (first && last) pick(`${first}..${last}`);
      } }, h('div.pair', fields), h('button.button.is-small', { type: 'submit' }, 'Show these days')));
      list.onkeydown = (event) => walk(event, popup, list);
    },
  }).element;
}

/** The zone whose days are shown. @param {import('./shell.js').Context} ctx */
export function zonePicker(ctx, { what = '', className = 'menu-button' } = {}) {
  const item = (value) => ({ value, label: value.replaceAll('_', ' ') });
  const read = async () => [...new Set([ctx.state.tz, ...zones()])].map(item);
  return menu({ label: 'Time zone', what, className, finds: true, value: ctx.state.tz, items: [item(ctx.state.tz)], read, onPick: (tz) => ctx.set({ tz }) });
}

/**
 * Which teams: none ticked is all of them. A lead has one team, and no such menu.
 * @param {import('./shell.js').Context} ctx
 */
export function teamFilter(ctx, { className = 'menu-button grow' } = {}) {
  if (!ctx.may('admin', 'viewer')) return null;
  const chosen = new Set(ctx.state.list('team'));
  const word = h('span.cut', chosen.size ? `${chosen.size}` : 'All');
  const reading = readTeams(ctx.api);
  if (chosen.size) reading.then((teams) => put(word, labelOf(teams, [...chosen]))).catch(() => {});
  return popupButton({
    label: 'Team', className, content: [h('span.what', 'Team'), word, icon('down')],
    async fill(popup, close) {
      const draft = new Set(chosen);
      const list = h('div', h('p.note', 'Reading the teams…'));
      popup.append(list, h('div.popup-part', h('button.button.is-small', { type: 'button', onclick: () => {
        close();
        ctx.set({ team: [...draft] });
      } }, 'Show these teams')));
      try {
        const teams = await reading;
        put(list, teams.length ? teams.map((team) => h('label.choice', h('input', { type: 'checkbox', checked: draft.has(team.id), onchange: (event) => {
          if (event.target.checked) draft.add(team.id);
          else draft.delete(team.id);
        } }), h('span.cut', { title: team.name }, team.name))) : h('p.note', 'There are no teams yet.'));
        list.querySelector('input')?.focus();
      } catch (error) {
        put(list, h('p.note.bad', error.message));
      }
    },
  }).element;
}

/** One team, or all: for a view that shows no other choice. Teams are read when it is opened, or one is chosen. @param {import('./shell.js').Context} ctx */
export function oneTeam(ctx, { className = 'menu-button grow' } = {}) {
  if (!ctx.may('admin', 'viewer')) return null;
  const chosen = ctx.state.list('team')[0] ?? '';
  const read = async () => [{ value: '', label: 'All' }, ...(await readTeams(ctx.api)).map((team) => ({ value: team.id, label: team.name }))];
  const word = h('span.cut', chosen || 'All');
  if (chosen) read().then((items) => put(word, items.find((item) => item.value === chosen)?.label ?? chosen)).catch(() => {});
  return menu({ label: 'Team', className, value: chosen, items: [{ value: '', label: 'All' }], read, finds: true, content: [h('span.what', 'Team'), word, icon('down')], onPick: (team) => ctx.set({ team }) });
}

function labelOf(teams, ids) {
  const names = ids.map((id) => teams.find((team) => team.id === id)?.name ?? id);
  return names.length <= 2 ? names.join(', ') : `${names[0]} and ${names.length - 1} more`;
}

const TEAM_PAGES_MAX = 10;
let teamsRead = null;
/** All teams, read once a minute at most. @param {import('./api.js').Api} api @returns {Promise<{id: string, name: string, color: number}[]>} */
export function readTeams(api) {
  if (teamsRead && Date.now() - teamsRead.at < 60_000) return teamsRead.promise;
  const promise = (async () => {
    const teams = [];
    let cursor = null;
    for (let page = 0; page < TEAM_PAGES_MAX; page += 1) {
      const { data, next } = await api.get('teams', { limit: 200, cursor });
      teams.push(...data);
      if (!next) break;
      cursor = next;
    }
    return teams;
  })();
  teamsRead = { at: Date.now(), promise };
  promise.catch(() => { teamsRead = null; });
  return promise;
}

/** Read the teams anew next time: one was made or renamed. */
export function forgetTeams() { teamsRead = null; }
