// The Agents SDK: an agent with a tool, run whole or streamed.

import {
  Agent,
  OpenAIChatCompletionsModel,
  OpenAIResponsesModel,
  run,
  setTracingDisabled,
  tool,
} from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";

import { MODEL, QUESTION, answer, asked, getWeather, heard } from "./ask.mjs";

setTracingDisabled(true);

const client = new OpenAI({ baseURL: asked.url, apiKey: asked.key, maxRetries: 0 });
const Model = asked.api === "chat" ? OpenAIChatCompletionsModel : OpenAIResponsesModel;

const agent = new Agent({
  name: "reporter",
  instructions: "Tell the weather.",
  model: new Model(client, MODEL),
  tools: [
    tool({
      name: "get_weather",
      description: "The weather now.",
      parameters: z.object({ city: z.string() }),
      execute: async (input) => getWeather(input),
    }),
  ],
});

await answer(async () => {
  const result = await run(agent, QUESTION, { stream: asked.streamed });
  if (asked.streamed) {
    for await (const event of result) {
      if (event.type === "raw_model_stream_event" && event.data.type === "output_text_delta") {
        heard.deltas.push(event.data.delta);
      }
    }
    await result.completed;
  }
  const thoughts = result.newItems.filter((item) => item.type === "reasoning_item");
  const thought = thoughts[0]?.rawItem;
  return {
    text: result.finalOutput,
    tokens: result.state.usage.totalTokens,
    reasoning: thought?.rawContent?.[0]?.text ?? thought?.content?.[0]?.text,
  };
});
