// What an application does through the SDK for Node: `node openai_node.mjs PACKAGE SCENARIO …`, where PACKAGE is the name
// under which a version is installed. The address and the key are in the environment, where the SDK looks for them.

import { gather, run, sleep } from "./scenarios.mjs";

const [packageName, ...names] = process.argv.slice(2);
const sdk = await import(packageName);
const { zodTextFormat, zodResponseFormat } = await import(`${packageName}/helpers/zod`);
const { z } = await import("zod");
const OpenAI = sdk.default;
const { toFile } = sdk;

const model = "gpt-4o";
const SYSTEM = "You are a helpful assistant.";
const RUNNING = ["queued", "in_progress"];
const question = "What is 2+2?";
const Sum = z.object({ total: z.number().int(), says: z.string() });
const parameters = {
  type: "object",
  properties: { country: { type: "string" } },
  required: ["country"],
  additionalProperties: false,
};
const tool = { type: "function", name: "get_capital", parameters, strict: true };
const client = new OpenAI();

const ends = (events) => [events[0].type, events.at(-1).type];
const deltas = (events) => events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
const counted = (events) => events.every((event, index) => event.sequence_number === events[0].sequence_number + index);

async function refusal(call) {
  try {
    await call();
  } catch (error) {
    return [error.constructor.name, error.status, error.code ?? null];
  }
  return ["nothing"];
}

// A client, and what it has sent so far.
function counting(settings = {}) {
  const sent = [];
  const counted = new OpenAI({
    ...settings,
    fetch: (url, init) => {
      sent.push(new Headers(init.headers).get("x-stainless-retry-count"));
      return fetch(url, init);
    },
  });
  return [counted, sent];
}

