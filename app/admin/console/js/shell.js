/** The frame round every view: sidebar, badges, theme, and who is signed in. */
import * as format from './format.js';
import { followBadges } from './badges.js';
import { h, put } from './dom.js';
import { icon } from './icons.js';
import { openSheet } from './dialog.js';
import { faultBox } from './panel.js';
import { Router } from './router.js';
import { roleOf, signOut } from './session.js';
import { announce } from './status.js';
import { menu } from './menu.js';
import { VIEWS, groupsFor, homeOf } from './views/index.js';

/**
 * @typedef {object} Context what a view is given
 * @property {import('./api.js').Api} api
 * @property {import('./state.js').State} state as the address says it; always the newest
 * @property {import('./session.js').Session} session
 * @property {(href: string, options?: {replace?: boolean}) => void} navigate
 * @property {(changes: Record<string, string|string[]|null>, options?: {push?: boolean}) => void} set change this view's state
 * @property {typeof import('./format.js')} format
 * @property {AbortSignal} signal aborted when the view is left: give it to every call
 * @property {Shell} shell
 * @property {(...roles: string[]) => boolean} may whether the signed-in role is one of these
 */

/** @typedef {{text: string, level?: 'warn'|'bad'|'unpriced'|'plain', say?: string}} Badge */

export class Shell {
  /** @type {Map<string, Badge>} */
  #badges = new Map();
  #places = new Map();
  #sides = [];
  #turn = 0;
  #leave = new AbortController();
  #handle = null;
  #isClosed = false;

