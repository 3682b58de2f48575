/**
 * What is looked at, held in the address alone: reload, Back and a pasted link give the same picture.
 *
 * The zone is always written: its default is the browser's, so a link without it would show another person other days.
 */
import { readable } from './api.js';
import { isRange, isZone, ownZone, rangeQuery } from './range.js';

const DEFAULTS = { range: 'this_month', show: 'cost', by: 'team', then: '', per: 'day', draw: 'columns', sort: '', open: '', q: '' };
/** What goes along from view to view. */
const FOLLOWS = ['range', 'tz', 'team', 'not.team'];
const FILTER = /^(not\.)?(team|key|model|upstream|tag\..+)$/;
const ZONE_KEY = 'headgate.zone';

function keptZone() {
  try {
    const kept = localStorage.getItem(ZONE_KEY);
    if (kept && isZone(kept)) return kept;
  } catch {
    // No storage: the browser's zone.
  }
  return ownZone();
}

export class State {
  /** @param {string} [href] an address of the console */
  constructor(href = location.href) {
    this.read(href);
  }

  /** Take over what an address says; what it says wrongly falls back to the default. @param {string} href */
  read(href) {
    const url = new URL(href, location.origin);
    const [, first, view, item] = url.pathname.split('/');
    this.view = first === 'console' && view ? decode(view) : 'overview';
    /** The second part of a path such as `/console/requests/{id}`; '' where there is none. */
    this.item = item ? decode(item) : '';
    /** @type {Map<string, string>} */
    this.values = new Map(url.searchParams);
    if (!isRange(this.get('range'))) this.values.delete('range');
    const tz = this.values.get('tz');
    if (!tz || !isZone(tz)) this.values.set('tz', keptZone());
  }

  /** One value, with its default. @param {string} name @param {string} [or] in place of the general default */
  get(name, or = DEFAULTS[name] ?? '') { return this.values.get(name) ?? or; }

  /** One value that is a list. @param {string} name @returns {string[]} */
  list(name) { return this.get(name).split(',').filter(Boolean); }

  get tz() { return this.get('tz'); }

  get range() { return this.get('range'); }

  /** The filters that are set: `[['team', ['t1', 't2']], ['not.model', ['m']]]`. @returns {[string, string[]][]} */
  get filters() {
    return [...this.values].filter(([name, value]) => FILTER.test(name) && value).map(([name, value]) => [name, value.split(',').filter(Boolean)]);
  }

  /** What usage and records are asked: range, zone and filters. @param {Record<string, any>} [more] */
  query(more = {}) {
    return { ...rangeQuery(this.range), tz: this.tz, ...Object.fromEntries(this.filters.map(([name, values]) => [name, values.join(',')])), ...more };
  }

  /** The address of this state with some values changed. @param {Record<string, string|string[]|null>} [changes] */
  with(changes = {}) {
    return build(this.view, this.item, new Map([...this.values, ...normal(changes)]));
  }

  /**
   * The address of another view: range, zone and team go along, `more` is added.
   * @param {string} view
   * @param {Record<string, string|string[]|null>} [more]
   * @param {string} [item]
   */
  href(view, more = {}, item = '') {
    const kept = FOLLOWS.filter((name) => this.values.has(name)).map((name) => [name, this.values.get(name)]);
    return build(view, item, new Map([...kept, ...normal(more)]));
  }

  /** Remember the zone for the next visit. @param {string} tz */
  static keepZone(tz) {
    try {
      localStorage.setItem(ZONE_KEY, tz);
    } catch {
      // Then it is chosen again next time.
    }
  }
}

const normal = (changes) => Object.entries(changes).map(([name, value]) => [name, Array.isArray(value) ? value.join(',') : value ?? '']);

function build(view, item, values) {
  const search = new URLSearchParams();
  for (const [name, value] of values) {
    if (value !== '' && value !== DEFAULTS[name]) search.set(name, value);
  }
  const path = view === 'overview' ? '/' : `/console/${encodeURIComponent(view)}${item ? `/${encodeURIComponent(item)}` : ''}`;
  return search.size ? `${path}?${readable(search)}` : path;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