const scenarios = {
  // -- the documents' examples --------------------------------------------------------------------

  async s0_chat() {
    const messages = [{ role: "system", content: SYSTEM }, { role: "user", content: question }];
    const answer = await client.chat.completions.create({ model, messages });
    const { usage } = answer;
    return {
      "says 4": answer.choices[0].message.content.includes("4"),
      finish_reason: answer.choices[0].finish_reason,
      "adds up": usage.total_tokens === usage.prompt_tokens + usage.completion_tokens,
    };
  },

  async s0_chat_stream() {
    const chunks = await gather(
      client.chat.completions.create({
        model,
        messages: [{ role: "user", content: question }],
        stream: true,
        stream_options: { include_usage: true },
      }),
    );
    const choices = chunks.flatMap((chunk) => chunk.choices);
    return {
      "says 4": choices.map((choice) => choice.delta.content ?? "").join("").includes("4"),
      finish_reason: choices.at(-1).finish_reason,
      usage: chunks.at(-1).usage.completion_tokens > 0,
    };
  },

  async s1_1_input() {
    const array = [{ role: "system", content: SYSTEM }, { role: "user", content: question }];
    const answers = [];
    for (const input of [array, question]) answers.push(await client.responses.create({ model, input }));
    return {
      "say 4": answers.map((answer) => answer.output_text.includes("4")),
      usage: answers.map((answer) => answer.usage.input_tokens > 0 && answer.usage.output_tokens > 0),
    };
  },

  async s1_2_instructions() {
    const answer = await client.responses.create({ model, instructions: SYSTEM, input: question });
    return { "says 4": answer.output_text.includes("4"), instructions: answer.instructions };
  },

  async s1_3_anatomy() {
    const answer = await client.responses.create({ model, input: "Hello!" });
    const { usage } = answer;
    return {
      id: answer.id.slice(0, 5),
      model: answer.model,
      status: answer.status,
      text: answer.output_text.length > 0,
      output: answer.output.map((item) => [item.type, item.role]),
      "adds up": usage.total_tokens === usage.input_tokens + usage.output_tokens,
      details: [usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens],
    };
  },

  async s2_1_sampling() {
    const answers = [];
    for (const settings of [{ temperature: 0 }, { temperature: 1.2 }, { top_p: 0.5 }]) {
      answers.push(await client.responses.create({ model, input: question, ...settings }));
    }
    return {
      "say 4": answers.map((answer) => answer.output_text.includes("4")),
      told: [answers[1].temperature, answers[2].top_p],
    };
  },

  async s2_2_cut() {
    const answer = await client.responses.create({
      model,
      input: "[[sim: tokens=400]] Write a lot.",
      max_output_tokens: 200,
    });
    return {
      status: answer.status,
      reason: answer.incomplete_details.reason,
      output_tokens: answer.usage.output_tokens,
    };
  },

  async s2_3_twice() {
    const call = { model, input: `How many is 3+4? ${packageName}`, temperature: 0, store: false };
    const first = await client.responses.create(call).withResponse();
    const second = await client.responses.create(call).withResponse();
    return {
      equal: first.data.output_text === second.data.output_text,
      cache: second.response.headers.get("x-headgate-cache"),
      "cost of the second": Number(second.response.headers.get("x-headgate-cost-usd")),
    };
  },

  async s3_1_stream() {
    const events = await gather(client.responses.create({ model, input: "Tell me a story.", stream: true }));
    const completed = events.at(-1).response;
    const whole = completed.output.at(-1).content[0].text;
    return {
      ends: ends(events),
      "one id": events[0].response.id === completed.id,
      "in order": counted(events),
      joined: deltas(events).join("") === whole,
      "in parts": deltas(events).length > 1,
      usage: completed.usage.output_tokens > 0,
    };
  },

  async s3_3_failed_stream() {
    const events = await gather(client.responses.create({ model, input: "[[sim: fail_after=4]] Go.", stream: true }));
    return { last: events.at(-1).type, code: events.at(-1).response.error.code };
  },

  async s3_3_cut_stream() {
    const events = await gather(client.responses.create({ model, input: "[[sim: cut_after=6]] Go.", stream: true }));
    const last = events.at(-1);
    return { last: last.type, code: last.response.error.code, "one id": events[0].response.id === last.response.id };
  },

  async s4_reasoning() {
    const found = {};
    for (const effort of ["low", "high"]) {
      const answer = await client.responses.create({
        model: "o4-mini",
        input: "How many primes are below 20?",
        reasoning: { effort, summary: "auto" },
      });
      const { summary } = answer.output.find((item) => item.type === "reasoning");
      found[effort] = [summary[0].text.length > 0, answer.usage.output_tokens_details.reasoning_tokens > 0];
    }
    return found;
  },

  async s5_1_history() {
    const history = [{ role: "user", content: "My name is Ada." }];
    const answer = await client.responses.create({ model, input: history, temperature: 0 });
    history.push(...answer.output, { role: "user", content: "What is my name?" });
    const whole = await client.responses.create({ model, input: history, temperature: 0 });
    const trimmed = await client.responses.create({ model, input: history.slice(-1), temperature: 0 });
    return { "whole knows": whole.output_text.includes("Ada"), "trimmed knows": trimmed.output_text.includes("Ada") };
  },

  async s5_2_previous_response() {
    const first = await client.responses.create({ model, input: "My name is Ada.", temperature: 0 });
    const second = await client.responses.create({
      model,
      input: "What is my name?",
      previous_response_id: first.id,
      temperature: 0,
    });
    return {
      knows: second.output_text.includes("Ada"),
      "goes on from": second.previous_response_id === first.id,
      "more input": second.usage.input_tokens > first.usage.input_tokens,
    };
  },

  // -- helpers of the SDK -------------------------------------------------------------------------

  async stream_helper() {
    const stream = client.responses.stream({ model, input: question });
    const events = await gather(stream);
    const final = await stream.finalResponse();
    return { ends: ends(events), "says 4": final.output_text.includes("4") };
  },

  async stream_helper_cut() {
    return { ends: ends(await gather(client.responses.stream({ model, input: "[[sim: cut_after=6]] Go." }))) };
  },

  async chat_stream_helper() {
    const stream = client.chat.completions.stream({ model, messages: [{ role: "user", content: question }] });
    let isDone = false;
    stream.on("content.done", () => {
      isDone = true;
    });
    const final = await stream.finalChatCompletion();
    return { done: isDone, "says 4": final.choices[0].message.content.includes("4") };
  },

  async parsed() {
    const answer = await client.responses.parse({ model, input: "A sum.", text: { format: zodTextFormat(Sum, "sum") } });
    const { total, says } = answer.output_parsed;
    return { total: Number.isInteger(total), says: typeof says === "string" };
  },

  async chat_parsed() {
    const answer = await client.chat.completions.parse({
      model,
      messages: [{ role: "user", content: "A sum." }],
      response_format: zodResponseFormat(Sum, "sum"),
    });
    const { total, says } = answer.choices[0].message.parsed;
    return { total: Number.isInteger(total), says: typeof says === "string" };
  },

  async tools() {
    const input = [{ role: "user", content: "What is the capital of France?" }];
    const asked = { model, tools: [tool], temperature: 0 };
    const called = await client.responses.create({ ...asked, input, tool_choice: "required" });
    const call = called.output.at(-1);
    const result = { type: "function_call_output", call_id: call.call_id, output: "Paris" };
    const answer = await client.responses.create({ ...asked, input: [...input, ...called.output, result] });
    const events = await gather(client.responses.create({ ...asked, input, tool_choice: "required", stream: true }));
    const kinds = events.map((event) => event.type);
    return {
      called: [call.type, call.name],
      answered: answer.output_text.length > 0,
      streamed: ["delta", "done"].every((kind) => kinds.includes(`response.function_call_arguments.${kind}`)),
    };
  },

  async chat_tools() {
    const tools = [{ type: "function", function: { name: "get_capital", parameters } }];
    const messages = [{ role: "user", content: "What is the capital of France?" }];
    const called = await client.chat.completions.create({ model, messages, tools, tool_choice: "required" });
    const { message, finish_reason } = called.choices[0];
    messages.push(message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: "Paris" });
    const answer = await client.chat.completions.create({ model, messages, tools });
    return {
      finish_reason,
      called: message.tool_calls[0].function.name,
      answered: answer.choices[0].message.content.length > 0,
    };
  },

  async raw_headers() {
    const { data, response, request_id } = await client.responses.create({ model, input: "Hello!" }).withResponse();
    const { headers } = response;
    return {
      status: response.status,
      "one request id": data._request_id === headers.get("x-request-id") && data._request_id === request_id && request_id !== "",
      "the gateway's id": headers.get("x-headgate-request-id").length > 0,
      upstream: headers.get("x-headgate-upstream"),
      cost: Number(headers.get("x-headgate-cost-usd")) > 0,
      "content-type": headers.get("content-type").split(";")[0],
    };
  },

  // -- errors and retries -------------------------------------------------------------------------

  async errors() {
    const once = new OpenAI({ maxRetries: 0 });
    const wrong = new OpenAI({ apiKey: "sk-hg-wrong", maxRetries: 0 });
    const input = "Hello!";
    const found = {
      "wrong key": await refusal(() => wrong.responses.create({ model, input })),
      "not a number": await refusal(() => once.responses.create({ model, input, temperature: "warm" })),
      "unknown response": await refusal(() => once.responses.retrieve("resp_unknown")),
      "unknown previous": await refusal(() =>
        once.responses.create({ model, input, previous_response_id: "resp_unknown" }),
      ),
      "unknown file": await refusal(() => once.files.retrieve("file-unknown")),
    };
    for (const status of [400, 401, 404, 409, 422, 429, 500, 503]) {
      const steered = `[[sim: error=${status} error_code=a_code]] Go.`;
      found[status] = await refusal(() => once.responses.create({ model, input: steered }));
    }
    return found;
  },

  async forbidden() {
    const narrow = new OpenAI({ apiKey: process.env.NARROW_KEY, maxRetries: 0 });
    return { files: await refusal(() => narrow.files.list()) };
  },

  async a_spent_budget_is_asked_once() {
    const [spent, sent] = counting({ apiKey: process.env.SPENT_KEY });
    return { error: await refusal(() => spent.responses.create({ model, input: "Hello!" })), sent: sent.length };
  },

  async retries() {
    const [counted, sent] = counting();
    const busy = "error=429 error_code=rate_limit_exceeded retry_after=0";
    const kept = await refusal(() => counted.responses.create({ model, input: `[[sim: ${busy}]] Go.` }));
    const keptSent = sent.splice(0);
    const answer = await counted.responses.create({ model, input: `[[sim: ${busy} times=2 tag=${packageName}]] 2+2` });
    const passedSent = sent.splice(0);
    const refused = await refusal(() => counted.responses.create({ model, input: "[[sim: error=400]] Go." }));
    return {
      "429 for ever": [kept, keptSent],
      "429 twice": [answer.status, passedSent],
      400: [refused[0], sent],
    };
  },

  // -- what is stored -----------------------------------------------------------------------------

  async stored_response() {
    const input = ["one", "two", "three"].map((content) => ({ role: "user", content }));
    const answer = await client.responses.create({ model, input });
    const again = await client.responses.retrieve(answer.id);
    const items = await gather(client.responses.inputItems.list(answer.id, { limit: 1, order: "asc" }));
    await client.responses.delete(answer.id);
    return {
      same: again.output_text === answer.output_text,
      items: items.map((item) => item.content[0].text),
      gone: await refusal(() => client.responses.retrieve(answer.id)),
    };
  },

  async background() {
    const first = await client.responses.create({ model, input: question, background: true });
    let answer = first;
    while (RUNNING.includes(answer.status)) {
      await sleep(50);
      answer = await client.responses.retrieve(answer.id);
    }
    const stalls = "[[sim: stall_after=4 stall_s=3600]] Go.";
    const long = await client.responses.create({ model, input: stalls, background: true });
    const cancelled = await client.responses.cancel(long.id);
    return {
      first: [RUNNING.includes(first.status), first.usage],
      then: [answer.status, answer.output_text.includes("4"), answer.usage.output_tokens > 0],
      cancelled: cancelled.status,
    };
  },

  async background_resumed() {
    const input = "[[sim: tokens=30 pace_ms=5]] Go.";
    const stream = await client.responses.create({ model, input, background: true, stream: true });
    const seen = [];
    for await (const event of stream) {
      seen.push(event);
      if (seen.length === 8) break;
    }
    const rest = { stream: true, starting_after: seen.at(-1).sequence_number };
    seen.push(...(await gather(client.responses.retrieve(seen[0].response.id, rest))));
    return {
      "in order": seen[0].sequence_number === 0 && counted(seen),
      last: seen.at(-1).type,
      joined: deltas(seen).join("") === seen.at(-1).response.output.at(-1).content[0].text,
    };
  },

  async conversations() {
    const said = (content) => ({ type: "message", role: "user", content });
    const made = await client.conversations.create({ items: [said("My name is Ada.")], metadata: { topic: "names" } });
    const input = "What is my name?";
    const answer = await client.responses.create({ model, input, conversation: made.id, temperature: 0 });
    const items = await gather(client.conversations.items.list(made.id, { limit: 2, order: "asc" }));
    const place = { conversation_id: made.id };
    const one = await client.conversations.items.retrieve(items[0].id, place);
    const more = await client.conversations.items.create(made.id, { items: [said("Thank you.")] });
    await client.conversations.items.delete(items[0].id, place);
    const left = (await gather(client.conversations.items.list(made.id))).map((item) => item.id);
    const changed = await client.conversations.update(made.id, { metadata: { topic: "people" } });
    const read = await client.conversations.retrieve(made.id);
    const deleted = await client.conversations.delete(made.id);
    return {
      knows: answer.output_text.includes("Ada"),
      items: items.map((item) => item.role),
      one: one.id === items[0].id,
      added: more.data.length,
      left: [left.length, left.includes(items[0].id)],
      metadata: [changed.metadata.topic, read.metadata.topic],
      deleted: deleted.deleted,
      gone: await refusal(() => client.conversations.retrieve(made.id)),
    };
  },

  async files() {
    const ids = [];
    for (let number = 0; number < 5; number += 1) {
      const file = await toFile(Buffer.from(`body ${number}\n`), `${number}.txt`);
      ids.push((await client.files.create({ file, purpose: "user_data" })).id);
    }
    const listed = (await gather(client.files.list({ limit: 2, order: "asc", purpose: "user_data" }))).map((f) => f.id);
    const content = await (await client.files.content(ids[3])).text();
    const read = await client.files.retrieve(ids[3]);
    const deleted = [];
    for (const id of ids) deleted.push((await client.files.delete(id)).deleted);
    const left = (await gather(client.files.list())).map((file) => file.id);
    return {
      "listed in order": listed.filter((id) => ids.includes(id)).join() === ids.join(),
      content,
      read: [read.filename, read.bytes, read.purpose],
      deleted,
      left: left.filter((id) => ids.includes(id)).length,
      gone: await refusal(() => client.files.content(ids[0])),
    };
  },

  async file_as_input() {
    const file = await client.files.create({ file: await toFile(Buffer.from("hello"), "a.txt"), purpose: "user_data" });
    const content = [{ type: "input_file", file_id: file.id }, { type: "input_text", text: question }];
    const answer = await client.responses.create({ model, input: [{ role: "user", content }] });
    const foreign = [{ role: "user", content: [{ type: "input_file", file_id: "file-unknown" }] }];
    await client.files.delete(file.id);
    return {
      "says 4": answer.output_text.includes("4"),
      unknown: await refusal(() => client.responses.create({ model, input: foreign })),
    };
  },

  async stored_chats() {
    const metadata = { run: packageName };
    const ids = [];
    for (let n = 0; n < 3; n += 1) {
      const messages = [{ role: "user", content: `Say ${n}` }];
      ids.push((await client.chat.completions.create({ model, messages, store: true, metadata })).id);
    }
    const listed = await gather(client.chat.completions.list({ limit: 2, order: "asc", metadata }));
    const messages = await gather(client.chat.completions.messages.list(ids[0]));
    return {
      listed: listed.map((chat) => chat.id).join() === ids.join(),
      messages: messages.map((message) => message.role),
    };
  },

  async uploads_and_batches() {
    const body = { model, input: question };
    const line = `${JSON.stringify({ custom_id: "a", method: "POST", url: "/v1/responses", body })}\n`;
    const upload = await client.uploads.create({
      bytes: 2 * line.length,
      filename: "b.jsonl",
      mime_type: "application/jsonl",
      purpose: "batch",
    });
    const part_ids = [];
    for (const part of [line, line]) {
      const data = await toFile(Buffer.from(part), "part");
      part_ids.push((await client.uploads.parts.create(upload.id, { data })).id);
    }
    const whole = (await client.uploads.complete(upload.id, { part_ids })).file;
    let batch = await client.batches.create({
      input_file_id: whole.id,
      endpoint: "/v1/responses",
      completion_window: "24h",
    });
    while (["validating", "in_progress", "finalizing"].includes(batch.status)) {
      await sleep(50);
      batch = await client.batches.retrieve(batch.id);
    }
    const output = await (await client.files.content(batch.output_file_id)).text();
    const listed = (await gather(client.batches.list({ limit: 1 }))).map((one) => one.id);
    return {
      status: batch.status,
      answers: output.trim().split("\n").length,
      listed: listed.includes(batch.id),
    };
  },

  async vector_stores() {
    const text = await toFile(Buffer.from("Paris is the capital of France."), "a.txt");
    const file = await client.files.create({ file: text, purpose: "assistants" });
    const store = await client.vectorStores.create({ name: "facts", file_ids: [file.id] });
    const files = await gather(client.vectorStores.files.list(store.id));
    const found = await gather(client.vectorStores.search(store.id, { query: "capital of France" }));
    const deleted = await client.vectorStores.delete(store.id);
    await client.files.delete(file.id);
    return {
      files: files.map((one) => one.id).join() === file.id,
      found: found.map((row) => row.filename),
      deleted: deleted.deleted,
    };
  },

  // -- the rest of the API ------------------------------------------------------------------------

  async input_tokens() {
    const counted = await client.responses.inputTokens.count({ model, input: question });
    const answer = await client.responses.create({ model, input: question });
    return { object: counted.object, "as billed": counted.input_tokens === answer.usage.input_tokens };
  },

  async compaction() {
    const answer = await client.responses.compact({ model, input: [{ role: "user", content: "My name is Ada." }] });
    return { object: answer.object, usage: answer.usage.input_tokens > 0, kinds: answer.output.at(-1).type };
  },

  async embeddings_models_moderations() {
    const vectors = await client.embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"] });
    const names = (await gather(client.models.list())).map((one) => one.id);
    const one = await client.models.retrieve("sim-large");
    const moderated = await client.moderations.create({ input: "Good morning." });
    return {
      dimensions: vectors.data.map((row) => row.embedding.length),
      models: names.includes("sim-large"),
      one: one.id,
      flagged: moderated.results[0].flagged,
    };
  },

  async pictures_and_sound() {
    const picture = await client.images.generate({ model: "gpt-image-1", prompt: "A cat." });
    const speech = await client.audio.speech.create({ model: "gpt-4o-mini-tts", voice: "alloy", input: "Hello!" });
    const file = await toFile(Buffer.from("RIFF".repeat(50)), "a.wav");
    const heard = await client.audio.transcriptions.create({ model: "gpt-4o-transcribe", file });
    return {
      picture: picture.data[0].b64_json.length > 0,
      speech: (await speech.arrayBuffer()).byteLength > 0,
      heard: heard.text.length > 0,
    };
  },

  async socket() {
    const { ResponsesWS } = await import(`${packageName}/resources/responses/ws`);
    const connection = new ResponsesWS(client);
    const failed = new Promise((_, reject) => connection.on("error", reject));
    const turn = (members) =>
      Promise.race([
        failed,
        new Promise((resolve) => {
          const events = [];
          const see = (event) => {
            events.push(event);
            if (["response.completed", "response.failed", "error"].includes(event.type)) {
              connection.off("event", see);
              resolve(events);
            }
          };
          connection.on("event", see);
          connection.send({ type: "response.create", model, store: false, temperature: 0, ...members });
        }),
      ]);
    const first = await turn({ input: "My name is Ada." });
    const second = await turn({ input: "What is my name?", previous_response_id: first.at(-1).response.id });
    connection.close();
    const { response } = second.at(-1);
    return {
      ends: ends(first),
      knows: response.output.at(-1).content[0].text.includes("Ada"),
      usage: response.usage.output_tokens > 0,
    };
  },

  async many_at_once() {
    const numbers = Array.from({ length: 17 }, (_, number) => number);
    const answers = await Promise.all(numbers.map((n) => client.responses.create({ model, input: `Question ${n}` })));
    return { answers: new Set(answers.map((answer) => answer.id)).size };
  },
};

await run(scenarios, names);
