// The server's routes, and what goes wrong with them in words.

const TOKEN_KEY = "token";

/** A failure whose message is made to be read; `status` is 0 when no answer came. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Keep the token for as long as this tab is open. */
export function setToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

/** Whether there is one, be it right or wrong. */
export function hasToken() {
  return sessionStorage.getItem(TOKEN_KEY) !== null;
}

/** The answer to a request, if it is a good one; throws an ApiError, or AbortError when cancelled. */
async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  const token = sessionStorage.getItem(TOKEN_KEY);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw inWords(error);
  }
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    const message = body?.error?.message ?? `The server answered with the status ${response.status}.`;
    throw new ApiError(response.status, message);
  }
  return response;
}

/** A failure of the network as an ApiError; anything else as it is. */
function inWords(error) {
  if (!(error instanceof TypeError)) return error;
  return new ApiError(0, "The server cannot be reached. Is it still running?");
}

/** POST JSON. */
function post(path, fields, signal) {
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(fields),
    signal,
  });
}

/** The voices that may be used, as the server lists them. */
export async function listVoices() {
  return (await (await ask("/v1/audio/voices")).json()).voices;
}

/** Make a voice of a recording, of which its speaker has agreed. */
export async function addVoice(wav, name, language) {
  const form = new FormData();
  form.append("name", name);
  form.append("language", language);
  form.append("consent", "true");
  form.append("audio_sample", wav, "clip.wav");
  return (await ask("/v1/audio/voices", { method: "POST", body: form })).json();
}

/** Forget an uploaded voice. */
export async function deleteVoice(id) {
  await ask(`/v1/audio/voices/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/** The whole speech as a file. */
export async function speechFile(fields, format) {
  return (await post("/v1/audio/speech", { ...fields, response_format: format })).blob();
}

/**
 * Speech as it is made: events with `samples` (Int16Array), `words`, `sample_rate` and
 * `synthesis_seconds`; the last has `srt`.
 */
export async function* speak(fields, signal) {
  const how = { response_format: "pcm", stream_format: "sse" };
  const response = await post("/v1/audio/timestamps", { ...fields, ...how }, signal);
  let isDone = false;
  for await (const event of events(response.body)) {
    if (event.type === "error") throw new ApiError(500, event.error.message);
    isDone = event.type === "speech.audio.done";
    yield isDone ? event : { ...event, samples: toSamples(event.audio) };
  }
  if (!isDone) throw new ApiError(0, "The connection ended before all was said.");
}

/** The JSON of each server-sent event. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      throw inWords(error);
    }
    if (chunk.done) return;
    const blocks = (rest + chunk.value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) yield JSON.parse(block.slice("data: ".length));
  }
}

/** 16 bit little-endian samples out of base64. */
function toSamples(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}
