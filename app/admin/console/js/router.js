/** From an address to a view, and from a click to an address. */
import { State } from './state.js';

/**
 * @typedef {object} Handle what a view's `render` may return
 * @property {(state: State) => void} [refresh] the address of this view changed; without it the view is drawn anew
 * @property {() => void} [leave] the view is left
 *
 * A view that asks for another state before it has drawn anything returns right away: it is rendered anew with that state.
 */

export class Router {
  /** @param {(state: State, how: {isNew: boolean}) => void} show called with each new state */
  constructor(show) {
    this.show = show;
    this.state = new State();
    // The zone, when it was not in the address: from here on a copied link has it.
    history.replaceState(null, '', this.state.with());
    addEventListener('popstate', () => this.#take(location.href));
    document.addEventListener('click', (event) => this.#click(event));
  }

  /**
   * Go to an address of the console. Another view or a drawer is a new entry of the history, a tweak replaces it.
   * @param {string} href
   * @param {{replace?: boolean}} [options]
   */
  go(href, { replace = false } = {}) {
    if (href === this.state.with()) return;
    history[replace ? 'replaceState' : 'pushState'](null, '', href);
    this.#take(href);
  }

  /**
   * Change some values of this view's state. A drawer (`open`) pushes, all else replaces.
   * @param {Record<string, string|string[]|null>} changes
   * @param {{push?: boolean}} [options]
   */
  set(changes, { push = 'open' in changes && changes.open !== null && !this.state.get('open') } = {}) {
    if (typeof changes.tz === 'string') State.keepZone(changes.tz);
    this.go(this.state.with(changes), { replace: !push });
  }

  #take(href) {
    const before = this.state;
    this.state = new State(href);
    const isNew = before.view !== this.state.view || before.item !== this.state.item;
    this.show(this.state, { isNew });
  }

  #click(event) {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a[href]') : null;
    if (!link || link.target || link.hasAttribute('download')) return;
    const url = new URL(link.href, location.href);
    const isOurs = url.origin === location.origin && (url.pathname === '/' || /^\/console\/(?!assets\/)/.test(url.pathname));
    if (!isOurs) return;
    event.preventDefault();
    this.go(url.pathname + url.search);
  }
}
