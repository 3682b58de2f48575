/** What can be asked, and how it is said to the API. */
import { count, short, shortAxis, usd, usdAxis } from '../../format.js';

/** @typedef {{name: string, label: string, field: string, isMoney: boolean, axis: (v: number) => string, value: (v: number) => string}} Measure */

const money = (name, label, field) => ({ name, label, field, isMoney: true, axis: usdAxis, value: usd });
const number = (name, label, field) => ({ name, label, field, isMoney: false, axis: shortAxis, value: (value) => (value < 100_000 ? count(value) : short(value)) });

/** @type {Measure[]} */
export const MEASURES = [
  money('cost', 'Cost', 'cost_usd'), number('requests', 'Requests', 'requests'), number('failed', 'Failed requests', 'failed'),
  number('input_tokens', 'Input tokens', 'input_tokens'), number('output_tokens', 'Output tokens', 'output_tokens'), money('saved', 'Saved by cache', 'saved_usd'),
];

export const DIMENSIONS = [['team', 'Team'], ['key', 'Key'], ['model', 'Model'], ['upstream', 'Upstream']];
const WORDS = new Map(DIMENSIONS);
export const PERIODS = [['hour', 'Hour'], ['day', 'Day'], ['week', 'Week'], ['month', 'Month']];

/** "Key", "Tag service". @param {string} dimension */
export const wordOf = (dimension) => WORDS.get(dimension) ?? (dimension.startsWith('tag.') ? `Tag ${dimension.slice(4)}` : dimension);

/** "keys", "values". @param {string} dimension */
export const manyOf = (dimension) => (WORDS.has(dimension) ? `${dimension}s` : 'values');

/** @param {import('../../state.js').State} state @returns {Measure} */
export const measureOf = (state) => MEASURES.find((one) => one.name === state.get('show')) ?? MEASURES[0];

/** The groups of the table: by, then. @param {import('../../state.js').State} state */
export const groupsOf = (state) => [state.get('by'), state.get('then')].filter((one, index, all) => one && all.indexOf(one) === index);

/** Groups as the API is asked for them: beside a key stands whose it is. @param {string[]} groups */
export const askedGroups = (groups) => (groups.includes('key') && !groups.includes('team') ? [...groups, 'team'] : groups).join(',');

/** What the table and the export ask: the same. @param {import('../../state.js').State} state */
export const tableQuery = (state) => state.query({ by: askedGroups(groupsOf(state)), sort: state.get('sort') || `-${measureOf(state).name}` });

/** What a file is asked for. FOCUS has its own order and its own groups; what it takes beside is a tag. */
export function exportQuery(state, format) {
  const { sort, ...asked } = tableQuery(state);
  return format === 'focus' ? { ...asked, format } : { ...asked, sort, format };
}

/** The id of a row's member of a dimension: teams and keys have one, the others are their names. */
export const memberOf = (row, dimension) => row[`${dimension}_id`] ?? row[dimension];

/** A name to show; requests without a tag have none. */
export const nameOf = (row, dimension) => row[dimension] || (dimension.startsWith('tag.') ? 'no tag' : row[`${dimension}_id`] ?? '–');
