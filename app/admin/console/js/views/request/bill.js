/** What a request cost, in lines that add up to the total. */
import { ownOf } from '../../amounts.js';
import { nano } from '../../format.js';

/**
 * @typedef {object} Line
 * @property {string} item
 * @property {?number} count
 * @property {?string} price in words: "$4.00 / M", "$0.01 each"
 * @property {?bigint} nanousd null: it has no price of its own
 * @property {boolean} inside a part of the line before it
 */

const ITEMS = {
  input_tokens: 'Input', cached_tokens: 'Input, cached', cache_write_tokens: 'Written to the cache', input_audio_tokens: 'Input, audio',
  cached_audio_tokens: 'Cached audio', input_image_tokens: 'Input, images', cached_image_tokens: 'Cached images',
  output_tokens: 'Output', reasoning_tokens: 'of it reasoning', output_audio_tokens: 'Output, audio', output_image_tokens: 'Output, images',
  cache_write_12h_tokens: 'Written for 12 h', web_searches: 'Web search', preview_searches: 'Web search, preview', file_searches: 'File search',
  code_sessions: 'Code session', image_calls: 'Image', unknown_units: 'Unknown units', request: 'Each request',
};

/**
 * @param {object} told the answer of `explain/{id}`
 * @returns {{lines: Line[], total: ?bigint, adds: boolean}} `adds`: the lines have prices, and add up
 */
export function billOf(told) {
  const total = told.cost_usd === null || told.cost_usd === undefined ? null : nano(told.cost_usd);
  const priced = told.bill?.lines ?? told.price_rows ?? null;
  if (Array.isArray(priced) && priced.length > 0) {
    const lines = priced.map(pricedLine);
    const sum = lines.reduce((before, line) => before + (line.nanousd ?? 0n), 0n);
    return { lines, total, adds: total !== null && sum === total };
  }
  return { lines: counted(told), total, adds: false };
}

function pricedLine(row) {
  const inside = row.included === true || row.cost_usd === undefined;
  const name = row.unit ?? row.item ?? '';
  return {
    item: ownOf(ITEMS, name) ?? row.item ?? name.replaceAll('_', ' '),
    count: row.count ?? row.units ?? null,
    price: row.included === true ? 'in output' : priceWords(row),
    nanousd: row.cost_usd === null || row.cost_usd === undefined ? null : nano(row.cost_usd),
    inside,
  };
}

function priceWords(row) {
  if (row.per_mtok_usd !== null && row.per_mtok_usd !== undefined) return `${dollars(row.per_mtok_usd)} / M`;
  if (row.each_usd !== null && row.each_usd !== undefined) return `${dollars(row.each_usd)} each`;
  return null;
}

/** @param {string} text decimal dollars @returns {string} as they are, with cents at least */
export function dollars(text) {
  const [whole, rest = ''] = String(text).split('.');
  return `$${whole.replace(/\B(?=(\d{3})+$)/g, ',')}.${rest.replace(/0+$/, '').padEnd(2, '0')}`;
}

/** The units of every attempt, where no prices are told. */
function counted(told) {
  const sums = {};
  for (const attempt of told.attempts ?? []) {
    for (const [unit, units] of Object.entries(attempt.usage ?? {})) sums[unit] = (sums[unit] ?? 0) + units;
  }
  return Object.entries(ITEMS).filter(([unit]) => sums[unit]).map(([unit, item]) => ({
    item, count: sums[unit], price: null, nanousd: null, inside: unit === 'reasoning_tokens',
  }));
}

/**
 * Amounts of one column, with the same number of digits behind the point: micro-dollars, or as many as one of them
 * needs, so that what is read adds up.
 * @param {bigint[]} amounts nano-dollars @returns {string[]}
 */
export function alignedUsd(amounts) {
  const places = amounts.every((each) => each % 1000n === 0n) ? 6 : amounts.every((each) => each % 100n === 0n) ? 7 : 9;
  return amounts.map((each) => {
    const size = each < 0n ? -each : each;
    const rest = (size % 1_000_000_000n).toString().padStart(9, '0').slice(0, places);
    return `${each < 0n ? '−' : ''}$${(size / 1_000_000_000n).toString().replace(/\B(?=(\d{3})+$)/g, ',')}.${rest}`;
  });
}
