/** Programs that work as they stand, for whoever has a key. Text only. */

/**
 * @param {string} baseUrl such as `https://ai.acme.example/v1`
 * @param {string} model one that the key may use
 * @returns {{name: string, text: string}[]}
 */
export function snippetsOf(baseUrl, model) {
  const named = JSON.stringify(model);
  return [
    { name: 'Python', text: `import os\nfrom openai import OpenAI\n\nclient = OpenAI(\n    base_url=${JSON.stringify(baseUrl)},\n    api_key=os.environ["HEADGATE_KEY"],\n)\nprint(client.responses.create(\n    model=${named}, input="Hello",\n).output_text)\n` },
    { name: 'Node', text: `import OpenAI from 'openai';\n\nconst client = new OpenAI({\n  baseURL: ${JSON.stringify(baseUrl)},\n  apiKey: process.env.HEADGATE_KEY,\n});\nconst answer = await client.responses.create({\n  model: ${named}, input: 'Hello',\n});\nconsole.log(answer.output_text);\n` },
    { name: 'curl', text: curl(baseUrl, model, '$HEADGATE_KEY') },
  ];
}

/** @param {string} baseUrl @param {string} model @param {string} key the secret, or the variable that holds it */
export function curl(baseUrl, model, key) {
  const body = JSON.stringify({ model, input: 'Hello' }).replaceAll("'", "'\\''");
  return `curl ${baseUrl}/responses \\\n  -H "Authorization: Bearer ${key}" \\\n  -H "Content-Type: application/json" \\\n  -d '${body}'\n`;
}

const ANY = 'gpt-5-mini';

/** A model that is named, not a pattern, of those that a key may use. @param {?string[]} models null: all */
export function modelFor(models) {
  return (models ?? []).find((each) => !/[*?[\]]/.test(each)) ?? ANY;
}
