// What an application does through the AI SDK: `node vercel_node.mjs AI PROVIDER responses|chat SCENARIO …`, where the first
// two are the names under which its packages are installed.

import { gather, run } from "./scenarios.mjs";

const [aiPackage, providerPackage, api, ...names] = process.argv.slice(2);
const { embedMany, generateText, Output, stepCountIs, streamText, tool } = await import(aiPackage);
const { createOpenAI } = await import(providerPackage);
const { z } = await import("zod");

const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL });
const model = api === "chat" ? openai.chat("gpt-4o") : openai("gpt-4o");
const asked = { model, temperature: 0, maxRetries: 0 };
const tools = {
  get_capital: tool({
    description: "The capital of a country.",
    inputSchema: z.object({ country: z.string() }),
    execute: async () => "Paris",
  }),
};
const withTools = { ...asked, tools, prompt: "Use get_capital for France.", stopWhen: stepCountIs(3) };

const scenarios = {
  async answer() {
    const { text, usage, finishReason } = await generateText({ ...asked, prompt: "What is 2+2?" });
    return { "says 4": text.includes("4"), usage: usage.outputTokens > 0, finish_reason: finishReason };
  },

  async streamed() {
    const result = streamText({ ...asked, prompt: "Tell me a story." });
    const parts = await gather(result.textStream);
    return {
      "in parts": parts.length > 2,
      joined: parts.join("") === (await result.text),
      finish_reason: await result.finishReason,
      usage: (await result.usage).outputTokens > 0,
    };
  },

  async tools() {
    const { text, steps } = await generateText(withTools);
    return { called: steps[0].toolCalls[0].toolName, steps: steps.length, answered: text.length > 0 };
  },

  async streamed_tools() {
    const result = streamText(withTools);
    const kinds = (await gather(result.fullStream)).map((part) => part.type);
    return {
      called: kinds.includes("tool-call") && kinds.includes("tool-result"),
      steps: (await result.steps).length,
      errors: kinds.filter((kind) => kind === "error").length,
    };
  },

  async structured() {
    const schema = z.object({ total: z.number().int() });
    const { output } = await generateText({ ...asked, prompt: "A sum.", output: Output.object({ schema }) });
    return { total: Number.isInteger(output.total) };
  },

  async remembered() {
    const messages = [{ role: "user", content: "My name is Ada." }];
    const first = await generateText({ ...asked, messages });
    messages.push(...first.response.messages, { role: "user", content: "What is my name?" });
    return { knows: (await generateText({ ...asked, messages })).text.includes("Ada") };
  },

  async refused() {
    try {
      await generateText({ ...asked, prompt: "[[sim: error=422 error_code=a_code]] Go." });
    } catch (error) {
      return { status: error.statusCode, code: error.data.error.code, "to be retried": error.isRetryable };
    }
    return {};
  },

  async embedded() {
    const { embeddings } = await embedMany({ model: openai.embedding("text-embedding-3-small"), values: ["a", "b"] });
    return { dimensions: embeddings.map((row) => row.length) };
  },
};

await run(scenarios, names);
