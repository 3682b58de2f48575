/** Amounts that were reckoned with: nano-dollars back into decimal text, exact. */

const NANO = 1_000_000_000n;

/** @param {bigint|number} nano @returns {string} decimal dollars */
export function usdOf(nano) {
  const amount = BigInt(nano);
  const size = amount < 0n ? -amount : amount;
  const rest = (size % NANO).toString().padStart(9, '0').replace(/0+$/, '');
  return `${amount < 0n ? '-' : ''}${size / NANO}${rest ? `.${rest}` : ''}`;
}

/**
 * What a record holds under a name from outside: `constructor` is in none that does not have it.
 * @template T @param {?Record<string, T>} record @param {string} name @returns {T|undefined}
 */
export const ownOf = (record, name) => (record && Object.hasOwn(record, name) ? record[name] : undefined);

/** The id of a row's team or key. @param {object} row of usage @param {'team'|'key'} dimension @returns {string} */
export const memberId = (row, dimension) => row[`${dimension}_id`] ?? row[dimension]?.id;

/** What a row's team, key, model or tag is called. @param {object} row of usage @param {string} dimension @returns {string} */
export const memberName = (row, dimension) => (typeof row[dimension] === 'object' ? row[dimension]?.name : row[dimension]) ?? '';
