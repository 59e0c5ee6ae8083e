// The official SDK: its stream helpers, its runner of tools, and plain calls.

import OpenAI from "openai";

import { MODEL, PARAMETERS, QUESTION, answer, asked, getWeather, heard } from "./ask.mjs";

const client = new OpenAI({ baseURL: asked.url, apiKey: asked.key, maxRetries: 0 });

async function chat() {
  const tool = {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather now.",
      parameters: PARAMETERS,
      parse: JSON.parse,
      function: getWeather,
    },
  };
  const runner = client.chat.completions.runTools({
    model: MODEL,
    messages: [{ role: "user", content: QUESTION }],
    tools: [tool],
    ...(asked.streamed ? { stream: true, stream_options: { include_usage: true } } : {}),
  });
  if (asked.streamed) runner.on("content", (delta) => heard.deltas.push(delta));
  const text = await runner.finalContent();
  const usage = await runner.totalUsage();
  return { text, tokens: usage.total_tokens };
}

async function responses() {
  const tools = [
    {
      type: "function",
      name: "get_weather",
      description: "The weather now.",
      parameters: PARAMETERS,
      strict: true,
    },
  ];
  const input = [{ role: "user", content: QUESTION }];
  let tokens = 0;
  for (;;) {
    const response = await respond({ model: MODEL, input, tools, store: false });
    if (response.status !== "completed") throw new Error(response.error.message);
    tokens += response.usage.total_tokens;
    const calls = response.output.filter((item) => item.type === "function_call");
    const reasoning = response.output.find((item) => item.type === "reasoning");
    if (calls.length === 0) {
      const thought = reasoning?.content?.[0] ?? reasoning?.summary?.[0];
      return { text: response.output_text, tokens, reasoning: thought?.text };
    }
    input.push(...response.output);
    for (const call of calls) {
      const output = getWeather(JSON.parse(call.arguments));
      input.push({ type: "function_call_output", call_id: call.call_id, output });
    }
  }
}

async function respond(request) {
  if (!asked.streamed) return await client.responses.create(request);
  const stream = client.responses.stream(request);
  stream.on("response.output_text.delta", (event) => heard.deltas.push(event.delta));
  return await stream.finalResponse();
}

await answer(asked.api === "chat" ? chat : responses);
