// The Vercel AI SDK: its OpenAI provider over both APIs, and its provider for compatible servers.
// `stored`: as the provider asks by default, naming what was said before by ids that the model's
// server has stored; `responses` sends it all.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { MODEL, QUESTION, answer, asked, getWeather, heard } from "./ask.mjs";

const where = { baseURL: asked.url, apiKey: asked.key };
const models = {
  chat: () => createOpenAI(where).chat(MODEL),
  responses: () => createOpenAI(where).responses(MODEL),
  stored: () => createOpenAI(where).responses(MODEL),
  compatible: () =>
    createOpenAICompatible({ ...where, name: "nursling", includeUsage: true }).chatModel(MODEL),
};

const request = {
  model: models[asked.api](),
  prompt: QUESTION,
  maxRetries: 0,
  providerOptions: asked.api === "responses" ? { openai: { store: false } } : {},
  stopWhen: stepCountIs(3),
  tools: {
    get_weather: tool({
      description: "The weather now.",
      inputSchema: z.object({ city: z.string() }),
      execute: async (input) => getWeather(input),
    }),
  },
};

await answer(async () => {
  if (!asked.streamed) {
    const result = await generateText(request);
    return {
      text: result.text,
      tokens: result.totalUsage.totalTokens,
      reasoning: result.reasoningText,
    };
  }
  const result = streamText({ ...request, onError: () => {} });
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") heard.deltas.push(part.text);
    if (part.type === "error") throw part.error;
  }
  return {
    text: await result.text,
    tokens: (await result.totalUsage).totalTokens,
    reasoning: await result.reasoningText,
  };
});
