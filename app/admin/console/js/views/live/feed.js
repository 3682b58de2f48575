/** What runs and what has just ended, as the gateway tells it. Pure: events in, rows out; nothing is painted here. */

export const FINISHED_MAX = 200;
const FLIGHTS_MAX = 2000;

/**
 * Holds the newest state (`flights`, `finished`) and what is shown of it: they differ while rows are to stand still.
 */
export class Feed {
  constructor() {
    /** @type {Map<string, object>} */
    this.flights = new Map();
    /** @type {object[]} newest first */
    this.finished = [];
    this.dropped = 0;
    /** How many are in flight by the gateway's own count; null until it told. @type {?number} */
    this.told = null;
    this.arrived = 0;
    /** Whether other processes cannot be heard, and only one is shown. */
    this.isDegraded = false;
    /** @type {?{flights: object[], finished: object[], inFlight: number}} */
    this.held = null;
  }

  /** @param {string} event @param {object} data */
  take(event, data) {
    switch (event) {
      case 'snapshot': this.#restart(data); break;
      case 'started': this.#start(data); break;
      case 'progress': this.#progress(data); break;
      case 'finished': this.#finish(data); break;
      case 'ended': for (const id of data.request_ids ?? []) this.flights.delete(id); break;
      case 'dropped': this.dropped += data.events ?? 0; break;
      case 'count': this.#count(data); break;
      default: // What a later version tells of is not shown by this one.
    }
  }

  /** Rows stand still from here on, until `release`. */
  hold() {
    if (!this.held) {
      this.held = this.#picture();
      this.arrived = 0;
    }
  }

  release() {
    this.held = null;
    this.arrived = 0;
  }

  get isHeld() { return this.held !== null; }

  /** Oldest first, and newest first. @returns {{flights: object[], finished: object[], inFlight: number}} */
  get shown() {
    if (!this.held) return this.#picture();
    // Rows keep their places; what is in them may still be told: that a call ended, how far a stream is.
    const flights = this.held.flights.map((each) => this.flights.get(each.request_id) ?? { ...each, ended: true });
    return { ...this.held, flights };
  }

  get inFlight() { return this.told === null ? this.flights.size : Math.max(this.told, this.flights.size); }

  #picture() {
    const flights = [...this.flights.values()].sort((one, other) => Date.parse(one.started_at) - Date.parse(other.started_at));
    return { flights, finished: [...this.finished], inFlight: this.inFlight };
  }

  #restart({ in_flight: flights = [], finished = [] }) {
    this.flights = new Map(flights.slice(0, FLIGHTS_MAX).map((each) => [each.request_id, each]));
    this.finished = finished.slice(0, FINISHED_MAX);
    this.told = null;
    this.dropped = 0;
  }

  #count({ in_flight: inFlight, degraded = false }) {
    this.told = inFlight;
    this.isDegraded = degraded;
  }

  #start(flight) {
    if (this.flights.size >= FLIGHTS_MAX) return;
    this.flights.set(flight.request_id, flight);
    this.arrived += this.held ? 1 : 0;
  }

  #progress(told) {
    const flight = this.flights.get(told.request_id);
    if (flight) this.flights.set(told.request_id, { ...flight, ...told });
  }

  #finish(row) {
    this.flights.delete(row.request_id);
    if (this.finished.some((each) => each.request_id === row.request_id)) return;
    this.finished = [row, ...this.finished].slice(0, FINISHED_MAX);
    this.arrived += this.held ? 1 : 0;
  }
}

/** The p-th percentile of numbers, by nearest rank. @param {number[]} values @param {number} p @returns {?number} */
export function percentile(values, p) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.ceil((p / 100) * sorted.length) - 1)];
}

/** How old a call may be before it stands out: the p99 of the finished ones of its model, else of all; null under 20. */
export function slowAfterMs(finished, model) {
  const took = (rows) => rows.map((row) => row.took_ms).filter((ms) => typeof ms === 'number');
  const own = took(finished.filter((row) => row.model === model && row.cache !== 'hit'));
  const known = own.length >= 20 ? own : took(finished.filter((row) => row.cache !== 'hit'));
  return known.length >= 20 ? percentile(known, 99) : null;
}
