// What the clients' scripts share: how they are asked, the tool that they offer, how they answer.
//
//   node agents.mjs '{"url": "http://127.0.0.1:1/v1", "key": "…", "api": "chat", "streamed": true}'
//
// Each prints one JSON object: what it heard, `{text, deltas, reasoning, tokens, cities}`, or the
// error that its client raised, `{error: {name, status, code, param, message}, deltas}`.

export const asked = JSON.parse(process.argv[2]);
export const QUESTION = "What is the weather in Tokyo?";
export const MODEL = "m";

export const heard = { deltas: [], cities: [] };

export function getWeather({ city }) {
  heard.cities.push(city);
  return `Sunny in ${city}.`;
}

export const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

export async function answer(program) {
  try {
    Object.assign(heard, await program());
  } catch (error) {
    const cause = error.lastError ?? error;
    const body = cause.data?.error ?? cause.error ?? {};
    heard.error = {
      name: cause.name === "Error" ? cause.constructor.name : cause.name,
      status: cause.status ?? cause.statusCode ?? null,
      code: cause.code ?? body.code ?? null,
      param: cause.param ?? body.param ?? null,
      message: cause.message ?? String(cause),
    };
  }
  process.stdout.write(JSON.stringify(heard));
}