  /** @param {HTMLElement} root @param {import('./api.js').Api} api @param {import('./session.js').Session} session */
  constructor(root, api, session) {
    this.api = api;
    this.session = session;
    this.main = h('main.main', { id: 'main', tabindex: -1 });
    this.topbar = h('header.topbar', this.#brand(), this.#themeButton(),
      h('button.button.is-plain.is-icon', { 'aria-label': 'Menu', onclick: () => this.#openMenu() }, icon('menu', { size: 18 })));
    put(root, h('div.shell', this.topbar, this.#side('header.side'), this.main));
    this.router = new Router((state, how) => this.#show(state, how));
    this.#show(this.router.state, { isNew: true, isFirst: true });
    if (session.role !== 'key') followBadges(this, () => this.#isClosed);
  }

  /** Leave the view that is shown; nothing of it goes on. */
  close() {
    this.#isClosed = true;
    this.#leave.abort();
    this.#handle?.leave?.();
    this.#handle = null;
    this.#turn += 1;
    this.router.show = () => {};
  }

  /** Put a badge beside a view's name in the sidebar, or take it away. @param {string} view @param {Badge|null} badge */
  badge(view, badge) {
    if (badge) this.#badges.set(view, badge);
    else this.#badges.delete(view);
    for (const place of this.#places.get(view) ?? []) drawBadge(place, badge);
  }

  async #show(state, { isNew, isFirst = false }) {
    if (!isNew && this.#handle?.refresh) {
      this.#mark(state);
      this.#handle.refresh(state);
      return;
    }
    const turn = ++this.#turn;
    this.#leave.abort();
    this.#leave = new AbortController();
    this.#handle?.leave?.();
    this.#handle = null;
    const entry = VIEWS.find((one) => one.name === state.view);
    if (state.view === 'overview' && !entry?.roles.includes(this.session.role)) {
      this.router.go(state.href(homeOf(this.session)), { replace: true });
      return;
    }
    this.#mark(state);
    const view = h('div.view', { data: { view: state.view } });
    put(this.main, view);
    if (isNew && !isFirst) scrollTo(0, 0);
    if (!entry || !entry.roles.includes(this.session.role)) {
      document.title = 'Not here · Headgate';
      put(view, this.#notHere(entry));
      return;
    }
    document.title = `${entry.title} · Headgate`;
    await this.#render(entry, view, turn);
    if (isNew && !isFirst && turn === this.#turn) {
      announce(entry.title);
      view.querySelector('h1')?.focus({ preventScroll: true });
    }
  }

  async #render(entry, view, turn) {
    let module;
    try {
      module = (await entry.load()).default;
    } catch (error) {
      console.error(error);
      if (turn === this.#turn) {
        put(view, h('h1', entry.title), faultBox(new Error('This view cannot be loaded. Headgate may have been updated since the page was opened.'),
          { retry: () => location.reload(), verb: 'Reload' }));
      }
      return;
    }
    if (turn !== this.#turn) return;
    try {
      const handle = await module.render(view, this.#context());
      if (turn === this.#turn) this.#handle = handle ?? null;
      else handle?.leave?.();
    } catch (error) {
      if (turn !== this.#turn || error?.name === 'AbortError') return;
      console.error(error);
      put(view, h('h1', { tabindex: -1 }, entry.title), faultBox(error, { retry: () => this.#show(this.router.state, { isNew: true }) }));
    }
  }

  /** @returns {Context} */
  #context() {
    const { router, session } = this;
    return {
      api: this.api, session, format, shell: this, signal: this.#leave.signal,
      get state() { return router.state; },
      navigate: (href, options) => router.go(href, options),
      set: (changes, options) => router.set(changes, options),
      may: (...roles) => roles.includes(session.role),
    };
  }

  #notHere(entry) {
    const text = entry ? `Your role, ${roleOf(this.session)}, does not reach ${entry.title}. An administrator can give you a token that does.`
      : 'There is no view at this address.';
    return [h('h1', { tabindex: -1 }, 'Not here'), h('div.panel', h('div.empty', h('p.strong', text),
      h('a.button', { href: this.router.state.href(homeOf(this.session)) }, 'Go to the start')))];
  }

  #brand() {
    return h('a.brand', { href: '/' }, icon('logo'), 'Headgate');
  }

  #side(tag = 'div.side') {
    const nav = h('nav', { 'aria-label': 'Views' }, groupsFor(this.session).map(({ title, views }) => h('div.side-group',
      h('h2.side-title', title), h('ul', views.map((entry) => h('li', this.#link(entry)))))));
    const who = menu({
      className: 'side-who', label: `Signed in as ${this.session.name}`, content: [h('b.cut', this.session.name), roleOf(this.session)],
      items: [{ value: 'out', label: 'Sign out' }], onPick: () => signOut(this.api), above: true, isAction: true,
    });
    const side = h(tag, this.#brand(), nav, h('div.side-foot', who, this.#themeButton()));
    this.#sides.push(side);
    return side;
  }

  #link(entry) {
    const place = h('span.side-badge');
    this.#places.set(entry.name, [...(this.#places.get(entry.name) ?? []), place]);
    drawBadge(place, this.#badges.get(entry.name));
    return h('a.side-link', { href: `/console/${entry.name}`, data: { view: entry.name } }, icon(entry.icon), entry.title, place);
  }

  #mark(state) {
    for (const link of this.#sides.flatMap((side) => [...side.querySelectorAll('a.side-link')])) {
      const name = link.dataset.view;
      link.setAttribute('href', state.href(name));
      const belongs = VIEWS.find((one) => one.name === state.view)?.under ?? state.view;
      if (name === belongs) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
  }

  #openMenu() {
    const side = this.#side();
    this.#mark(this.router.state);
    const close = openSheet('Menu', side, () => {
      this.#sides = this.#sides.filter((one) => one !== side);
      for (const [name, places] of this.#places) this.#places.set(name, places.filter((place) => !side.contains(place)));
    });
    side.addEventListener('click', (event) => event.target.closest?.('a') && close());
  }

  #themeButton() {
    const button = h('button.button.is-plain.is-icon.is-small.theme', { 'aria-label': 'Dark theme', 'aria-pressed': String(isDark()), onclick: () => {
      const theme = isDark() ? 'light' : 'dark';
      document.documentElement.dataset.theme = theme;
      try {
        localStorage.setItem('headgate.theme', theme);
      } catch {
        // Then it lasts as long as the page.
      }
      for (const one of document.querySelectorAll('.theme')) {
        one.setAttribute('aria-pressed', String(isDark()));
        put(one, icon(isDark() ? 'sun' : 'moon'));
      }
    } }, icon(isDark() ? 'sun' : 'moon'));
    return button;
  }
}

function isDark() {
  const set = document.documentElement.dataset.theme;
  return set ? set === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
}

const SIGNS = { warn: '▲', bad: '!', unpriced: '◇' };

/** @param {HTMLElement} place @param {Badge|null|undefined} badge */
function drawBadge(place, badge) {
  place.classList.remove('warn', 'bad');
  put(place);
  if (!badge) return;
  const level = badge.level ?? 'plain';
  if (level !== 'plain') place.classList.add(level === 'bad' ? 'bad' : 'warn');
  put(place, SIGNS[level] && level !== 'plain' && !badge.text.endsWith('%') ? h('span', { 'aria-hidden': 'true' }, SIGNS[level], ' ') : null, badge.text,
    badge.say && h('span.hush', ` ${badge.say}`));
}
