// OpenAI's own client asks the server for everything it knows of speech: node speak.mjs BASE_URL FOLDER TEXT
// Audio goes into FOLDER; what else came back is printed as one line of JSON.
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI from "openai";

const [baseURL, folder, input] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none-is-needed", maxRetries: 0 });
const request = { model: "tts-1", voice: "ben", input };

async function whole(response_format) {
  const answer = await client.audio.speech.create({ ...request, response_format });
  await writeFile(join(folder, `whole.${response_format}`), Buffer.from(await answer.arrayBuffer()));
  return answer.headers.get("content-type");
}

// The body, part by part as it comes. When the first part is here, the server has more to say.
async function streamed() {
  const answer = await client.audio.speech.create({ ...request, response_format: "pcm" });
  const file = createWriteStream(join(folder, "streamed.pcm"));
  const sizes = [];
  for await (const part of answer.body) {
    sizes.push(part.length);
    file.write(part);
  }
  file.end();
  await once(file, "finish");
  return sizes;
}

// Events through fetch, which hands them over cut anywhere.
async function events() {
  const answer = await fetch(`${baseURL}/audio/speech`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, response_format: "pcm", stream_format: "sse" }),
  });
  const audio = [];
  const others = [];
  let text = "";
  for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
    const blocks = (text + part).split("\n\n");
    text = blocks.pop();
    for (const event of blocks.map((block) => JSON.parse(block.replace(/^data: /, "")))) {
      if (event.type === "speech.audio.delta") audio.push(Buffer.from(event.audio, "base64"));
      else others.push(event);
    }
  }
  await writeFile(join(folder, "events.pcm"), Buffer.concat(audio));
  return { deltas: audio.length, others };
}

async function refused(fields) {
  try {
    await client.audio.speech.create({ ...request, ...fields });
  } catch (error) {
    const { status, code, param, type, message } = error;
    return { name: error.constructor.name, status, code, param, type, message };
  }
  return null;
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const told = {
  types: { wav: await whole("wav"), mp3: await whole("mp3") },
  sizes: await streamed(),
  events: await events(),
  errors: [await refused({ model: "whisper-1" }), await refused({ speed: 3 })],
  models,
};
console.log(JSON.stringify(told));
